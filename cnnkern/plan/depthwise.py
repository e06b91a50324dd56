"""Depthwise convolutions as calls of the depthwise kernels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ..codegen.isa import Isa
from ..graph import Array
from ..kernels.pack import pack_channels
from ..ops.window import MAX_RATE, Triple, Window, lift
from .buffer import FLOAT_NBYTES, Buffer, stepped, stride_fields
from .call import Call, claims
from .epilogue import Epilogue

if TYPE_CHECKING:
    from .lowering import Lowering

MIN_ROWS = 8  # enough tasks for several threads to end together
CHANNEL_BLOCKS = 4
# The rows of a larger window are read from the L2 cache once per output row; blocks of few
# channels stay in the L1 cache while the window moves down. Threads still share the rows.
MAX_WINDOW_NBYTES, BLOCK_NBYTES, BAND_ROWS = 128 << 10, 256, 7
ACTIVATED_NBYTES = 8 << 10  # of output that is in the L1 cache when it is activated
# (taps along W, stride along W) that have a kernel of their own.
TUNED_WINDOWS = ((3, 1), (3, 2), (5, 1), (5, 2), (7, 1))


def lower_depthwise(
    lowering: Lowering,
    owner: object,
    x: Buffer,
    y: Buffer,
    filters: Array,
    bias: Array | None,
    window: Window,
    epilogue: Epilogue,
) -> None:
    """Append ``y = epilogue(depthwise convolution(x, filters) + bias)``.

    Parameters
    ----------
    filters : float32[*K, C]
    bias : float32[C] or None
    """
    sizes = lift(filters.shape[:-1], 1)
    if not _falls_apart(sizes, window):
        _lower_image(lowering, owner, x, y, filters, bias, sizes, window, epilogue)
        return
    for x_part, y_part, rows_before in _undilated(x, y, window):
        dense = Window(before=(0, rows_before, 0))
        _lower_image(lowering, owner, x_part, y_part, filters, bias, sizes, dense, epilogue)


def _falls_apart(sizes: Triple, window: Window) -> bool:
    """Tell whether a dilated filter is faster as a dense one on each image that it meets."""
    is_image = sizes[0] == 1 and max(window.strides) == 1
    is_tuned = (sizes[2], 1) in TUNED_WINDOWS
    is_dilated = window.dilation[2] > 1 and max(window.dilation) <= MAX_RATE
    return is_image and is_tuned and is_dilated


def _undilated(x: Buffer, y: Buffer, window: Window) -> Iterator[tuple[Buffer, Buffer, int]]:
    """Yield the images of pixels that a filter meets together: x, y, rows of padding before x.

    x begins where the first window does along W.
    """
    rates, (_, above, left) = window.dilation, window.before
    for d, h, w in np.ndindex(rates):
        skipped, first = divmod(h - above, rates[1])
        yield x.every(rates, (d, first, w - left)), y.every(rates, (d, h, w)), -skipped


def _lower_image(
    lowering: Lowering, owner: object, x: Buffer, y: Buffer, filters: Array,
    bias: Array | None, sizes: Triple, window: Window, epilogue: Epilogue,
) -> None:  # fmt: skip
    """Append one step."""
    C = filters.shape[-1]
    strides, dilation = window.strides, window.dilation
    name, run_taps = _kernel(sizes[2], strides[2], dilation[2])
    x_strides = stepped(x.strides, strides)
    rows_at_once = _rows_at_once(lowering.isa, run_taps, sizes, strides, dilation)
    runs = _runs(x, (sizes[0], sizes[1] + rows_at_once - 1, sizes[2]), dilation, run_taps)
    batch, OD, OH, OW, _ = y.dims
    K = sizes[0] * sizes[1] * sizes[2]
    lowering.flops = 2 * K * C * batch * OD * OH * OW
    window_nbytes = sizes[0] * sizes[1] * x.strides[2]
    channels, band_rows = _block(
        C, batch * OD * OH, window_nbytes, rows_at_once, lowering.isa.lanes
    )
    n_tasks = -(-C // channels) * batch * OD * OH
    activated = ACTIVATED_NBYTES // (FLOAT_NBYTES * channels)
    lowering.call(
        name,
        n_tasks, max_claims=min(claims(y.nbytes), max(n_tasks // rows_at_once, 1)),
        x=x.before(window.before), y=y.address,
        filters=lowering.constant(
            owner, "filters", lambda: pack_channels(filters.reshape(K, C), bias, lowering.isa)
        ),
        filter_nbytes=FLOAT_NBYTES * (K + 1),
        runs=lowering.table(runs),
        runs_per_row=sizes[2] // run_taps if sizes[0] == 1 else 1, rows_at_once=rows_at_once,
        **_along_h(x.dims[2], sizes, strides[1], dilation[1], window.before[1], len(runs)),
        x_pixel=x_strides[3] if run_taps == 1 else x.strides[3],
        N=batch, OD=OD, OH=OH, OW=OW, C=C,
        channels_per_task=channels, rows_per_band=band_rows,
        pixels_per_call=OW if epilogue.in_registers else activated,
        **stride_fields("x", x_strides), **stride_fields("y", y.strides),
        **epilogue.fields,
    )  # fmt: skip


def row_sums(lowering: Lowering, x: Buffer) -> Buffer | None:
    """Have the step that writes `x` sum its rows, too; return float32[N, D*H, C].

    None where the last step is no depthwise convolution that writes all of `x`.
    """
    if not lowering.steps:
        return None
    step = lowering.steps[-1]
    call: Call = step.fields.get("reader", step)  # of bands
    if not call.kernel.startswith("f32_depthwise"):
        return None
    N, D, H, W, C = x.dims
    written = {
        "y": x.address, "N": N, "OD": D, "OH": H, "OW": W, "C": C,
        **stride_fields("y", x.strides),
    }  # fmt: skip
    if any(call.fields[name] != value for name, value in written.items()):
        return None
    sums = lowering.temporary((N, D * H, C), from_last_step=True)
    fields = call.fields | {"sums": sums.address, "sums_row": sums.strides[3]}
    if call is not step:
        fields = step.fields | {"reader": replace(call, fields=fields)}
    lowering.steps[-1] = replace(step, fields=fields)
    return sums


def _along_h(
    H: int, sizes: Triple, stride: int, dilation: int, before: int, n_runs: int
) -> dict[str, int]:
    """Return the fields that tell which filter rows lie in the image.

    A window along D, too, is taken whole: there the image has a border along D and H.
    """
    KD, KH, _ = sizes
    if KD > 1:
        return {"H": n_runs, "KH": n_runs, "DH": 1}
    return {"H": H, "KH": KH, "SH": stride, "PH": before, "DH": dilation}


def _rows_at_once(
    isa: Isa, run_taps: int, sizes: Triple, strides: Triple, dilation: Triple
) -> int:
    """Return how many output rows are done at once where there are as many."""
    is_square = sizes == (1, run_taps, run_taps) and strides[1] == strides[2]
    return isa.depthwise_rows(run_taps, strides[2]) if is_square and dilation[1] == 1 else 1


def _block(
    C: int, n_rows: int, window_nbytes: int, rows_at_once: int, lanes: int
) -> tuple[int, int]:
    """Return the channels of a task, and how many rows are done before the next channels.

    There are several blocks of channels where there are few rows, that several threads may
    end together, and where single rows of large windows are done.
    """
    vectors = -(-C // lanes)
    blocks, rows = 1, n_rows
    if n_rows < MIN_ROWS:
        blocks, rows = min(CHANNEL_BLOCKS, vectors), rows_at_once
    if window_nbytes > MAX_WINDOW_NBYTES and rows_at_once == 1:
        blocks = -(-C * FLOAT_NBYTES // BLOCK_NBYTES)
        rows = -(-n_rows // max(n_rows // BAND_ROWS, 2))
    return -(-vectors // blocks) * lanes, max(rows, 1)


def _kernel(KW: int, SW: int, DW: int) -> tuple[str, int]:
    """Return the kernel for a window's last axis, and how many taps it takes as one run."""
    if DW == 1 and (KW, SW) in TUNED_WINDOWS:
        return f"f32_depthwise_k{KW}s{SW}", KW
    return "f32_depthwise", 1


def _runs(x: Buffer, sizes: Triple, dilation: Triple, run_taps: int) -> tuple[int, ...]:
    """Return the byte offsets of the runs of the receptive field."""
    KD, KH, KW = sizes
    s_d, s_h, s_w = (s * d for s, d in zip(x.strides[1:], dilation, strict=True))
    starts = range(0, KW, run_taps)
    return tuple(
        int(d * s_d + h * s_h + w * s_w) for d, h, w in np.ndindex(KD, KH, KW) if w in starts
    )
