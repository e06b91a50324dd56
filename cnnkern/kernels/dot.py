"""Products of two matrices per sample, neither of them a constant."""

from ..codegen.isa import Isa
from ..codegen.jit import inline
from ..codegen.vector import floats, fma
from .functions import ZERO


def f32_dot(isa: Isa):
    """Return the kernel ``y[m, n] = sum over k of a[m, k] * b[k, n]`` per sample; record DOT.

    A tile is one row of y, which stays in the L1 cache while 4 rows of b pass by.
    """
    multiply_add = fma if isa.has_fma else inline(lambda a, b, c: a * b + c)

    @inline
    def add_row(a, b, y, N):
        scalar = a[0]
        for n in range(N):
            y[n] = multiply_add(scalar, b[n], y[n])

    @inline
    def add_4_rows(a, b, b_k, y, N):
        a0, a1, a2, a3 = a[0], a[1], a[2], a[3]
        b0, b1 = floats(b), floats(b + b_k)
        b2, b3 = floats(b + 2 * b_k), floats(b + 3 * b_k)
        for n in range(N):
            total = multiply_add(a1, b1[n], multiply_add(a0, b0[n], y[n]))
            y[n] = multiply_add(a3, b3[n], multiply_add(a2, b2[n], total))

    def kernel(p, scratch, begin, end):
        for tile in range(begin, end):
            sample, m = tile // p.M, tile % p.M
            a, b = p.a + sample * p.a_batch + m * p.a_m, p.b + sample * p.b_batch
            y = floats(p.y + sample * p.y_batch + m * p.y_m)
            for n in range(p.N):
                y[n] = ZERO
            k = 0
            while k + 4 <= p.K:
                add_4_rows(floats(a + 4 * k), b + k * p.b_k, p.b_k, y, p.N)
                k += 4
            while k < p.K:
                add_row(floats(a + 4 * k), floats(b + k * p.b_k), y, p.N)
                k += 1

    return kernel
