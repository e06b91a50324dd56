"""Pooling: the channels of one output pixel at a time, vectors along the channels."""

import numpy as np

from ..codegen.fold import MAX, MAX_OR_NAN, MEAN, fold_call
from ..codegen.isa import Isa
from ..codegen.jit import inline


@inline
def sliding(o, size, stride, padding, length, n_out):
    """Return the first input of output `o` and one past the last, clipped to the axis."""
    first = o * stride - padding
    return max(first, 0), min(first + size, length)


@inline
def adaptive(o, size, stride, padding, length, n_out):
    """Return the inputs of output `o` where `n_out` windows share the axis."""
    return o * length // n_out, ((o + 1) * length + n_out - 1) // n_out


def _pool(fold, window):
    """Return the factory of a kernel that folds each window; record POOL.

    A tile is one row of output pixels (n, od, oh).
    """

    def factory(isa: Isa):
        tile = fold_call(isa, fold)

        def kernel(p, scratch, begin, end):
            for row in range(begin, end):
                oh, od, n = row % p.OH, row // p.OH % p.OD, row // (p.OH * p.OD)
                d0, d1 = window(od, p.KD, p.SD, p.PD, p.D, p.OD)
                h0, h1 = window(oh, p.KH, p.SH, p.PH, p.H, p.OH)
                x_row = p.x + n * p.x_n + d0 * p.x_d + h0 * p.x_h
                y = p.y + n * p.y_n + od * p.y_d + oh * p.y_h
                for ow in range(p.OW):
                    w0, w1 = window(ow, p.KW, p.SW, p.PW, p.W, p.OW)
                    x = x_row + w0 * p.x_w
                    count = np.float32((d1 - d0) * (h1 - h0) * (w1 - w0))
                    c = 0
                    while c < p.C:
                        c += tile(
                            x + 4 * c, d1 - d0, h1 - h0, w1 - w0, p.x_d, p.x_h, p.x_w,
                            y + 4 * c, p.C - c, count,
                        )  # fmt: skip
                    y += p.y_w

        return kernel

    return factory


def _global_pool(fold):
    """Return the factory of a kernel that folds blocks of whole rows; record GLOBAL_POOL.

    A tile is one (n, row block, channel block); pixels are taken in order.
    """

    def factory(isa: Isa):
        tile = fold_call(isa, fold)

        def kernel(p, scratch, begin, end):
            for task in range(begin, end):
                c = task % p.channel_blocks * p.channels_per_task
                block = task // p.channel_blocks % p.row_blocks
                n = task // (p.channel_blocks * p.row_blocks)
                stop = min(c + p.channels_per_task, p.C)
                h = block * p.rows_per_task
                H = min(p.rows_per_task, p.H - h)
                x_block = p.x + n * p.x_n + h * p.x_h
                y_block = p.y + n * p.y_n + block * p.y_block
                while c < stop:
                    x, y = x_block + 4 * c, y_block + 4 * c
                    c += tile(x, p.D, H, p.W, p.x_d, p.x_h, p.x_w, y, stop - c, p.count)

        return kernel

    return factory


f32_max_pool = _pool(MAX, sliding)
f32_average_pool = _pool(MEAN, sliding)
f32_adaptive_max_pool = _pool(MAX, adaptive)
f32_adaptive_average_pool = _pool(MEAN, adaptive)
f32_global_max = _global_pool(MAX_OR_NAN)
f32_global_average = _global_pool(MEAN)
