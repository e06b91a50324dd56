"""A convolution and what alone reads it through windows, band by band of rows.

    for each tile:  some output rows of one image
        kernels/conv.py computes the rows under them, but for those that the tile above left
        kernels/depthwise.py, pool.py or winograd.py reads them from this core's L2 cache

A large image between the two is so never written to memory.
"""

from ..codegen.isa import Isa
from ..codegen.jit import inline
from ..codegen.vector import call_kernel, integers, record_at
from .executor import progress
from .move import clear, copy_row
from .records import CONV

CONV_WORDS = CONV.itemsize // 8
FLOAT = 4  # bytes


def f32_bands(isa: Isa):
    """Return the kernel ``y = reader(conv(x))``; record BANDS.

    The band holds the rows of conv(x) from `top` on, the first one under the tile's windows;
    those outside of the image are zeros. To the convolution they are images of their own.
    Scratch: what `f32_conv` takes, copies of both records, the band with its borders; they
    serve the next tile, too, in this call or the next one of the same thread. Then what the
    reader takes.
    """

    def kernel(p, scratch, begin, end):
        conv_args, reader_args = scratch + p.conv_copy, scratch + p.reader_copy
        conv, reader_x = record_at(conv_args, CONV), integers(reader_args)
        band = scratch + p.band
        done = progress(scratch)[0]
        if done != begin:
            copy_words(p.conv, conv_args, CONV_WORDS)
            copy_words(p.reader, reader_args, p.reader_words)
            clear_sides(p, band)
        for tile in range(begin, end):
            n, oh = tile // p.tiles, tile % p.tiles * p.rows_per_tile
            n_rows = min(p.rows_per_tile, p.OH - oh)
            top = oh * p.SH - p.PH
            bottom = top + (n_rows - 1) * p.SH + p.KH
            ready = top  # rows before this one are in the band
            if oh > 0 and (tile > begin or done == begin):
                ready += max(p.KH - p.SH, 0)
                move_up(p, band, p.rows_per_tile * p.SH, ready - top)
            image = band + p.inside - top * p.row_nbytes
            first, last = max(ready, 0), min(bottom, p.H)
            clear_rows(p, image, ready, first)
            clear_rows(p, image, max(last, ready), bottom)
            while first < last:
                rows = min(p.rows_at_once, last - first)
                conv.x = record_at(p.conv, CONV).x + n * conv.x_n + first * conv.x_h
                conv.y = image + first * p.row_nbytes
                conv.OH, conv.M = rows, rows * conv.OW
                call_kernel(p.conv_kernel, conv_args, scratch, 0, 1)
                first += rows
            reader_x[0] = image + p.reader_x
            task = (n * p.OH + oh) * p.tasks_per_row
            call_kernel(
                p.reader_kernel, reader_args, scratch + p.reader_scratch,
                task, task + n_rows * p.tasks_per_row,
            )  # fmt: skip

    return kernel


@inline
def copy_words(source, target, count):
    """Copy int64 words."""
    for i in range(count):
        integers(target)[i] = integers(source)[i]


@inline
def move_up(p, band, shift, count):
    """Make rows shift .. shift+count of the band its first ones."""
    for row in range(count):
        target = band + row * p.row_nbytes
        copy_row(target + shift * p.row_nbytes, target, p.row_nbytes // FLOAT)


@inline
def clear_rows(p, image, first, last):
    """Write zeros where rows outside of the image would stand."""
    for row in range(first, last):
        clear(image + row * p.row_nbytes, (p.row_nbytes - p.inside - p.after) // FLOAT)


@inline
def clear_sides(p, band):
    """Write zeros before and after the pixels of every row of the band."""
    for row in range(p.band_rows):
        address = band + row * p.row_nbytes
        clear(address, p.inside // FLOAT)
        clear(address + p.row_nbytes - p.after, p.after // FLOAT)
