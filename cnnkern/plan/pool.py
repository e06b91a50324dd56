"""Pooling as calls of the pooling kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..ops.window import Window, lift
from ..shapes import product
from .buffer import Buffer, stride_fields
from .call import claims
from .depthwise import row_sums

if TYPE_CHECKING:
    from .lowering import Lowering

CHANNELS_PER_TASK = 64  # of a global pooling: whole cache lines, their sums in registers
ROW_BLOCKS = 8  # of a large image; fixed, so that the order of a sum is, too


def lower_pool(
    lowering: Lowering,
    kernel: str,
    x: Buffer,
    y: Buffer,
    sizes: Sequence[int],
    window: Window,
) -> None:
    """Append a pooling over windows."""
    _, OD, OH, OW, _ = y.dims
    lowering.call(
        kernel,
        y.dims[0] * OD * OH, max_claims=claims(y.nbytes),
        x=x.address, y=y.address, OD=OD, OH=OH, OW=OW,
        **dict(zip("DHWC", x.dims[1:], strict=True)),
        **dict(zip(("KD", "KH", "KW"), lift(sizes, 1), strict=True)),
        **dict(zip(("SD", "SH", "SW"), window.strides, strict=True)),
        **dict(zip(("PD", "PH", "PW"), window.before, strict=True)),
        **stride_fields("x", x.strides), **stride_fields("y", y.strides),
    )  # fmt: skip


def lower_global_pool(lowering: Lowering, kernel: str, x: Buffer, y: Buffer) -> None:
    """Append a pooling over all pixels of each channel.

    A large image is first folded block by block of its rows: a core reads the rows that it
    wrote, and does not take the others away from theirs. For a mean a depthwise convolution
    has summed its rows already.
    """
    N, *space, C = x.dims
    sums = row_sums(lowering, x) if kernel == "f32_global_average" else None
    x = _upright(x) if sums is None else sums
    H = x.dims[2]
    if sums is None and H >= ROW_BLOCKS:
        blocks = -(-H // -(-H // ROW_BLOCKS))
        partial = lowering.temporary((N, blocks, C))
        _fold(lowering, kernel, x, partial, row_blocks=blocks, count=1)
        x = partial
    _fold(lowering, kernel, x, y, row_blocks=1, count=product(tuple(space)))


def _upright(x: Buffer) -> Buffer:
    """Return a sequence as an image of one column: its rows can be shared out."""
    N, D, H, W, C = x.dims
    if H > 1:
        return x
    s_n, s_d, _, s_w = x.strides
    return Buffer((N, D, W, 1, C), x.address, (s_n, s_d, s_w, s_w))


def _fold(
    lowering: Lowering, kernel: str, x: Buffer, y: Buffer, row_blocks: int, count: int
) -> None:
    """Append a fold of each block of rows to one vector; a mean is divided by `count`."""
    N, _, H, _, C = x.dims
    channels = CHANNELS_PER_TASK if row_blocks == 1 else max(C, 1)
    channel_blocks = -(-C // channels)
    lowering.call(
        kernel,
        N * row_blocks * channel_blocks,
        x=x.address, y=y.address,
        channels_per_task=channels, channel_blocks=channel_blocks,
        rows_per_task=-(-H // row_blocks), row_blocks=row_blocks, count=count,
        **dict(zip("DHWC", x.dims[1:], strict=True)),
        **stride_fields("x", x.strides), y_n=y.strides[0], y_block=y.strides[3],
    )  # fmt: skip
