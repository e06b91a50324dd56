"""Pooling: the channels of one output pixel at a time, vectors along the channels."""

import numpy as np

from ..codegen.isa import Isa
from ..codegen.jit import inline
from ..codegen.vector import floats
from .functions import ZERO

LOWEST = np.float32(np.finfo(np.float32).min)  # what TensorFlow gives for an all-NaN window


@inline
def first_tap(o, stride, padding):
    """Return the first tap of output position `o` that lies inside the input."""
    return max(padding - o * stride, 0)


@inline
def last_tap(o, stride, padding, size, length):
    """Return one past the last tap of output position `o` that lies inside the input."""
    return min(size, length + padding - o * stride)


def _pool(start, accumulate, finish):
    """Return the factory of a kernel that folds each window; record POOL.

    A tile is one row of output pixels (n, od, oh).
    """

    def factory(isa: Isa):
        def kernel(p, scratch, begin, end):
            for row in range(begin, end):
                oh, od, n = row % p.OH, row // p.OH % p.OD, row // (p.OH * p.OD)
                d0, d1 = first_tap(od, p.SD, p.PD), last_tap(od, p.SD, p.PD, p.KD, p.D)
                h0, h1 = first_tap(oh, p.SH, p.PH), last_tap(oh, p.SH, p.PH, p.KH, p.H)
                y_row = p.y + n * p.y_n + od * p.y_d + oh * p.y_h
                for ow in range(p.OW):
                    w0, w1 = first_tap(ow, p.SW, p.PW), last_tap(ow, p.SW, p.PW, p.KW, p.W)
                    y = floats(y_row + ow * p.y_w)
                    for c in range(p.C):
                        y[c] = start
                    for d in range(d0, d1):
                        for h in range(h0, h1):
                            x_row = (
                                p.x + n * p.x_n
                                + (od * p.SD - p.PD + d) * p.x_d
                                + (oh * p.SH - p.PH + h) * p.x_h
                                + (ow * p.SW - p.PW) * p.x_w
                            )  # fmt: skip
                            for w in range(w0, w1):
                                x = floats(x_row + w * p.x_w)
                                for c in range(p.C):
                                    y[c] = accumulate(y[c], x[c])
                    count = np.float32((d1 - d0) * (h1 - h0) * (w1 - w0))
                    for c in range(p.C):
                        y[c] = finish(y[c], count)

        return kernel

    return factory


def _global_pool(start, accumulate, finish):
    """Return the factory of a kernel that folds all pixels; record GLOBAL_POOL.

    A tile is one (n, channel block); pixels are taken in order, whatever the blocks.
    """

    def factory(isa: Isa):
        def kernel(p, scratch, begin, end):
            count = np.float32(p.D * p.H * p.W)
            for tile in range(begin, end):
                n, c0 = tile // p.channel_blocks, tile % p.channel_blocks * p.channels_per_task
                C = min(p.channels_per_task, p.C - c0)
                y = floats(p.y + n * p.y_n + 4 * c0)
                for c in range(C):
                    y[c] = start
                for d in range(p.D):
                    for h in range(p.H):
                        row = p.x + n * p.x_n + d * p.x_d + h * p.x_h + 4 * c0
                        for w in range(p.W):
                            x = floats(row + w * p.x_w)
                            for c in range(C):
                                y[c] = accumulate(y[c], x[c])
                for c in range(C):
                    y[c] = finish(y[c], count)

        return kernel

    return factory


larger = inline(lambda a, b: b if b > a else a)  # a NaN in b is dropped, as in TensorFlow
# A global maximum is a reduction in Keras, and reductions keep NaN.
larger_or_nan = inline(lambda a, b: a if a >= b or a != a else b)
plus = inline(lambda a, b: a + b)
keep = inline(lambda a, count: a)
divide = inline(lambda a, count: a / count)

f32_max_pool = _pool(LOWEST, larger, keep)
f32_average_pool = _pool(ZERO, plus, divide)
f32_global_max = _global_pool(np.float32(-np.inf), larger_or_nan, keep)
f32_global_average = _global_pool(ZERO, plus, divide)
