"""Weighted sums of a few rows: one axis of an image resampled."""

from ..codegen.isa import Isa
from ..codegen.jit import inline
from ..codegen.vector import floats, integers


@inline
def first_tap(x, w, y, n):
    for i in range(n):
        y[i] = x[i] * w


@inline
def first_taps(x0, w0, x1, w1, y, n):
    for i in range(n):
        y[i] = x0[i] * w0 + x1[i] * w1


@inline
def more_taps(x0, w0, x1, w1, y, n):
    for i in range(n):
        y[i] = (y[i] + x0[i] * w0) + x1[i] * w1


def f32_resample(isa: Isa):
    """Return the kernel ``y[o, i] = sum over t of x[indices[o, t], i] * weights[o, t]``.

    Record RESAMPLE. A tile is a block of o and a chunk of i at one position of n and h.
    """

    def kernel(p, scratch, begin, end):
        for tile in range(begin, end):
            chunk, rest = tile % p.chunks, tile // p.chunks
            o_block, rest = rest % p.o_blocks, rest // p.o_blocks
            h, n = rest % p.H, rest // p.H
            first = chunk * p.chunk
            length = min(p.chunk, p.inner - first)
            x = p.x + n * p.x_n + h * p.x_h + 4 * first
            y = p.y + n * p.y_n + h * p.y_h + 4 * first
            o0 = o_block * p.o_block
            for o in range(o0, min(o0 + p.o_block, p.n_out)):
                offsets = integers(p.offsets + 8 * o * p.n_taps)
                w = floats(p.weights + 4 * o * p.n_taps)
                row = floats(y + o * p.y_o)
                if p.n_taps % 2:
                    first_tap(floats(x + offsets[0]), w[0], row, length)
                else:
                    x0, x1 = floats(x + offsets[0]), floats(x + offsets[1])
                    first_taps(x0, w[0], x1, w[1], row, length)
                for t in range(2 - p.n_taps % 2, p.n_taps, 2):
                    x0, x1 = floats(x + offsets[t]), floats(x + offsets[t + 1])
                    more_taps(x0, w[t], x1, w[t + 1], row, length)

    return kernel
