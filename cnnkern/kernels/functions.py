"""Element-wise functions as scalar float32 code that LLVM turns into vectors.

Each is branch-free on its main path and uses `fma` where rounding matters, so that the
vector body and the scalar tail of a loop give the same bits.
"""

import numpy as np

from ..codegen.jit import inline
from ..codegen.vector import add_to_exponent, fma, sqrt

F = np.float32

LOG2_E = F(1.4426950408889634)
LN2_HIGH = F(0.693145751953125)  # 11 trailing zero bits: n * LN2_HIGH is exact
LN2_LOW = F(1.428606765330187e-06)
ROUND = F(12582912.0)  # 1.5 * 2**23: adding it rounds to an integer in the low bits
EXP_MIN = F(-86.6)  # below, 2**(n-1) would be denormal: the result is 0
EXP_MAX = F(88.8)  # above, the result overflows to infinity
# Between these, e**-x is a normal number; above, adding it to 1 changes nothing.
LOGISTIC_MIN, LOGISTIC_MAX = F(-88), F(86)
INFINITY = F(np.inf)
ZERO, HALF, ONE, TWO = F(0), F(0.5), F(1), F(2)
NEGATIVE_ZERO = F(-0.0)  # it changes nothing that it is added to

# (e**r - 1 - r) / r**2 on |r| <= ln(2)/2: least largest error of the whole, 3e-9 (Remez).
E6, E5, E4, E3, E2 = (
    F(1.3814540579915047e-3), F(8.36874544620514e-3), F(4.166838899254799e-2),
    F(1.666652113199234e-1), F(4.999999403953552e-1),
)  # fmt: skip
# tanh(x)/x - 1 over x*x on |x| < 0.625: Cephes tanhf (S. Moshier, netlib.org/cephes).
T5, T4, T3, T2, T1 = (
    F(-5.70498872745e-3), F(2.06390887954e-2), F(-5.37397155531e-2),
    F(1.33314422036e-1), F(-3.33332819422e-1),
)  # fmt: skip
TANH_SMALL = F(0.625)

# log(1 + t) - t + t*t/2 over t**3 on 1/sqrt(2) - 1 < t < sqrt(2) - 1: Cephes logf.
LOG_TERMS = (
    F(7.0376836292e-2), F(-1.1514610310e-1), F(1.1676998740e-1), F(-1.2420140846e-1),
    F(1.4249322787e-1), F(-1.6668057665e-1), F(2.0000714765e-1), F(-2.4999993993e-1),
    F(3.3333331174e-1),
)  # fmt: skip
SQRT2_LESS_1 = F(0.41421356)
LN2 = F(0.6931471805599453)

# erf(x) / x as a ratio of polynomials in x*x on |x| < 4: Eigen, generic_fast_erf_float.
ERF_TOP = (
    F(-2.72614225801306e-10), F(2.77068142495902e-08), F(-2.10102402082508e-06),
    F(-5.69250639462346e-05), F(-7.34990630326855e-04), F(-2.95459980854025e-03),
    F(-1.60960333262415e-02),
)  # fmt: skip
ERF_BOTTOM = (
    F(-1.45660718464996e-05), F(-2.13374055278905e-04), F(-1.68282697438203e-03),
    F(-7.37332916720468e-03), F(-1.42647390514189e-02),
)  # fmt: skip
ERF_ONE = F(4)  # from here on erf rounds to 1

THREE, SIX, SIXTH, QUARTER, FIFTEEN = F(3), F(6), F(1 / 6), F(0.25), F(15)
SQRT_HALF = F(0.7071067811865476)
GELU_LINEAR, GELU_CUBIC = F(1.5957691216057308), F(0.044715)  # 2 sqrt(2 / pi)
SELU_SCALE, SELU_ALPHA = F(1.0507009873554805), F(1.6732632423543772)
EXPM1_MIN = F(-30)  # below, the result rounds to -1


@inline
def split_exponent(x):
    """Return r and a float that ends in the bits of n, where x = n ln 2 + r."""
    shifted = fma(x, LOG2_E, ROUND)
    n = shifted - ROUND
    return fma(n, -LN2_LOW, fma(n, -LN2_HIGH, x)), shifted


@inline
def exp_polynomial(r):
    """(e**r - 1 - r) / r**2 for |r| <= ln(2)/2."""
    p = fma(E6, r, E5)
    p = fma(p, r, E4)
    p = fma(p, r, E3)
    return fma(p, r, E2)


@inline
def exp(x):
    """e**x within 2 ulp: x = n ln 2 + r, a polynomial in r, n into the exponent."""
    r, shifted = split_exponent(EXP_MAX if x > EXP_MAX else x)
    p = fma(fma(exp_polynomial(r), r, ONE), r, ONE)
    result = add_to_exponent(p, shifted - ONE) * TWO
    return ZERO if x < EXP_MIN else result


@inline
def logistic_divisor(x):
    """1 + e**-x within 2 ulp; the multiply-adds of the reduction negate x."""
    limited = LOGISTIC_MAX if x > LOGISTIC_MAX else x
    shifted = fma(limited, -LOG2_E, ROUND)
    n = shifted - ROUND
    r = fma(n, -LN2_LOW, fma(n, -LN2_HIGH, -limited))
    p = fma(fma(exp_polynomial(r), r, ONE), r, ONE)
    return INFINITY if x < LOGISTIC_MIN else ONE + add_to_exponent(p, shifted)


@inline
def sigmoid(x):
    """1 / (1 + e**-x)."""
    return ONE / logistic_divisor(x)


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
def expm1(x):
    """e**x - 1 for x <= 0 without cancellation: 2**n (e**r - 1) + (2**n - 1)."""
    r, shifted = split_exponent(EXPM1_MIN if x < EXPM1_MIN else x)
    less_one = fma(exp_polynomial(r) * r, r, r)
    scale = add_to_exponent(ONE, shifted)
    return fma(scale, less_one, scale - ONE)


@inline
def log1p(z):
    """log(1 + z) for 0 <= z <= 1, exact reduction to |t| < sqrt(2) - 1."""
    is_large = z > SQRT2_LESS_1
    t = (z - ONE) * HALF if is_large else z
    p = LOG_TERMS[0]
    for term in LOG_TERMS[1:]:
        p = fma(p, t, term)
    square = t * t
    y = fma(p * t, square, fma(-HALF, square, t))
    return y + LN2 if is_large else y


@inline
def one_plus_erf(x):
    """1 + the error function; 0 from -4 on downwards."""
    limited = ERF_ONE if x > ERF_ONE else x
    square = limited * limited
    top = ERF_TOP[0]
    for term in ERF_TOP[1:]:
        top = fma(top, square, term)
    bottom = ERF_BOTTOM[0]
    for term in ERF_BOTTOM[1:]:
        bottom = fma(bottom, square, term)
    return ZERO if x <= -ERF_ONE else fma(limited, top, bottom) / bottom


@inline
def positive(x):
    """max(x, 0) that keeps NaN and gives +0 for -0."""
    return ZERO if x <= ZERO else x


@inline
def negative(x):
    """min(x, 0) that keeps NaN."""
    return ZERO if x > ZERO else x


@inline
def kept(x):
    """x, but not as what stands there already.

    LLVM would store the other lanes alone, by masks, which takes AMD's AVX2 processors 12
    cycles.
    """
    return x + ZERO


@inline
def joined(x, below):
    """x above 0, else what is made of negative(x); so that x is not as it was, as in `kept`."""
    return (x if x > ZERO else NEGATIVE_ZERO) + below


@inline
def softplus(x):
    """log(1 + e**x)."""
    return positive(x) + log1p(exp(-abs(x)))


@inline
def log_sigmoid(x):
    """log(sigmoid(x))."""
    return -softplus(-x)


@inline
def silu(x):
    """x * sigmoid(x); NaN for minus infinity, as in Keras."""
    return x / logistic_divisor(x)


@inline
def relu6(x):
    """min(max(x, 0), 6)."""
    x = positive(x)
    return SIX if x > SIX else x


@inline
def hard_sigmoid(x):
    """relu6(x + 3) / 6."""
    return relu6(x + THREE) * SIXTH


@inline
def hard_silu(x):
    """x * relu6(x + 3) / 6."""
    return x * hard_sigmoid(x)


@inline
def gelu(x):
    """x * (1 + erf(x / sqrt(2))) / 2."""
    return HALF * x * one_plus_erf(x * SQRT_HALF)


@inline
def gelu_tanh(x):
    """x * (1 + tanh(u / 2)) / 2 = x * sigmoid(u), u = 2 sqrt(2/pi) * (x + 0.044715 x**3)."""
    return x / logistic_divisor(GELU_LINEAR * fma(GELU_CUBIC * x * x, x, x))


@inline
def mish(x):
    """x * tanh(softplus(x)) = x * n / (n + 2) with n = e**x * (e**x + 2)."""
    z = exp(FIFTEEN if x > FIFTEEN else x)
    n = z * (z + TWO)
    return x * (n / (n + TWO))


@inline
def softsign(x):
    """x / (1 + |x|)."""
    return x / (ONE + abs(x))


@inline
def selu(x):
    """scale * (x or alpha * (e**x - 1)).

    Parts that are added, which spare `elu` a mask, take longer here.
    """
    return SELU_SCALE * (x if x > ZERO else SELU_ALPHA * expm1(negative(x)))


@inline
def elu(x, alpha):
    """x, or alpha * (e**x - 1) below 0."""
    return joined(x, alpha * expm1(negative(x)))


@inline
def celu(x, alpha):
    """x, or alpha * (e**(x / alpha) - 1) below 0."""
    return joined(x, alpha * expm1(negative(x) / alpha))


@inline
def sparse_plus(x):
    """0, a parabola between -1 and 1, then x."""
    middle = QUARTER * (x + ONE) * (x + ONE)
    return ZERO if x <= -ONE else (x if x >= ONE else middle)


@inline
def sparse_sigmoid(x):
    """0, a line between -1 and 1, then 1."""
    return ZERO if x <= -ONE else (ONE if x >= ONE else HALF * (x + ONE))


@inline
def tanh_shrink(x):
    """x - tanh(x)."""
    return x - tanh(x)


@inline
def squareplus(x, b):
    """(x + sqrt(x**2 + b)) / 2."""
    return HALF * (x + sqrt(fma(x, x, b)))


@inline
def leaky_relu(x, slope):
    """x, or slope * x below 0."""
    return joined(x, slope * negative(x))


@inline
def hard_shrink(x, threshold):
    """x, or 0 within the threshold."""
    return kept(x) if abs(x) > threshold else ZERO


@inline
def soft_shrink(x, threshold):
    """x moved towards 0 by the threshold, or 0 within it."""
    return x - threshold if x > threshold else (x + threshold if x < -threshold else ZERO)


@inline
def clip(x, lo, hi):
    """x limited to [lo, hi]; NaN stays, and a zero limit gives +0 for -0."""
    x = lo if x <= lo else x
    return hi if x > hi else x


@inline
def threshold(x, limit, other):
    """x above the limit, else another value."""
    return kept(x) if x > limit else other


@inline
def bounded_relu(x, slope, max_value, limit):
    """Keras' ReLU layer: threshold first, then clip, then the slope part."""
    kept = positive(x) if limit == ZERO else (x if x > limit else ZERO)
    kept = max_value if kept > max_value else kept
    return kept - slope * positive(limit - x) if slope != ZERO else kept
