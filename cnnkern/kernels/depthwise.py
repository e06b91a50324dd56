"""Depthwise convolution: every channel has filters of its own.

    for each band of rows, for each block of channels:
        for each task, or two at once:  one row of output pixels (n, od, oh)
            for each tile of output pixels, for all channel vectors:  codegen/depthwise.py

The filters of all channels and the input rows of a task stay in the L2 cache, those of a small
block in the L1 cache from row to row. Rows of the window that lie outside of the image are
left out, so that only W has a border of zeros.

A global mean that follows finds each row's sum taken while the row was in the L1 cache.
"""

from ..codegen.depthwise import WIDTHS, Window, depthwise_call
from ..codegen.fold import MEAN, fold_call
from ..codegen.isa import Isa
from ..codegen.jit import inline
from ..codegen.vector import call_kernel
from .functions import ONE


def _depthwise(taps: int, stride: int):
    """Return the factory of ``y = activate(clip(depthwise(x, w) + b, lo, hi))``.

    Record DEPTHWISE. `taps` neighbouring filter columns are one run, output pixels step
    by `stride` input pixels.
    """

    def factory(isa: Isa):
        tiles = depthwise_call(isa, Window(taps, stride, 1))
        pair_tiles = depthwise_call(isa, Window(taps, stride, isa.depthwise_rows(taps, stride)))
        add_pixels = fold_call(isa, MEAN)
        LANES, WIDEST = isa.lanes, WIDTHS[0]

        def kernel(p, scratch, begin, end):
            task = begin
            while task < end:
                row, rows_left, c0 = place(p, task)
                C = min(p.channels_per_task, p.C - c0)
                oh, od, n = row % p.OH, row // p.OH % p.OD, row // (p.OH * p.OD)
                x_row = p.x + n * p.x_n + od * p.x_d + oh * p.x_h + 4 * c0
                y_row = p.y + n * p.y_n + od * p.y_d + oh * p.y_h + 4 * c0
                rows = min(p.rows_at_once, p.OH - oh, rows_left, end - task)
                first, end_run = runs_inside(p, oh, p.KH + rows - 1)
                ow = 0
                while ow < p.OW:
                    n_pixels = min(p.OW - ow, max(p.pixels_per_call, WIDEST))
                    done = 0
                    c = 0
                    while c < C:  # whole vectors, then what is left
                        n_vectors = max((C - c) // LANES, 1)
                        arguments = (
                            n_pixels,
                            x_row + ow * p.x_w + 4 * c, p.x_pixel, p.runs, first, end_run,
                            p.filters + (c0 + c) * p.filter_nbytes, LANES * p.filter_nbytes,
                            y_row + ow * p.y_w + 4 * c, p.y_w, p.y_h,
                            p.slopes + 4 * (c0 + c) if p.slopes else 0, n_vectors, C - c,
                            p.lo, p.hi,
                        )  # fmt: skip
                        done = tiles(*arguments) if rows == 1 else pair_tiles(*arguments)
                        c += n_vectors * LANES
                    if p.activate:
                        for r in range(rows):
                            activate_pixels(p, y_row + r * p.y_h + ow * p.y_w, done, C)
                    ow += done
                if p.sums:
                    for r in range(rows):
                        sums, y = p.sums + (row + r) * p.sums_row + 4 * c0, y_row + r * p.y_h
                        add_pixels(y, 1, 1, p.OW, 0, 0, p.y_w, C, sums, 1, 0, 0, ONE)
                task += rows

        return kernel

    return factory


@inline
def place(p, task):
    """Return a task's row, how many of its band there are from it on, and its first channel."""
    n_blocks = (p.C + p.channels_per_task - 1) // p.channels_per_task
    band = task // (p.rows_per_band * n_blocks) * p.rows_per_band
    n_rows = min(p.rows_per_band, p.N * p.OD * p.OH - band)
    i = task - band * n_blocks
    return band + i % n_rows, n_rows - i % n_rows, i // n_rows * p.channels_per_task


@inline
def runs_inside(p, oh, span):
    """Return which runs of `span` filter rows lie in the image: the first one, their end."""
    top = oh * p.SH - p.PH
    first = max(-(top // p.DH), 0)
    end = min((p.H - top + p.DH - 1) // p.DH, span)
    return first * p.runs_per_row, end * p.runs_per_row


@inline
def activate_pixels(p, y, n_pixels, C):
    """Apply the epilogue's row function in place to C channels of neighbouring pixels."""
    if p.y_w == 4 * C:
        call_kernel(p.activate, p.activate_args, y, y, n_pixels * C)
        return
    for pixel in range(n_pixels):
        address = y + pixel * p.y_w
        call_kernel(p.activate, p.activate_args, address, address, C)


f32_depthwise_k3s1 = _depthwise(3, 1)
f32_depthwise_k3s2 = _depthwise(3, 2)
f32_depthwise_k5s1 = _depthwise(5, 1)
f32_depthwise_k5s2 = _depthwise(5, 2)
f32_depthwise_k7s1 = _depthwise(7, 1)
# Any other window, dilation or stride: every tap is a run of its own. The stride only
# tells which inputs neighbouring outputs share, and with one tap they share none.
f32_depthwise = _depthwise(1, 1)
