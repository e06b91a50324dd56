"""Products of two matrices per sample, neither of them a constant."""

from ..codegen.isa import Isa
from ..codegen.jit import inline
from ..codegen.vector import floats, fma
from .functions import ZERO


def f32_dot(isa: Isa):
    """Return the kernel ``y[n, i, j] = sum over k of a[n, i, k] * b[n, k, j]``; record DOT.

    A tile is one row (n, i) of y, which stays in the L1 cache while 4 rows of b pass by.
    """
    multiply_add = fma if isa.has_fma else inline(lambda a, b, c: a * b + c)

    @inline
    def add_row(a, b, y, n):
        scalar = a[0]
        for j in range(n):
            y[j] = multiply_add(scalar, b[j], y[j])

    @inline
    def add_4_rows(a, b, b_k, y, n):
        a0, a1, a2, a3 = a[0], a[1], a[2], a[3]
        b0, b1 = floats(b), floats(b + b_k)
        b2, b3 = floats(b + 2 * b_k), floats(b + 3 * b_k)
        for j in range(n):
            total = multiply_add(a1, b1[j], multiply_add(a0, b0[j], y[j]))
            y[j] = multiply_add(a3, b3[j], multiply_add(a2, b2[j], total))

    def kernel(p, scratch, begin, end):
        for tile in range(begin, end):
            n, i = tile // p.I, tile % p.I
            a, b = p.a + n * p.a_n + i * p.a_i, p.b + n * p.b_n
            y = floats(p.y + n * p.y_n + i * p.y_i)
            for j in range(p.J):
                y[j] = ZERO
            k = 0
            while k + 4 <= p.K:
                add_4_rows(floats(a + 4 * k), b + k * p.b_k, p.b_k, y, p.J)
                k += 4
            while k < p.K:
                add_row(floats(a + 4 * k), floats(b + k * p.b_k), y, p.J)
                k += 1

    return kernel
