"""Kernels that reduce a row to a few numbers and then rewrite it: softmax, layer norm, ...

Sums run in float32 within blocks, whose sums are added in float64. So a sum of 100,000
terms is as exact as one of some dozens, and the order of all additions is fixed.
"""

import math

from ..codegen.isa import Isa
from ..codegen.jit import inline, inline_sum
from ..codegen.vector import floats, maximum, sqrt
from .elementwise import row_offset
from .functions import ONE, ZERO, F, exp, positive
from .move import copy_row

BLOCK = 1024  # floats; with a partial sum per lane each adds some dozens


def _rows(body):
    """Return the factory of a kernel that copies each row and calls ``body(p, scratch, y)``."""

    def factory(isa: Isa):
        def kernel(p, scratch, begin, end):
            row = begin
            while row < end:
                x = p.x + row_offset(row, p.D, p.H, p.W, p.x_n, p.x_d, p.x_h, p.x_w)
                y = p.y + row_offset(row, p.D, p.H, p.W, p.y_n, p.y_d, p.y_h, p.y_w)
                count = min(end - row, p.W - row % p.W)
                for _ in range(count):
                    copy_row(x, y, p.run)
                    body(p, scratch, floats(y))
                    x, y = x + p.x_w, y + p.y_w
                row += count

        return kernel

    return factory


def _sums(term, square):
    """Return ``totals(x, n, a)``: sums of ``term(x[i], a)`` and of ``square(x[i], a)``."""

    @inline_sum
    def block(x, first, last, a):
        total, total2 = ZERO, ZERO
        for i in range(first, last):
            total += term(x[i], a)
            total2 += square(x[i], a)
        return total, total2

    @inline
    def totals(x, n, a):
        result, result2 = 0.0, 0.0
        first = 0
        while first < n:
            total, total2 = block(x, first, min(first + BLOCK, n), a)
            result, result2 = result + total, result2 + total2
            first += BLOCK
        return result, result2

    return totals


# The terms are functions of their own so that only the additions may change places.
nothing = inline(lambda x, a: ZERO)
plain_sums = _sums(inline(lambda x, a: x), nothing)
square_sums = _sums(nothing, inline(lambda x, a: x * x))
exponential_sums = _sums(inline(lambda x, a: exp(x - a)), nothing)
moments = _sums(inline(lambda x, a: x - a), inline(lambda x, a: (x - a) * (x - a)))


@inline
def largest(x, n):
    """Return the largest of a row's floats, NaN if there is one."""
    result = x[0]
    for i in range(1, n):
        result = maximum(result, x[i])
    return result


@inline
def softmax(p, scratch, y):
    highest = largest(y, p.run)
    for i in range(p.run):
        y[i] = exp(y[i] - highest)
    inverse = F(1.0 / plain_sums(y, p.run, ZERO)[0])
    for i in range(p.run):
        y[i] *= inverse


@inline
def log_softmax(p, scratch, y):
    highest = largest(y, p.run)
    logarithm = F(math.log(F(exponential_sums(y, p.run, highest)[0])))
    for i in range(p.run):
        y[i] = (y[i] - highest) - logarithm


@inline
def sift(heap, root, n):
    """Move the root of a heap, whose smallest is on top, down to its place."""
    child = 2 * root + 1
    while child < n:
        if child + 1 < n and heap[child + 1] < heap[child]:
            child += 1
        if heap[root] <= heap[child]:
            break
        heap[root], heap[child] = heap[child], heap[root]
        root, child = child, 2 * child + 1


@inline
def sort_down(z, n):
    """Sort a row in descending order: heapsort, which needs no memory."""
    for i in range(n // 2):
        sift(z, n // 2 - 1 - i, n)
    for i in range(1, n):
        z[0], z[n - i] = z[n - i], z[0]
        sift(z, 0, n - i)


@inline
def sparsemax(p, scratch, y):
    """Keras' threshold, see ops.softmax.Sparsemax. Scratch: a row."""
    z = floats(scratch)
    for i in range(p.run):
        z[i] = y[i]
    sort_down(z, p.run)
    partial, total, kept = ZERO, 0.0, 0
    for i in range(p.run):
        partial += z[i]
        if z[i] > (partial - ONE) / F(i + 1):
            total += partial
            kept += 1
    threshold = (F(total) - ONE) / F(kept)
    for i in range(p.run):
        y[i] = positive(y[i] - threshold)


@inline
def layer_norm(p, scratch, y):
    """The mean in two parts: its rounding error is the mean of what it leaves."""
    gamma, beta = floats(p.gamma), floats(p.beta)
    share = 1.0 / p.run
    mean = F(plain_sums(y, p.run, ZERO)[0] * share)
    rest, square = moments(y, p.run, mean)
    rest *= share
    variance = square * share - rest * rest
    scale, low = ONE / sqrt(F(variance + p.epsilon)), F(rest)
    for i in range(p.run):
        y[i] = ((y[i] - mean) - low) * scale * gamma[i] + beta[i]


@inline
def rms_norm(p, scratch, y):
    gamma = floats(p.gamma)
    scale = ONE / sqrt(F(square_sums(y, p.run, ZERO)[1] / p.run + p.epsilon))
    for i in range(p.run):
        y[i] = y[i] * scale * gamma[i]


@inline
def unit_norm(p, scratch, y):
    """Scale by 1 / length, at most by `limit`."""
    scale = min(ONE / sqrt(F(square_sums(y, p.run, ZERO)[1])), p.limit)
    for i in range(p.run):
        y[i] = y[i] * scale


f32_softmax = _rows(softmax)
f32_log_softmax = _rows(log_softmax)
f32_sparsemax = _rows(sparsemax)
f32_layer_norm = _rows(layer_norm)
f32_rms_norm = _rows(rms_norm)
f32_unit_norm = _rows(unit_norm)
