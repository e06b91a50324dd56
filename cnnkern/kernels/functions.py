"""Element-wise functions as scalar float32 code that LLVM turns into vectors.

Each is branch-free on its main path and uses `fma` where rounding matters, so that the
vector body and the scalar tail of a loop give the same bits.
"""

import numpy as np

from ..codegen.jit import inline
from ..codegen.vector import add_to_exponent, fma

F = np.float32

LOG2_E = F(1.4426950408889634)
LN2_HIGH = F(0.693145751953125)  # 11 trailing zero bits: n * LN2_HIGH is exact
LN2_LOW = F(1.428606765330187e-06)
ROUND = F(12582912.0)  # 1.5 * 2**23: adding it rounds to an integer in the low bits
EXP_MIN = F(-86.6)  # below, 2**(n-1) would be denormal: the result is 0
EXP_MAX = F(88.8)  # above, the result overflows to infinity
ZERO, HALF, ONE, TWO = F(0), F(0.5), F(1), F(2)

# Taylor coefficients 1/7! .. 1/2!: on |r| <= ln(2)/2 the next term is below 2**-26.
E7, E6, E5, E4, E3, E2 = (F(1 / n) for n in (5040, 720, 120, 24, 6, 2))

# tanh(x)/x - 1 over x*x on |x| < 0.625: Cephes tanhf (S. Moshier, netlib.org/cephes).
T5, T4, T3, T2, T1 = (
    F(-5.70498872745e-3), F(2.06390887954e-2), F(-5.37397155531e-2),
    F(1.33314422036e-1), F(-3.33332819422e-1),
)  # fmt: skip
TANH_SMALL = F(0.625)


@inline
def exp(x):
    """e**x within 2 ulp: x = n ln 2 + r, a polynomial in r, n into the exponent."""
    clipped = EXP_MAX if x > EXP_MAX else x
    shifted = fma(clipped, LOG2_E, ROUND)
    n = shifted - ROUND
    r = fma(n, -LN2_LOW, fma(n, -LN2_HIGH, clipped))
    p = fma(E7, r, E6)
    p = fma(p, r, E5)
    p = fma(p, r, E4)
    p = fma(p, r, E3)
    p = fma(p, r, E2)
    p = fma(fma(p, r, ONE), r, ONE)
    result = add_to_exponent(p, shifted - ONE) * TWO
    return ZERO if x < EXP_MIN else result


@inline
def sigmoid(x):
    """1 / (1 + e**-x), from e**-|x| so that neither side overflows."""
    z = exp(-abs(x))
    return (z if x < ZERO else ONE) / (ONE + z)


@inline
def tanh(x):
    """Hyperbolic tangent: an odd polynomial near zero, 1 - 2/(e**2|x| + 1) beyond."""
    square = x * x
    p = fma(T5, square, T4)
    p = fma(p, square, T3)
    p = fma(p, square, T2)
    p = fma(p, square, T1)
    small = x * fma(p, square, ONE)  # a product keeps the sign of -0
    magnitude = abs(x)
    large = ONE - TWO / (exp(magnitude + magnitude) + ONE)
    return small if magnitude < TANH_SMALL else (-large if x < ZERO else large)


@inline
def relu(x):
    """max(x, 0) that keeps NaN and gives +0 for -0."""
    return ZERO if x <= ZERO else x
