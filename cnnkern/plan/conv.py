"""Direct convolutions: which pixels and which filters make a product, or several."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import product as combinations
from typing import TYPE_CHECKING

import numpy as np

from ..codegen.isa import NARROW_COLUMNS, Isa
from ..graph import Array
from ..kernels.memory import Empty
from ..kernels.pack import pack_columns, pack_panels, pack_rows
from ..lazy import Weight
from ..ops.regions import Region
from ..ops.window import Triple, Window, lift
from ..shapes import product
from .buffer import FLOAT_NBYTES, Address, Buffer, Strides, stepped, stride_fields
from .call import claims
from .epilogue import NO_EPILOGUE, Epilogue
from .matrix import Matrix, Runs, lower_matrix

if TYPE_CHECKING:
    from .lowering import Lowering

MAX_WHOLE = 128  # products of a sum in kernels that take none in parts


def lower_conv(
    lowering: Lowering,
    owner: object,
    x: Buffer,
    y: Buffer,
    filters: Weight,
    bias: Array | None,
    window: Window,
    groups: int = 1,
    epilogue: Epilogue = NO_EPILOGUE,
    residual: Buffer | None = None,
    gate: Buffer | None = None,
    regions: Sequence[Sequence[Region]] | None = None,
) -> None:
    """Append ``y = epilogue(conv(x * gate, filters) + bias + residual)``.

    Parameters
    ----------
    owner : object
        Whose constant the packed filters are.
    filters : float32[*K, C/groups, OC]
    bias : float32[OC] or None
    gate : of one pixel per image, for filters of one tap
    regions : of each spatial axis, where not all taps count everywhere
    """
    *taps, C, OC = filters.shape
    receptive = partial(_runs, x, window.dilation, C)
    corner = x.before(window.before)
    strides, K = stepped(x.strides, window.strides), product(filters.shape[:-1])
    if regions is not None:
        for region in combinations(*_lift_regions(regions)):
            outputs, taken = zip(*region, strict=True)
            skipped = sum(o.start * s for o, s in zip(outputs, strides[1:], strict=True))
            lower_matrix(
                lowering, corner + skipped, strides, _part(y, outputs), receptive(taken),
                _panels_of_taps(lowering, owner, filters, bias, taken), epilogue,
                residual and _part(residual, outputs),
            )  # fmt: skip
        return
    runs = receptive([range(n) for n in lift(taps, 1)])
    is_plain = groups == 1 and gate is None
    if is_plain and residual is None and is_plane(lowering, strides, y, C, K):
        lower_plane(
            lowering, owner, corner, strides, y, runs, filters.reshape(-1, OC), bias, epilogue
        )
        return
    if is_plain and is_narrow(lowering, C, OC, K):
        matrix = _columns(lowering, owner, filters, bias, runs)
    else:
        matrix = _panels(lowering, owner, filters, bias, groups)
    lower_matrix(
        lowering, corner, strides, y,
        runs, matrix, epilogue, residual, gate=gate,
    )  # fmt: skip


def is_narrow(lowering: Lowering, C: int, OC: int, K: int) -> bool:
    """Tell whether channels should fill the vectors, because columns do not.

    Every lane has a sum of its own; where it were long and sums are taken in parts, it is not.
    """
    lanes = lowering.isa.lanes
    is_short = MAX_WHOLE * lanes >= K
    return OC <= NARROW_COLUMNS and lanes <= C and (is_short or not lowering.in_parts)


def is_plane(lowering: Lowering, x_strides: Strides, y: Buffer, C: int, K: int) -> bool:
    """Tell whether pixels should fill the vectors: of one channel, where they touch.

    A single product, mostly of a matrix with one row, is not worth it.
    """
    OC, few = y.shape[-1], lowering.isa.plane_columns
    touch = x_strides[3] == FLOAT_NBYTES and y.strides[3] == FLOAT_NBYTES * OC
    is_short = K <= MAX_WHOLE or not lowering.in_parts
    return C == 1 < K and few >= OC and touch and is_short


def lower_plane(
    lowering: Lowering, owner: object, x: Address, x_strides: Strides, y: Buffer, runs: Runs,
    filters: Weight, bias: Array | None, epilogue: Epilogue,
) -> None:  # fmt: skip
    """Append a convolution of one channel, filters float32[K, OC], row by row."""
    N, OD, OH, OW, OC = y.dims
    packed = lowering.constant(owner, "rows", lambda: pack_rows(filters, bias))
    lowering.flops = 2 * filters.shape[0] * OC * N * OD * OH * OW
    lowering.call(
        "f32_plane_conv", N * OD * OH, max_claims=claims(y.nbytes),
        x=x, y=y.address, panels=packed,
        runs=lowering.table(runs.offsets), n_runs=len(runs.offsets), run_len=runs.length,
        OD=OD, OH=OH, OW=OW, M=N * OD * OH * OW, OC=OC,
        **stride_fields("x", x_strides), **stride_fields("y", y.strides),
        **epilogue.with_rows,
    )  # fmt: skip


def _columns(
    lowering: Lowering, owner: object, filters: Weight, bias: Array | None, runs: Runs
) -> Matrix:
    """Return filters of few columns."""
    w, isa = filters.reshape(-1, filters.shape[-1]), lowering.isa
    packed = lowering.constant(
        owner, f"columns for runs of {runs.length}",
        lambda: pack_columns(np.asarray(w), bias, runs.length, isa),
    )  # fmt: skip
    K, N = w.shape
    return Matrix(packed, K, N, is_narrow=True)


def _panels(
    lowering: Lowering, owner: object, filters: Weight, bias: Array | None, groups: int
) -> Matrix:
    """Return filters whose columns fill vectors."""
    *_, C, OC = filters.shape
    w, N = filters.reshape(-1, OC), OC // groups
    packed = lowering.constant(
        owner, "panels",
        lambda: _pack_groups(w, bias, groups, lowering.isa, lowering.constants.empty),
    )  # fmt: skip
    return Matrix(packed, w.shape[0], N, groups, FLOAT_NBYTES * C, FLOAT_NBYTES * N)


def _panels_of_taps(
    lowering: Lowering, owner: object, filters: Weight, bias: Array | None,
    taps: Sequence[range],
) -> Matrix:  # fmt: skip
    """Return some taps along D, H and W of filters."""
    *sizes, C, OC = filters.shape
    chosen = tuple(slice(t.start, t.stop) for t in taps)

    def pack() -> np.ndarray:
        whole = np.asarray(filters).reshape(*lift(sizes, 1), C, OC)
        w = whole[chosen].reshape(-1, OC)
        return pack_panels(w, bias, lowering.isa, lowering.constants.empty)

    name = f"panels of taps {[(t.start, t.stop) for t in taps]}"
    K = product(tuple(map(len, taps))) * C
    return Matrix(lowering.constant(owner, name, pack), K, OC)


def _runs(x: Buffer, dilation: Triple, C: int, taps: Sequence[range]) -> Runs:
    """Return the part of a pixel's receptive field under some taps along D, H and W.

    Neighbours in a row of the filter are one run where they touch in memory.
    """
    *outer, row = taps
    s_d, s_h, s_w = (s * d for s, d in zip(x.strides[1:], dilation, strict=True))
    touch = len(row) == 1 or s_w == FLOAT_NBYTES * C
    run_len = len(row) * C if touch else C
    starts = combinations(*outer, row[:1] if touch else row)
    return Runs(tuple(d * s_d + h * s_h + w * s_w for d, h, w in starts), run_len)


def _lift_regions(regions: Sequence[Sequence[Region]]) -> list[Sequence[Region]]:
    """Return the regions along D, H and W."""
    single = [Region(range(1), range(1))]
    return [single] * (3 - len(regions)) + list(regions)


def _part(y: Buffer, outputs: Sequence[range]) -> Buffer:
    """Return ranges of the pixels along D, H and W."""
    for axis, chosen in zip((-4, -3, -2), outputs, strict=True):
        if len(chosen) != y.dims[axis]:
            y = y.slice(axis, chosen.start, len(chosen))
    return y


def _pack_groups(w: Weight, b: Array | None, groups: int, isa: Isa, empty: Empty) -> np.ndarray:
    if groups == 1:
        return pack_panels(w, b, isa, empty)
    w, N = np.asarray(w), w.shape[1] // groups
    columns = [slice(g * N, (g + 1) * N) for g in range(groups)]
    return np.concatenate(
        [pack_panels(w[:, c], None if b is None else b[c], isa).ravel() for c in columns]
    )
