"""The logistic function where a register holds a table: powers of two by look-up.

e**-x = (2**(n / LANES) / FIRST) * (FIRST * e**r) with n = round(-LANES x / ln 2): the lowest
bits of n pick one of the floats of a register, the others go into the exponent, and a
polynomial of degree 3 is left of the other factor, where without a table it has degree 6
(kernels/functions.py).
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

# Of an instruction set, what permutes a register's floats as those of another say.
PERMUTES = {"avx512f": "llvm.x86.avx512.permvar.sf.512", "avx2": "llvm.x86.avx2.permps"}
LN2_HIGH, LN2_LOW = 0.693145751953125, 1.428606765330187e-06  # as in kernels/functions.py
ROUND = 12582912.0  # 1.5 * 2**23: adding it leaves an integer in the low bits
# Above, adding e**-x to 1 changes nothing.
MAX = 86.0
# Divided by this float, the entries of a table have small rounding errors: 0.17 * 2**-24 of 8,
# 0.43 of 16; undivided they have 0.54 and 0.79.
FIRST = 1 - 41310 * 2.0**-24


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
    """1 + e**-x; infinity where that overflows."""
    b, constant, steps = simd.builder, simd.constant, simd.isa.lanes
    # e**r = 1 + r * (1 + r * (square + r / 6)), with the least largest error on |r| <= limit.
    limit = math.log(2) / steps / 2
    square = 1 / 2 + (2 * math.sqrt(2) - 2) * limit**2 / 24
    limited = simd.at_most(x, constant(MAX))
    shifted = simd.multiply_add(limited, constant(-steps / math.log(2)), constant(ROUND))
    # Beyond the largest exponent r takes the rest, and the polynomial grows with it.
    shifted = simd.at_most(shifted, constant(ROUND + 128 * steps - 1))
    n = b.fsub(shifted, constant(ROUND))
    r = simd.multiply_add(n, constant(-LN2_HIGH / steps), b.fneg(limited))
    r = simd.multiply_add(n, constant(-LN2_LOW / steps), r)
    p = simd.multiply_add(r, constant(FIRST / 6), constant(FIRST * square))
    p = simd.multiply_add(r, p, constant(FIRST))
    p = simd.multiply_add(r, p, constant(FIRST))
    power = _power(simd, b.bitcast(shifted, ir.VectorType(I32, steps)))
    return simd.multiply_add(power, p, constant(1.0))


def _power(simd: Simd, n: Any) -> Any:
    """2**(n / LANES) / FIRST for int32 numbers; their highest bits may be any.

    The shift that takes n to the exponent brings its low bits along: the table lacks them.
    """
    b, lanes = simd.builder, simd.isa.lanes
    shift = 23 - (lanes.bit_length() - 1)
    steps = np.arange(lanes, dtype=np.int32)
    entries = (np.exp2(steps / lanes) / FIRST).astype(np.float32)
    bits = entries.view(np.int32) - (steps << shift)
    table = b.bitcast(ir.Constant(n.type, bits.tolist()), simd.vector)
    permute = external(b, PERMUTES[simd.isa.name], simd.vector, [simd.vector, n.type])
    entry = b.bitcast(b.call(permute, [table, n]), n.type)
    exponent = b.shl(n, ir.Constant(n.type, [shift] * lanes))
    return b.bitcast(b.add(entry, exponent), simd.vector)
