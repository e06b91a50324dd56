"""A convolution and what alone reads it through windows as one step, where it pays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..kernels import KERNELS
from ..kernels.memory import whole_lines
from ..kernels.records import CONV
from ..ops.window import RowWindow
from .buffer import FLOAT_NBYTES, Buffer
from .call import Call, Step
from .matrix import scratch_nbytes

if TYPE_CHECKING:
    from .lowering import Lowering

# Smaller images between the two stay in the L2 caches of the cores. Beside blocks of Winograd's
# tiles a band does not: images of 1.6 to 3 MiB gain nothing, one of 12 takes 15 % less.
MIN_IMAGE_FLOATS, MIN_TILED_FLOATS = (512 << 10) // FLOAT_NBYTES, (4 << 20) // FLOAT_NBYTES
# With more products per pixel and channel the image costs little beside them, and halves pay.
MAX_K = 96
BAND_NBYTES = 384 << 10  # of a 1 MiB L2, beside filters and the rows that go in and out
# A thread computes the rows anew that its first tile shares with the one above, and so does
# one that helps another.
STARTS, MAX_SHARE_ANEW = 4, 0.15
MIN_TILES = 14  # of an image: enough for two threads to end together


def pays_in_bands(middle: Buffer, K: int, window: RowWindow) -> bool:
    """Tell whether what a convolution gives its reader is better not written to memory."""
    N, D, H, W, C = middle.dims
    least = MIN_TILED_FLOATS if window.in_tiles else MIN_IMAGE_FLOATS
    n_floats = H * W * C if D == 1 else 0
    is_large = N > 0 and n_floats >= least  # no image, no steps to join
    rows_anew = STARTS * (window.span - window.stride)
    return is_large and K <= MAX_K and rows_anew <= MAX_SHARE_ANEW * H


def _rows_per_tile(OH: int, row_nbytes: int, window: RowWindow) -> int:
    """Return as many output rows as fit, fewer where an even number of tiles is near."""
    fitting = (BAND_NBYTES // row_nbytes - window.span) // window.stride + 1
    most = max(min(fitting, OH // MIN_TILES), 1)
    even = (rows for rows in range(most, most // 2, -1) if OH % (2 * rows) == 0)
    return next(even, most)


def join_in_bands(
    lowering: Lowering, conv: Step, reader: Step, middle: Buffer, window: RowWindow
) -> None:
    """Append one step for two, which would write and read `middle`.

    Parameters
    ----------
    middle : the tensor between them, which has no storage
    window : that of the reader
    """
    N, _, H, W, C = middle.dims
    inside = middle.halo[2][0] * middle.strides[3]
    OH, tasks_per_row = _rows_and_tasks(reader, N)
    row_nbytes = middle.strides[2]
    rows_per_tile = _rows_per_tile(OH, row_nbytes, window)
    tiles = -(-OH // rows_per_tile)
    band_rows = (rows_per_tile - 1) * window.stride + window.span
    rows_at_once = 1 if conv.kernel == "f32_plane_conv" else band_rows  # its tile is a row
    conv_copy = whole_lines(scratch_nbytes(rows_at_once * W, lowering.isa))
    reader_copy = conv_copy + CONV.itemsize
    reader_nbytes = KERNELS[reader.kernel].record.itemsize
    band = whole_lines(reader_copy + reader_nbytes)
    reader_scratch = whole_lines(band + band_rows * row_nbytes)
    lowering.scratch(reader_scratch + reader.scratch_nbytes)
    one_task = {
        "asks_output": 0,
        "row_unit": W, "rows_per_task": rows_at_once * W, "row_blocks": 1, "row_step": 1,
        "group_step": 1,
        "panels_per_task": -(-C // lowering.isa.tile_columns),
        "panel_blocks": 1, "panel_step": 1,
    }  # fmt: skip
    all_channels = {"channels_per_task": C} if "channels_per_task" in reader.fields else {}
    lowering.flops = conv.flops + reader.flops
    lowering.call(
        "f32_bands",
        N * tiles,
        conv=Call(conv.kernel, conv.fields | one_task | {"y": 0}),
        reader=Call(reader.kernel, reader.fields | all_channels | {"x": 0, "x_n": 0}),
        conv_kernel=lowering.kernel_address(conv.kernel),
        reader_kernel=lowering.kernel_address(reader.kernel),
        reader_words=reader_nbytes // 8, tasks_per_row=tasks_per_row,
        reader_x=reader.fields["x"].offset_bytes - middle.address.offset_bytes,
        H=H, OH=OH, KH=window.span, SH=window.stride, PH=window.before,
        rows_per_tile=rows_per_tile, tiles=tiles,
        band_rows=band_rows, rows_at_once=rows_at_once,
        row_nbytes=row_nbytes, inside=inside, after=row_nbytes - inside - W * middle.strides[3],
        conv_copy=conv_copy, reader_copy=reader_copy, band=band, reader_scratch=reader_scratch,
    )  # fmt: skip


def _rows_and_tasks(reader: Step, n_images: int) -> tuple[int, int]:
    """Return the output rows of an image, or rows of tiles, and the tasks of each."""
    fields = reader.fields
    if reader.kernel != "f32_winograd":
        return fields["OH"], 1
    return fields["TH"], fields["blocks"] // (n_images * fields["TH"])
