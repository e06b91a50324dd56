"""Pooling: vectors along the channels, neighbouring windows of one size at a time."""

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
def whole_windows(o, size, stride, padding, length, n_out):
    """Return how many windows from output `o` on, at least itself, have its size and stride."""
    first, last = o * stride - padding, (length + padding - size) // stride
    return max(min(last + 1, n_out) - o, 1) if first >= 0 else 1


@inline
def adaptive(o, size, stride, padding, length, n_out):
    """Return the inputs of output `o` where `n_out` windows share the axis."""
    return o * length // n_out, ((o + 1) * length + n_out - 1) // n_out


@inline
def one_window(o, size, stride, padding, length, n_out):
    """Return 1: windows that share an axis differ in size and stride."""
    return 1


def _pool(fold, window, alike):
    """Return the factory of a kernel that folds each window; record POOL.

    A tile is one row of output pixels (n, od, oh).
    """

    def factory(isa: Isa):
        fold_boxes = fold_call(isa, fold)

        def kernel(p, scratch, begin, end):
            for row in range(begin, end):
                oh, od, n = row % p.OH, row // p.OH % p.OD, row // (p.OH * p.OD)
                d0, d1 = window(od, p.KD, p.SD, p.PD, p.D, p.OD)
                h0, h1 = window(oh, p.KH, p.SH, p.PH, p.H, p.OH)
                x_row = p.x + n * p.x_n + d0 * p.x_d + h0 * p.x_h
                y = p.y + n * p.y_n + od * p.y_d + oh * p.y_h
                ow = 0
                while ow < p.OW:
                    w0, w1 = window(ow, p.KW, p.SW, p.PW, p.W, p.OW)
                    n_windows = alike(ow, p.KW, p.SW, p.PW, p.W, p.OW)
                    fold_boxes(
                        x_row + w0 * p.x_w, d1 - d0, h1 - h0, w1 - w0, p.x_d, p.x_h, p.x_w, p.C,
                        y + ow * p.y_w, n_windows, p.SW * p.x_w, p.y_w,
                        np.float32((d1 - d0) * (h1 - h0) * (w1 - w0)),
                    )  # fmt: skip
                    ow += n_windows

        return kernel

    return factory


def _global_pool(fold):
    """Return the factory of a kernel that folds blocks of whole rows; record GLOBAL_POOL.

    A tile is one (n, row block, channel block); pixels are taken in order.
    """

    def factory(isa: Isa):
        fold_boxes = fold_call(isa, fold)

        def kernel(p, scratch, begin, end):
            for task in range(begin, end):
                c = task % p.channel_blocks * p.channels_per_task
                block = task // p.channel_blocks % p.row_blocks
                n = task // (p.channel_blocks * p.row_blocks)
                C = min(p.channels_per_task, p.C - c)
                h = block * p.rows_per_task
                H = min(p.rows_per_task, p.H - h)
                x = p.x + n * p.x_n + h * p.x_h + 4 * c
                y = p.y + n * p.y_n + block * p.y_block + 4 * c
                fold_boxes(x, p.D, H, p.W, p.x_d, p.x_h, p.x_w, C, y, 1, 0, 0, p.count)

        return kernel

    return factory


f32_max_pool = _pool(MAX, sliding, whole_windows)
f32_average_pool = _pool(MEAN, sliding, whole_windows)
f32_adaptive_max_pool = _pool(MAX, adaptive, one_window)
f32_adaptive_average_pool = _pool(MEAN, adaptive, one_window)
f32_global_max = _global_pool(MAX_OR_NAN)
f32_global_average = _global_pool(MEAN)
