"""Vector code of the Winograd transforms F(4x4, 3x3): one tile, one channel vector.

    V = B' d B      36 points of a 6 x 6 input patch
    Y = A' M A      a 4 x 4 output patch from 36 points

Interpolation points 0, a, -a, b, -b, infinity (Lavin and Gray, "Fast algorithms for
convolutional neural networks", 2016, takes a = 1, b = 2). With a = 3/4, b = 3/2 all
squares are exact in float32 and the error against float64 is less than half as large
(Barabasz et al., "Error analysis and improving the accuracy of Winograd convolution for
deep neural networks", 2018, on the choice of points).
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .isa import Isa
from .simd import Simd
from .vector import F32, I64, VOID

POINTS = (0.75, 1.5)  # a, b
PATCH, TILE = 6, 4  # inputs and outputs per axis

INPUT_ARGUMENTS = ("x", "x_h", "x_w", "v", "v_point", "n_valid")
OUTPUT_ARGUMENTS = (
    "m", "m_point",  # the points, and bytes from one to the next
    "bias",  # address of one channel vector
    "y", "y_h", "y_w",
    "r", "r_h", "r_w",  # residual, or 0
    "n_rows", "n_columns", "n_valid",  # how much of the patch and vector to store
)  # fmt: skip


def input_transform(isa: Isa):
    """Return ``transform(*INPUT_ARGUMENTS)``; lanes beyond `n_valid` become zero."""

    @intrinsic
    def transform(typing, x, x_h, x_w, v, v_point, n_valid):
        def emit(context, builder, signature, args):
            is_full = builder.icmp_signed(">=", args[-1], ir.Constant(I64, isa.lanes))
            with builder.if_else(is_full) as branches:
                for branch, is_masked in zip(branches, (False, True), strict=True):
                    with branch:
                        builder.call(_input_function(builder.module, isa, is_masked), args)
            return context.get_dummy_value()

        return types.void(*[types.int64] * len(INPUT_ARGUMENTS)), emit

    return transform


def output_transform(isa: Isa):
    """Return ``transform(*OUTPUT_ARGUMENTS, lo, hi)``: ``y = clip(A' M A + bias + r)``."""

    @intrinsic
    def transform(typing, m, m_point, bias, y, y_h, y_w, r, r_h, r_w,
                  n_rows, n_columns, n_valid, lo, hi):  # fmt: skip
        def emit(context, builder, signature, args):
            is_full = builder.icmp_signed(">=", args[11], ir.Constant(I64, isa.lanes))
            for count in args[9:11]:
                whole = builder.icmp_signed("==", count, ir.Constant(I64, TILE))
                is_full = builder.and_(is_full, whole)
            with builder.if_else(is_full) as branches:
                for branch, is_partial in zip(branches, (False, True), strict=True):
                    with branch:
                        builder.call(_output_function(builder.module, isa, is_partial), args)
            return context.get_dummy_value()

        arguments = [types.int64] * len(OUTPUT_ARGUMENTS) + [types.float32] * 2
        return types.void(*arguments), emit

    return transform


def _function(module, name, arguments, n_floats, emit):
    """Return function `name` of the module; `emit(builder, named)` writes it once."""
    if name not in module.globals:
        signature = ir.FunctionType(VOID, [I64] * len(arguments) + [F32] * n_floats)
        function = ir.Function(module, signature, name)
        function.linkage = "internal"
        function.attributes.add("noinline")  # each function gets all registers
        builder = ir.IRBuilder(function.append_basic_block())
        names = (*arguments, "lo", "hi")[: len(function.args)]
        emit(builder, dict(zip(names, function.args, strict=True)))
        builder.ret_void()
    return module.globals[name]


def _input_function(module, isa, is_masked):
    def emit(builder, named):
        simd = Simd(isa, builder)
        mask = simd.mask(named["n_valid"]) if is_masked else None
        columns = []
        for j in range(PATCH):
            column = [
                simd.load(_element(builder, named, "x", i, j), mask) for i in range(PATCH)
            ]
            columns.append(_to_points(simd, column))
        for i in range(PATCH):
            for j, value in enumerate(_to_points(simd, [column[i] for column in columns])):
                simd.store(value, _point(builder, named, "v", i * PATCH + j))

    kind = "masked" if is_masked else "full"
    return _function(module, f"f32_winograd_input_{kind}", INPUT_ARGUMENTS, 0, emit)


def _output_function(module, isa, is_partial):
    def emit(builder, named):
        simd = Simd(isa, builder)
        columns = []
        for j in range(PATCH):
            points = [_point(builder, named, "m", i * PATCH + j) for i in range(PATCH)]
            columns.append(_from_points(simd, [simd.load(point) for point in points]))
        bias = simd.load(named["bias"])
        rows = [
            [builder.fadd(y, bias) for y in _from_points(simd, [c[i] for c in columns])]
            for i in range(TILE)
        ]
        store = _store_partial if is_partial else _store_full
        store(simd, named, rows)

    kind = "partial" if is_partial else "full"
    return _function(module, f"f32_winograd_output_{kind}", OUTPUT_ARGUMENTS, 2, emit)


def _store_full(simd, named, rows):
    builder = simd.builder
    slots = [simd.variables(row) for row in rows]
    has_residual = builder.icmp_signed("!=", named["r"], ir.Constant(I64, 0))
    with builder.if_then(has_residual):
        for i, row in enumerate(slots):
            for j, slot in enumerate(row):
                value = simd.load(_element(builder, named, "r", i, j))
                builder.store(builder.fadd(builder.load(slot), value), slot)
    low, high = simd.splat(named["lo"]), simd.splat(named["hi"])
    for i, row in enumerate(slots):
        for j, slot in enumerate(row):
            y = simd.clip(builder.load(slot), low, high)
            simd.store(y, _element(builder, named, "y", i, j))


def _store_partial(simd, named, rows):
    builder = simd.builder
    mask = simd.mask(named["n_valid"])
    low, high = simd.splat(named["lo"]), simd.splat(named["hi"])
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
                clipped = simd.clip(builder.load(slot), low, high)
                simd.store(clipped, _element(builder, named, "y", i, j), mask)


def _to_points(simd, d):
    """Return B' d: polynomials that are zero at all points but one, as even and odd parts."""
    aa, bb = (p * p for p in POINTS)
    results = [_sum(simd, (aa * bb, d[0]), (-(aa + bb), d[2]), (1.0, d[4]))]
    for own, other in ((POINTS[0], bb), (POINTS[1], aa)):
        even = _sum(simd, (-other, d[2]), (1.0, d[4]))
        odd = _sum(simd, (-other, d[1]), (1.0, d[3]))
        results.append(_sum(simd, (own, odd), (1.0, even)))
        results.append(_sum(simd, (-own, odd), (1.0, even)))
    results.append(_sum(simd, (aa * bb, d[1]), (-(aa + bb), d[3]), (1.0, d[5])))
    return results


def _from_points(simd, m):
    """Return A' m: y[i] = sum over points p of p**i * m[p], infinity in the last one."""
    builder, (a, b) = simd.builder, POINTS
    sums = builder.fadd(m[1], m[2]), builder.fadd(m[3], m[4])
    differences = builder.fsub(m[1], m[2]), builder.fsub(m[3], m[4])
    return [
        builder.fadd(builder.fadd(sums[0], sums[1]), m[0]),
        _sum(simd, (a, differences[0]), (b, differences[1])),
        _sum(simd, (a**2, sums[0]), (b**2, sums[1])),
        _sum(simd, (a**3, differences[0]), (b**3, differences[1]), (1.0, m[5])),
    ]


def _sum(simd, *terms):
    """Return the sum of factor * vector, the last term first."""
    *others, (factor, vector) = terms
    constant = ir.Constant(simd.vector, [factor] * simd.isa.lanes)
    total = vector if factor == 1.0 else simd.builder.fmul(vector, constant)
    for factor, vector in reversed(others):
        constant = ir.Constant(simd.vector, [factor] * simd.isa.lanes)
        total = simd.multiply_add(vector, constant, total)
    return total


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
