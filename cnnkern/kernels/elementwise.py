"""Kernels that visit every element once: map, binary, per channel, repeat, halo.

A buffer is N*D*H*W rows; the plan merges axes into the row where memory allows, so a
dense tensor is one row. A tile is one row, or one chunk of a row.
"""

from ..codegen.isa import Isa
from ..codegen.jit import inline
from ..codegen.vector import call_kernel, floats
from .functions import ZERO, clip, sigmoid
from .move import FLOAT, clear, copy_row


@inline
def row_offset(row, D, H, W, s_n, s_d, s_h, s_w):
    """Return the byte offset of a row from its index."""
    w = row % W
    h = row // W % H
    d = row // (W * H) % D
    n = row // (W * H * D)
    return n * s_n + d * s_d + h * s_h + w * s_w


@inline
def neighbours(p, tile, end):
    """Return how many tiles from `tile` on are rows x_w and y_w apart."""
    return min(end - tile, p.W - tile % p.W) if p.chunks == 1 else 1


def f32_map(isa: Isa):
    """Return the kernel ``y = function(x)`` for a row function; record MAP."""

    def kernel(p, scratch, begin, end):
        tile = begin
        while tile < end:
            row, first = tile // p.chunks, tile % p.chunks * p.chunk
            n = min(p.chunk, p.run - first)
            x = p.x + 4 * first + row_offset(row, p.D, p.H, p.W, p.x_n, p.x_d, p.x_h, p.x_w)
            y = p.y + 4 * first + row_offset(row, p.D, p.H, p.W, p.y_n, p.y_d, p.y_h, p.y_w)
            count = neighbours(p, tile, end)
            for _ in range(count):
                call_kernel(p.function, p.function_args, x, y, n)
                x, y = x + p.x_w, y + p.y_w
            tile += count

    return kernel


def _binary(function):
    """Return the factory of ``y = clip(function(a, b, scale), lo, hi)``; record BINARY.

    A tile is one row, or one chunk of a row that has several. `y` may be `a`, not `b`.
    """

    @inline
    def rows(b, y, n, p):
        lo, hi, scale = p.lo, p.hi, p.scale
        for i in range(n):
            y[i] = clip(function(y[i], b[i], scale), lo, hi)

    @inline
    def row_and_scalar(b, y, n, p):
        lo, hi, scale, scalar = p.lo, p.hi, p.scale, b[0]
        for i in range(n):
            y[i] = clip(function(y[i], scalar, scale), lo, hi)

    @inline
    def scalar_and_row(a, b, y, n, p):
        lo, hi, scale, scalar = p.lo, p.hi, p.scale, a[0]
        for i in range(n):
            y[i] = clip(function(scalar, b[i], scale), lo, hi)

    def factory(isa: Isa):
        def kernel(p, scratch, begin, end):
            tile = begin
            while tile < end:
                row, first = tile // p.chunks, tile % p.chunks * p.chunk
                n = min(p.chunk, p.run - first)
                a = p.a + row_offset(row, p.D, p.H, p.W, p.a_n, p.a_d, p.a_h, p.a_w)
                b = p.b + row_offset(row, p.D, p.H, p.W, p.b_n, p.b_d, p.b_h, p.b_w)
                y = p.y + row_offset(row, p.D, p.H, p.W, p.y_n, p.y_d, p.y_h, p.y_w) + 4 * first
                a, b = a + p.a_run * first, b + p.b_run * first
                count = neighbours(p, tile, end)
                for _ in range(count):
                    if p.a_run == 0:
                        scalar_and_row(floats(a), floats(b), floats(y), n, p)
                    else:
                        copy_row(a, y, n)
                        if p.b_run == 0:
                            row_and_scalar(floats(b), floats(y), n, p)
                        else:
                            rows(floats(b), floats(y), n, p)
                    a, b, y = a + p.a_w, b + p.b_w, y + p.y_w
                tile += count

        return kernel

    return factory


f32_add = _binary(inline(lambda a, b, scale: a + b))
f32_subtract = _binary(inline(lambda a, b, scale: a - b))
f32_multiply = _binary(inline(lambda a, b, scale: a * b))
f32_divide = _binary(inline(lambda a, b, scale: a / b))
# A NaN in either operand is kept.
f32_maximum = _binary(inline(lambda a, b, scale: a if a >= b or a != a else b))
f32_minimum = _binary(inline(lambda a, b, scale: a if a <= b or a != a else b))
f32_scaled_add = _binary(inline(lambda a, b, scale: a + b * scale))
f32_gate = _binary(inline(lambda a, b, scale: a * sigmoid(b)))
# A negative zero gives +0, as max(a, 0) does.
f32_prelu = _binary(inline(lambda a, b, scale: a if a > ZERO else a * b + ZERO))


def _per_channel(function):
    """Return the factory of ``y = clip(function(x, scale[c], shift[c]), lo, hi)``.

    Record SCALE_SHIFT. A tile is one chunk of one row.
    """

    @inline
    def pixels(y, n, p):
        scale, shift, lo, hi = floats(p.scale), floats(p.shift), p.lo, p.hi
        for c in range(n):
            y[c] = clip(function(y[c], scale[c], shift[c]), lo, hi)

    def factory(isa: Isa):
        def kernel(p, scratch, begin, end):
            tile = begin
            while tile < end:
                row, first = tile // p.chunks, tile % p.chunks * p.chunk
                x = p.x + 4 * first + row_offset(row, p.D, p.H, p.W, p.x_n, p.x_d, p.x_h, p.x_w)
                y = p.y + 4 * first + row_offset(row, p.D, p.H, p.W, p.y_n, p.y_d, p.y_h, p.y_w)
                n = min(p.chunk, p.run - first)
                count = neighbours(p, tile, end)
                for _ in range(count):
                    copy_row(x, y, n)
                    done = 0
                    while done < n:
                        pixels(floats(y + 4 * done), min(p.period, n - done), p)
                        done += p.period
                    x, y = x + p.x_w, y + p.y_w
                tile += count

        return kernel

    return factory


f32_scale_shift = _per_channel(inline(lambda x, scale, shift: x * scale + shift))
f32_standardize = _per_channel(inline(lambda x, scale, shift: (x - shift) * scale))


def f32_repeat(isa: Isa):
    """Return the kernel ``y[i*count + j] = x[i]``; record REPEAT."""

    @inline
    def repeat(x, y, n, count):
        for i in range(n):
            for j in range(count):
                y[i * count + j] = x[i]

    def kernel(p, scratch, begin, end):
        for tile in range(begin, end):
            row, first = tile // p.chunks, tile % p.chunks * p.chunk
            n = min(p.chunk, p.run - first)
            x = p.x + 4 * first + row_offset(row, p.D, p.H, p.W, p.x_n, p.x_d, p.x_h, p.x_w)
            y = p.y + row_offset(row, p.D, p.H, p.W, p.y_n, p.y_d, p.y_h, p.y_w)
            y += 4 * first * p.count
            if p.count == 2:  # LLVM makes vectors where it knows the number
                repeat(floats(x), floats(y), n, 2)
            else:
                repeat(floats(x), floats(y), n, p.count)

    return kernel


def f32_halo(isa: Isa):
    """Return the kernel that writes zeros or a pixel around a buffer; record HALO.

    A tile is one (n, d, h) row of the padded buffer.
    """

    @inline
    def fill(p, y, n_pixels):
        pixel = p.y_w // FLOAT
        if not p.border:
            clear(y, n_pixels * pixel)
        else:
            for i in range(n_pixels):
                copy_row(p.border, y + i * p.y_w, pixel)

    def kernel(p, scratch, begin, end):
        D, H, W = p.D0 + p.D + p.D1, p.H0 + p.H + p.H1, p.W0 + p.W + p.W1
        for row in range(begin, end):
            h, d, n = row % H, row // H % D, row // (H * D)
            y = p.y + n * p.y_n + d * p.y_d + h * p.y_h
            inside = p.D0 <= d < p.D0 + p.D and p.H0 <= h < p.H0 + p.H
            fill(p, y, p.W0 if inside else W)
            fill(p, y + (W - p.W1) * p.y_w, p.W1 if inside else 0)

    return kernel
