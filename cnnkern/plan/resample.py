"""Images of another size: repeated elements, or weighted sums along one axis after another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..ops.resize import Taps
from .buffer import FLOAT_NBYTES, Buffer
from .move import lower_move

if TYPE_CHECKING:
    from .lowering import Lowering

CHUNK = 4096  # floats of a row: with two input rows 48 KiB, all in L2


def lower_repeats(lowering: Lowering, x: Buffer, y: Buffer, factors: Sequence[int]) -> None:
    """Append ``y[n, i*f + j, .., c] = x[n, i, .., c]`` for every spatial axis."""
    lengths = zip(x.shape, (1, *factors, 1), x.axis_strides, y.axis_strides, strict=True)
    axes = []
    for count, factor, x_step, y_step in lengths:
        axes += [(count, x_step, factor * y_step), (factor, 0, y_step)]
    lower_move(lowering, x.address, y.address, axes)


def lower_resampling(lowering: Lowering, x: Buffer, y: Buffer, taps: Sequence[Taps]) -> None:
    """Append weighted sums along H, then along W of [N, H, W, C]."""
    (N, _, W, C), OH = x.shape, y.shape[1]
    between = lowering.temporary((N, OH, W, C))
    lower_resample(lowering, x, between, 1, taps[0])
    lower_resample(lowering, between, y, 2, taps[1])


def lower_resample(lowering: Lowering, x: Buffer, y: Buffer, axis: int, taps: Taps) -> None:
    """Append ``y[o] = sum over t of x[indices[o, t]] * weights[o, t]`` along an axis.

    Parameters
    ----------
    axis : 1 or 2, of [N, H, W, C]
    taps : indices int64[n_out, n_taps] and weights float32[n_out, n_taps]
    """
    N, H, W, C = y.shape
    indices, weights = taps
    n_out, n_taps = indices.shape
    is_dense = all(buffer.strides[3] == FLOAT_NBYTES * C for buffer in (x, y))
    other = 2 if axis == 1 else 1  # the axis that all weights share
    outer, inner = (H if other == 1 else W), C
    if other == 2 and is_dense:
        outer, inner = 1, W * C
    chunks = -(-inner // CHUNK)
    o_block = max(CHUNK // inner, 1) if inner else 1
    o_blocks = -(-n_out // o_block)
    table = indices * x.axis_strides[axis]
    key = (axis, x.axis_strides[axis], table.tobytes(), weights.tobytes())
    lowering.call(
        "f32_resample",
        N * outer * o_blocks * chunks,
        x=x.address, y=y.address, H=outer,
        x_n=x.strides[0], y_n=y.strides[0],
        x_h=x.axis_strides[other], y_h=y.axis_strides[other],
        n_out=n_out, n_taps=n_taps,
        y_o=y.axis_strides[axis], o_block=o_block, o_blocks=o_blocks,
        offsets=lowering.constants.address(("offsets", *key), lambda: table),
        weights=lowering.constants.address(("weights", *key), lambda: weights),
        inner=inner, chunk=CHUNK, chunks=chunks,
    )  # fmt: skip
