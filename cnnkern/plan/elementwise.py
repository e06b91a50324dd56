"""Operations on elements that stand at the same place, constants among the operands."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ..graph import Array, Halo
from .buffer import (
    ABSOLUTE,
    FLOAT_NBYTES,
    MAX_RANK,
    Address,
    Buffer,
    broadcast_walk,
    stride_fields,
    walk,
)
from .call import MIN_CLAIMS, claims
from .epilogue import NO_EPILOGUE, Epilogue

if TYPE_CHECKING:
    from .lowering import Lowering

CHUNK = 4096  # floats of a tile: 16 KiB, half of a 32 KiB L1d
PERIOD = 256  # floats of per-channel constants at least; both arrays stay in L1
VECTOR = 32  # floats that a vector loop takes at once


def lower_map(
    lowering: Lowering, function: str, x: Buffer, y: Buffer, parameters: int = 0
) -> None:
    """Append ``y = function(x)`` for a row function."""
    rows = walk(x, y)
    chunks = max(-(-rows.run // CHUNK), 1)
    lowering.call(
        "f32_map",
        rows.n_rows * chunks, max_claims=claims(y.nbytes),
        x=x.address, y=y.address, run=rows.run, chunk=CHUNK, chunks=chunks,
        function=lowering.kernel_address(function), function_args=parameters,
        **rows.fields("x", "y"),
    )  # fmt: skip


def lower_channel_repeats(lowering: Lowering, x: Buffer, y: Buffer, count: int) -> None:
    """Append ``y[..., c*count + i] = x[..., c]``."""
    n, d, h, w = (count * stride for stride in x.strides)  # as if x had as many channels as y
    rows = walk(Buffer(y.shape, x.address, (n, d, h, w)), y)
    run = rows.run // count
    chunks = max(-(-run // CHUNK), 1)
    lowering.call(
        "f32_repeat",
        rows.n_rows * chunks, max_claims=claims(y.nbytes),
        x=x.address, y=y.address, count=count, run=run, chunk=CHUNK, chunks=chunks,
        **rows.fields("x", "y") | stride_fields("x", [s // count for s in rows.strides[0]]),
    )  # fmt: skip


def lower_binary(
    lowering: Lowering,
    kernel: str,
    a: Buffer,
    b: Buffer,
    y: Buffer,
    scale: float = 0.0,
    epilogue: Epilogue = NO_EPILOGUE,
) -> None:
    """Append ``y = kernel(a, b)``; axes of length 1 are broadcast."""
    if len(y.shape) > MAX_RANK:
        a, b = (_expanded(lowering, operand, y.shape) for operand in (a, b))
    rows = broadcast_walk(y, a, b)
    chunks = max(-(-rows.run // CHUNK), 1)
    _, a_run, b_run = rows.steps
    lowering.call(
        kernel,
        rows.n_rows * chunks, max_claims=claims(y.nbytes),
        chunk=CHUNK, chunks=chunks,
        y=y.address, a=a.address, b=b.address, run=rows.run,
        a_run=a_run, b_run=b_run, scale=scale,
        **rows.fields("y", "a", "b"), **epilogue.bounds,
    )  # fmt: skip


def lower_affine(
    lowering: Lowering,
    owner: object,
    x: Buffer,
    y: Buffer,
    scale: Array,
    shift: Array,
    epilogue: Epilogue = NO_EPILOGUE,
) -> None:
    """Append ``y = clip(x * scale + shift)`` with constants that broadcast to a sample."""
    if scale.size == shift.size == 1 and epilogue == NO_EPILOGUE:
        parameters = lowering.parameters((float(scale.item()), float(shift.item())))
        lower_map(lowering, "f32_affine", x, y, parameters)
    elif _is_per_channel(scale) and _is_per_channel(shift):
        _per_channel(lowering, "f32_scale_shift", owner, x, y, scale, shift, epilogue)
    else:
        rank = len(x.shape)
        factor = constant(lowering, owner, "scale", scale, rank)
        lower_binary(lowering, "f32_multiply", x, factor, y)
        offset = constant(lowering, owner, "shift", shift, rank)
        lower_binary(lowering, "f32_add", y, offset, y, epilogue=epilogue)


def lower_standardize(
    lowering: Lowering, owner: object, x: Buffer, y: Buffer, mean: Array, deviation: Array
) -> None:
    """Append ``y = (x - mean) / deviation`` with constants that broadcast to a sample."""
    if _is_per_channel(mean) and _is_per_channel(deviation):
        _per_channel(lowering, "f32_standardize", owner, x, y, np.float32(1) / deviation, mean)
        return
    rank = len(x.shape)
    divisor = constant(lowering, owner, "deviation", deviation, rank)
    lower_binary(lowering, "f32_subtract", x, constant(lowering, owner, "mean", mean, rank), y)
    lower_binary(lowering, "f32_divide", y, divisor, y)


def constant(lowering: Lowering, owner: object, name: str, values: Array, rank: int) -> Buffer:
    """Return a constant that broadcasts to samples as a buffer of `rank` axes."""
    shape = (1,) * (rank - values.ndim) + values.shape
    address = Address(ABSOLUTE, lowering.constant(owner, name, lambda: values))
    return Buffer(shape, address, Buffer.allocate(ABSOLUTE, shape).strides)


def _is_per_channel(values: Array) -> bool:
    """Tell whether `values` is a number or has no axis but the last."""
    return bool(values.size == (values.shape or (1,))[-1])


def _per_channel(
    lowering: Lowering,
    kernel: str,
    owner: object,
    x: Buffer,
    y: Buffer,
    scale: Array,
    shift: Array,
    epilogue: Epilogue = NO_EPILOGUE,
) -> None:
    """Append ``y = clip(kernel(x, scale[c], shift[c]))``."""
    C = x.dims[-1]
    pixels = _pixels_per_period(C)
    period = pixels * C
    rows = walk(x, y)
    chunk = max(CHUNK // period, 1) * period
    chunks = max(-(-rows.run // chunk), 1)

    def repeated(values: Array) -> Array:
        return np.tile(np.broadcast_to(values.ravel(), C), pixels)

    lowering.call(
        kernel,
        rows.n_rows * chunks, max_claims=claims(y.nbytes),
        x=x.address, y=y.address, run=rows.run, chunk=chunk, chunks=chunks, period=period,
        scale=lowering.constant(owner, "scales", lambda: repeated(scale)),
        shift=lowering.constant(owner, "shifts", lambda: repeated(shift)),
        **rows.fields("x", "y"), **epilogue.bounds,
    )  # fmt: skip


def lower_border(lowering: Lowering, inner: Buffer, halo: Halo, border: Array | None) -> None:
    """Append the writing of zeros, or of the pixel `border` again and again, around `inner`."""
    (d0, d1), (h0, h1), (w0, w1) = halo
    N, D, H, W, _ = inner.dims
    _, s_d, s_h, s_w = inner.strides
    lowering.call(
        "f32_halo",
        N * (D + d0 + d1) * (H + h0 + h1), max_claims=MIN_CLAIMS,
        y=inner.address + -(d0 * s_d + h0 * s_h + w0 * s_w),
        border=0 if border is None else _pixel(lowering, border, s_w),
        D=D, H=H, W=W, D0=d0, D1=d1, H0=h0, H1=h1, W0=w0, W1=w1,
        **stride_fields("y", inner.strides),
    )  # fmt: skip


def _pixel(lowering: Lowering, channels: Array, nbytes: int) -> int:
    """Return the address of a pixel of `nbytes`, with zeros behind its channels."""
    gap = nbytes // FLOAT_NBYTES - channels.size
    key = ("pixel", channels.tobytes(), gap)
    return lowering.constants.address(key, lambda: np.pad(channels, (0, gap)))


def _pixels_per_period(C: int) -> int:
    """Return how often constants of C channels are repeated, to whole vectors if possible."""
    whole = math.lcm(C, VECTOR)
    period = whole if whole <= CHUNK else C
    return period // C * max(PERIOD // period, 1)


def _expanded(lowering: Lowering, x: Buffer, shape: tuple[int, ...]) -> Buffer:
    """Return `x` broadcast to `shape`, as a copy where it is smaller."""
    rank = len(shape)
    if not x.is_dense:
        dense = lowering.temporary(x.shape)
        lowering.copy(x, dense)
        x = dense
    x = x.reshape((*x.shape[:1], *(1,) * (rank - len(x.shape)), *x.shape[1:]))
    if x.shape == shape:
        return x
    y = lowering.temporary(shape)
    axes = zip(x.shape, x.axis_strides, strict=True)
    lowering.move(x, y, [0 if length == 1 else step for length, step in axes])
    return y
