"""The logistic function where a register holds a table: powers of two by look-up.

e**-x = 2**(n / 16) * e**-SHIFT * e**r with n = round(-16 x / ln 2): the low four bits of n pick
one of the 16 floats of a register, the others go into the exponent, and a polynomial of degree
3 is left of e**r, where without a table it has 6 (kernels/functions.py).
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .isa import Isa
from .simd import Simd
from .vector import I32, I64, external

BITS = 4
STEPS = 1 << BITS  # as many as lanes
LN2_HIGH, LN2_LOW = 0.693145751953125, 1.428606765330187e-06  # as in kernels/functions.py
ROUND = 12582912.0  # 1.5 * 2**23: adding it leaves an integer in the low bits
# Between these, e**-x is a normal number; above, adding it to 1 changes nothing.
MIN, MAX = -88.0, 86.0
# With this one the entries of the table have the smallest rounding errors: 0.42 * 2**-24.
SHIFT = 2121 * 2.0**-20
# e**r - 1 = r * (1 + r * (SQUARE + r * CUBE)) on |r| <= LIMIT, with the least largest error.
LIMIT = math.log(2) / STEPS / 2 + SHIFT
SQUARE, CUBE = 1 / 2 + (2 * math.sqrt(2) - 2) * LIMIT**2 / 24, 1 / 6


def map_row(isa: Isa, function: Callable[[Simd, Any], Any]):
    """Return ``rows(x, y, n)``: y[i] = function(x[i]) for the floats at two addresses.

    `function` emits code for a vector; y may be x.
    """

    @intrinsic
    def rows(typing, x, y, n):
        def emit(context, builder, signature, args):
            simd, (x, y, n) = Simd(isa, builder), args
            whole = builder.and_(n, ir.Constant(I64, -isa.lanes))
            step = ir.Constant(I64, isa.lanes)
            with cgutils.for_range_slice(builder, ir.Constant(I64, 0), whole, step) as (i, _):
                _map_vector(simd, function, x, y, i, None)
            with builder.if_then(builder.icmp_signed("<", whole, n)):
                mask = simd.mask(builder.sub(n, whole))
                _map_vector(simd, function, x, y, whole, mask)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, types.int64), emit

    return rows


def _map_vector(simd: Simd, function: Callable[[Simd, Any], Any], x, y, i, mask) -> None:
    nbytes = simd.builder.shl(i, ir.Constant(I64, 2))
    value = function(simd, simd.load(simd.builder.add(x, nbytes), mask))
    simd.store(value, simd.builder.add(y, nbytes), mask)


def silu(simd: Simd, x: Any) -> Any:
    """x * sigmoid(x) within 3 ulp; NaN for minus infinity, as in Keras."""
    return simd.builder.fdiv(x, _divisor(simd, x))


def sigmoid(simd: Simd, x: Any) -> Any:
    """1 / (1 + e**-x) within 3 ulp."""
    return simd.builder.fdiv(simd.constant(1.0), _divisor(simd, x))


def _divisor(simd: Simd, x: Any) -> Any:
    """1 + e**-x."""
    b, constant = simd.builder, simd.constant
    limited = b.select(b.fcmp_ordered(">", x, constant(MAX)), constant(MAX), x)
    shifted = simd.multiply_add(limited, constant(-STEPS / math.log(2)), constant(ROUND))
    n = b.fsub(shifted, constant(ROUND))
    r = simd.multiply_add(n, constant(-LN2_HIGH / STEPS), b.fneg(limited))
    r = b.fadd(simd.multiply_add(n, constant(-LN2_LOW / STEPS), r), constant(SHIFT))
    power = _power(simd, b.bitcast(shifted, ir.VectorType(I32, STEPS)))
    terms = simd.multiply_add(r, constant(CUBE), constant(SQUARE))
    terms = simd.multiply_add(r, terms, constant(1.0))
    divisor = b.fadd(simd.multiply_add(b.fmul(power, r), terms, power), constant(1.0))
    return b.select(b.fcmp_ordered("<", x, constant(MIN)), constant(math.inf), divisor)


def _power(simd: Simd, n: Any) -> Any:
    """2**(n / STEPS) * e**-SHIFT for int32 numbers; their highest 9 - BITS bits may be any.

    The shift that takes n to the exponent brings its low bits along: the table lacks them.
    """
    b, shift = simd.builder, 23 - BITS
    steps = np.arange(STEPS, dtype=np.int32)
    entries = np.exp(steps * (math.log(2) / STEPS) - SHIFT).astype(np.float32)
    bits = entries.view(np.int32) - (steps << shift)
    table = b.bitcast(ir.Constant(n.type, bits.tolist()), simd.vector)
    name = "llvm.x86.avx512.permvar.sf.512"
    permute = external(b, name, simd.vector, [simd.vector, n.type])
    entry = b.bitcast(b.call(permute, [table, n]), n.type)
    exponent = b.shl(n, ir.Constant(n.type, [shift] * STEPS))
    return b.bitcast(b.add(entry, exponent), simd.vector)
