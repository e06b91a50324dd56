"""Vector code of the Winograd transforms: one tile, one channel vector.

V = B' d B      points of an input patch; F(4x4, 3x3) has 6 x 6 of them
Y = A' M A      an output patch from as many points
"""

from functools import reduce

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .isa import Isa
from .simd import Simd
from .transform import ONE, Size
from .vector import I64, function_in

INPUT_ARGUMENTS = ("x", "x_h", "x_w", "v", "v_point", "n_valid")
OUTPUT_ARGUMENTS = (
    "m", "m_point",  # the points, and bytes from one to the next
    "bias",  # address of one channel vector
    "y", "y_h", "y_w",
    "r", "r_h", "r_w",  # residual, or 0
    "n_rows", "n_columns", "n_valid",  # how much of the patch and vector to store
    "slopes",  # address of one channel vector: factors of what is negative, or 0
)  # fmt: skip


def input_transform(isa: Isa, size: Size):
    """Return ``transform(*INPUT_ARGUMENTS)``; lanes beyond `n_valid` become zero."""

    @intrinsic
    def transform(typing, x, x_h, x_w, v, v_point, n_valid):
        def emit(context, builder, signature, args):
            is_full = builder.icmp_signed(">=", args[-1], ir.Constant(I64, isa.lanes))
            with builder.if_else(is_full) as branches:
                for branch, is_masked in zip(branches, (False, True), strict=True):
                    with branch:
                        builder.call(
                            _input_function(builder.module, isa, size, is_masked), args
                        )
            return context.get_dummy_value()

        return types.void(*[types.int64] * len(INPUT_ARGUMENTS)), emit

    return transform


def output_transform(isa: Isa, size: Size):
    """Return ``transform(*OUTPUT_ARGUMENTS, lo, hi)``: ``finish(A' M A + bias + r)``.

    What is negative is multiplied by the slopes; without slopes, the result is clipped.
    """

    @intrinsic
    def transform(typing, m, m_point, bias, y, y_h, y_w, r, r_h, r_w,
                  n_rows, n_columns, n_valid, slopes, lo, hi):  # fmt: skip
        def emit(context, builder, signature, args):
            is_full = builder.icmp_signed(">=", args[11], ir.Constant(I64, isa.lanes))
            for count, tile in zip(args[9:11], size.tile, strict=True):
                whole = builder.icmp_signed("==", count, ir.Constant(I64, tile))
                is_full = builder.and_(is_full, whole)
            with builder.if_else(is_full) as branches:
                for branch, is_partial in zip(branches, (False, True), strict=True):
                    with branch:
                        builder.call(
                            _output_function(builder.module, isa, size, is_partial), args
                        )
            return context.get_dummy_value()

        arguments = [types.int64] * len(OUTPUT_ARGUMENTS) + [types.float32] * 2
        return types.void(*arguments), emit

    return transform


def _input_function(module, isa, size, is_masked):
    def emit(builder, named):
        simd = Simd(isa, builder)
        mask = simd.mask(named["n_valid"]) if is_masked else None
        PH, PW = (axis.patch for axis in size.axes)
        _prefetch_next(simd, named, "x", PH, range(PW, PW + size.along_w.tile))
        columns = []
        for j in range(PW):
            column = [simd.load(_element(builder, named, "x", i, j), mask) for i in range(PH)]
            columns.append(_to_points(simd, size.along_h, column))
        for i in range(PH):
            row = _to_points(simd, size.along_w, [column[i] for column in columns])
            for j, value in enumerate(row):
                simd.store(value, _point(builder, named, "v", i * PW + j))

    kind = "masked" if is_masked else "full"
    name = f"f32_winograd_{size.name}_input_{kind}"
    return function_in(module, name, INPUT_ARGUMENTS, (), emit)


def _output_function(module, isa, size, is_partial):
    def emit(builder, named):
        simd = Simd(isa, builder)
        PH, PW = (axis.patch for axis in size.axes)
        height, width = size.tile
        _prefetch_next(simd, named, "y", height, range(width, 2 * width), for_write=True)
        columns = []
        for j in range(PW):
            points = [simd.load(_point(builder, named, "m", i * PW + j)) for i in range(PH)]
            columns.append(_from_points(simd, size.along_h, points))
        bias = simd.load(named["bias"])
        rows = [
            [
                builder.fadd(y, bias)
                for y in _from_points(simd, size.along_w, [c[i] for c in columns])
            ]
            for i in range(size.along_h.tile)
        ]
        store = _store_partial if is_partial else _store_full
        store(simd, named, rows)

    kind = "partial" if is_partial else "full"
    name = f"f32_winograd_{size.name}_output_{kind}"
    return function_in(module, name, OUTPUT_ARGUMENTS, ("lo", "hi"), emit)


def _store_full(simd, named, rows):
    builder = simd.builder
    slots = [simd.variables(row) for row in rows]
    has_residual = builder.icmp_signed("!=", named["r"], ir.Constant(I64, 0))
    with builder.if_then(has_residual):
        for i, row in enumerate(slots):
            for j, slot in enumerate(row):
                value = simd.load(_element(builder, named, "r", i, j))
                builder.store(builder.fadd(builder.load(slot), value), slot)
    for finished in _finishes(simd, named):
        for i, row in enumerate(slots):
            for j, slot in enumerate(row):
                y = finished(builder.load(slot))
                simd.store(y, _element(builder, named, "y", i, j))


def _store_partial(simd, named, rows):
    builder = simd.builder
    mask = simd.mask(named["n_valid"])
    has_residual = builder.icmp_signed("!=", named["r"], ir.Constant(I64, 0))
    for i, row in enumerate(rows):
        for j, y in enumerate(row):
            is_row = builder.icmp_signed(">", named["n_rows"], ir.Constant(I64, i))
            is_column = builder.icmp_signed(">", named["n_columns"], ir.Constant(I64, j))
            with builder.if_then(builder.and_(is_row, is_column)):
                (slot,) = simd.variables([y])
                with builder.if_then(has_residual):
                    value = simd.load(_element(builder, named, "r", i, j), mask)
                    builder.store(builder.fadd(builder.load(slot), value), slot)
                for finished in _finishes(simd, named):
                    y = finished(builder.load(slot))
                    simd.store(y, _element(builder, named, "y", i, j), mask)


def _finishes(simd, named):
    """Yield, in the branch for each, what is done to a vector before it is stored."""
    builder = simd.builder
    has_slopes = builder.icmp_signed("!=", named["slopes"], ir.Constant(I64, 0))
    with builder.if_else(has_slopes) as (bent, clipped):
        with bent:
            slopes = simd.load(named["slopes"])
            yield lambda y: simd.leaky(y, slopes)
        with clipped:
            low, high = simd.splat(named["lo"]), simd.splat(named["hi"])
            yield lambda y: simd.clip(y, low, high)


def _to_points(simd, axis, d):
    """Return B' d: polynomials that are zero at all points but one, as even and odd parts."""
    if axis is ONE:
        return d
    every = _polynomial(axis.roots)
    results = [_weighted(simd, every, d[0::2])]
    for root in axis.roots:
        others = _polynomial([r for r in axis.roots if r != root])
        even, odd = _weighted(simd, others, d[2::2]), _weighted(simd, others, d[1::2])
        results.append(_sum(simd, (root, odd), (1.0, even)))
        results.append(_sum(simd, (-root, odd), (1.0, even)))
    results.append(_weighted(simd, every, d[1::2]))
    return results


def _polynomial(roots):
    """Return the coefficients of the product of (z - r*r), the constant one first."""
    coefficients = [1.0]
    for root in roots:
        shifted, scaled = [0.0, *coefficients], [-root * root * c for c in coefficients]
        coefficients = [a + b for a, b in zip(shifted, [*scaled, 0.0], strict=True)]
    return coefficients


def _from_points(simd, axis, m):
    """Return A' m: y[i] = sum over points p of p**i * m[p], infinity in the last one."""
    if axis is ONE:
        return m
    builder = simd.builder
    pairs = list(zip(m[1:-1:2], m[2:-1:2], strict=True))
    sums = [builder.fadd(plus, minus) for plus, minus in pairs]
    differences = [builder.fsub(plus, minus) for plus, minus in pairs]
    results = [builder.fadd(reduce(builder.fadd, sums), m[0])]
    for i in range(1, axis.tile):
        factors = [root**i for root in axis.roots]
        last = [(1.0, m[-1])] if i == axis.tile - 1 else []
        terms = zip(factors, differences if i % 2 else sums, strict=True)
        results.append(_sum(simd, *terms, *last))
    return results


def _weighted(simd, factors, vectors):
    """Return the sum of factor * vector; vectors beyond the factors do not count."""
    return _sum(simd, *zip(factors, vectors, strict=False))


def _sum(simd, *terms):
    """Return the sum of factor * vector, the last term first."""
    *others, (factor, vector) = terms
    total = vector if factor == 1.0 else simd.builder.fmul(vector, simd.constant(factor))
    for factor, vector in reversed(others):
        total = simd.multiply_add(vector, simd.constant(factor), total)
    return total


def _prefetch_next(simd, named, name, n_rows, columns, for_write=False):
    """Ask for the columns that the next tile of a row adds to this one."""
    for j in columns:
        for i in range(n_rows):
            simd.prefetch(_element(simd.builder, named, name, i, j), for_write)


def _element(builder, named, name, i, j):
    """Return the address of pixel (i, j) of a patch."""
    row = builder.mul(named[f"{name}_h"], ir.Constant(I64, i))
    column = builder.mul(named[f"{name}_w"], ir.Constant(I64, j))
    return builder.add(builder.add(named[name], row), column)


def _point(builder, named, name, index):
    """Return the address of point `index`."""
    return builder.add(
        named[name], builder.mul(named[f"{name}_point"], ir.Constant(I64, index))
    )
