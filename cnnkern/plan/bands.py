"""A convolution and the depthwise convolution behind it as one step, where it pays."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ..kernels.memory import ALIGNMENT
from ..kernels.records import CONV, DEPTHWISE
from .buffer import FLOAT_NBYTES, Buffer, lifted
from .call import Call
from .conv import scratch_nbytes

if TYPE_CHECKING:
    from .lowering import Lowering

# Smaller images between the two stay in the L2 caches of the cores.
MIN_IMAGE_FLOATS = (512 << 10) // FLOAT_NBYTES
# Every row of the image reads the filters again: they must stay in the L2 cache.
MAX_FILTER_FLOATS = (256 << 10) // FLOAT_NBYTES
BAND_NBYTES = 384 << 10  # beside the filters and the rows that go in and out
# Of a step: each computes the rows anew that it shares with the one above.
MAX_CLAIMS = 4
MAX_SHARE_ANEW = 0.15


def pays_in_bands(middle: tuple[int, ...], filter_floats: int, span: int, stride: int) -> bool:
    """Tell whether a tensor between two convolutions is better not written to memory."""
    _, D, H, W, C = lifted(middle)
    is_large = D == 1 and H * W * C >= MIN_IMAGE_FLOATS
    rows_anew = MAX_CLAIMS * (span - stride)
    return is_large and filter_floats <= MAX_FILTER_FLOATS and rows_anew <= MAX_SHARE_ANEW * H


def join_in_bands(lowering: Lowering, middle: Buffer, span: int, stride: int) -> None:
    """Replace the last two steps, which write and read `middle`, by one.

    Parameters
    ----------
    middle : the tensor between them, which then has no storage
    span, stride : rows of it under a window, and from one window to the next
    """
    depthwise, conv = lowering.steps.pop(), lowering.steps.pop()
    N, _, H, W, C = middle.dims
    _, (above, _), (left, right) = middle.halo
    OH = depthwise.fields["OH"]
    row_nbytes = middle.strides[2]
    fitting = (BAND_NBYTES // row_nbytes - span) // stride + 1
    rows_per_tile = min(max(fitting, 1), OH)
    tiles = -(-OH // rows_per_tile)
    band_rows = (rows_per_tile - 1) * stride + span
    conv_copy = -(-scratch_nbytes(W, lowering.isa) // ALIGNMENT) * ALIGNMENT
    depthwise_copy = conv_copy + CONV.itemsize
    band = -(-(depthwise_copy + DEPTHWISE.itemsize) // ALIGNMENT) * ALIGNMENT
    lowering.scratch(band + band_rows * row_nbytes)
    one_row_each = {
        "rows_per_task": W, "row_blocks": N * H, "row_step": 1, "group_step": N * H,
        "panels_per_task": conv.fields["panels_per_task"] * conv.fields["panel_blocks"],
        "panel_blocks": 1, "panel_step": 1,
    }  # fmt: skip
    lowering.flops = conv.flops + depthwise.flops
    lowering.call(
        "f32_bands",
        N * tiles,
        conv=Call(conv.kernel, conv.fields | one_row_each | {"y": 0, "y_n": 0}),
        depthwise=Call(
            depthwise.kernel, depthwise.fields | {"x": 0, "x_n": 0, "channels_per_task": C}
        ),
        conv_kernel=lowering.kernel_address(conv.kernel),
        depthwise_kernel=lowering.kernel_address(depthwise.kernel),
        H=H, OH=OH, KH=span, SH=stride, H0=above,
        rows_per_tile=rows_per_tile, tiles=tiles, band_rows=band_rows,
        row_nbytes=row_nbytes, inside=left * middle.strides[3], after=right * middle.strides[3],
        conv_copy=conv_copy, depthwise_copy=depthwise_copy, band=band,
    )  # fmt: skip
    lowering.steps[-1] = replace(lowering.steps[-1], max_claims=MAX_CLAIMS * N)
