"""Vector code of the Winograd transforms of one tile, channel vector by channel vector.

V = B' d B      points of an input patch; F(4x4, 3x3) has 6 x 6 of them
Y = A' M A      an output patch from as many points

Both go along H, column by column, and then along W. Where registers hold less than half of what
is between, it waits in the places of the points: LLVM alone spills more, and later.
"""

from dataclasses import dataclass
from functools import partial, reduce
from itertools import islice
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ..shapes import Pair
from .fold import MAX
from .isa import Isa
from .simd import Simd
from .transform import ONE, Size
from .vector import I64, function_in

INPUT_ARGUMENTS = ("n_channels", "x", "x_h", "x_w", "v", "v_point")
OUTPUT_ARGUMENTS = (
    "n_channels",
    "m", "m_point",  # the points, and bytes from one to the next
    "bias",
    "y", "y_h", "y_w",
    "r", "r_h", "r_w",  # residual, or 0
    "slopes",  # factors of what is negative, or 0
    "n_rows", "n_columns",  # how much of the patch to store
)  # fmt: skip
OF_CHANNELS = ("x", "v", "m", "bias", "y")  # addresses of the first one
OPTIONAL = ("r", "slopes")  # the same, or 0
VECTORS = ("n_vectors", "n_valid")  # and the channels of each


@dataclass
class _Grid:
    """Vectors in rows and columns that are some bytes apart."""

    simd: Simd
    origin: Any
    row_nbytes: Any
    column_nbytes: Any

    def row(self, i: int, count: int) -> list[Any]:
        """Return the addresses of the first vectors of a row."""
        first = self._moved(self.origin, self.row_nbytes, i)
        return self._line(first, self.column_nbytes, count)

    def column(self, j: int, count: int) -> list[Any]:
        """Return the addresses of the first vectors of a column."""
        first = self._moved(self.origin, self.column_nbytes, j)
        return self._line(first, self.row_nbytes, count)

    def _line(self, first: Any, nbytes: Any, count: int) -> list[Any]:
        # One base for all: x86 multiplies a step by 1, 2, 4 or 8 on the way.
        base = self.simd.opaque(first) if count > 1 else first
        return [self._moved(base, nbytes, k) for k in range(count)]

    def _moved(self, address: Any, nbytes: Any, count: int) -> Any:
        b = self.simd.builder
        return b.add(address, b.mul(nbytes, ir.Constant(I64, count))) if count else address


def input_transform(isa: Isa, size: Size):
    """Return ``transform(*INPUT_ARGUMENTS)``; lanes beyond the last channel become zero."""
    arguments = (*INPUT_ARGUMENTS[1:], *VECTORS)

    @intrinsic
    def transform(typing, n_channels, x, x_h, x_w, v, v_point):
        def emit(context, builder, signature, args):
            named = dict(zip(INPUT_ARGUMENTS, args, strict=True))
            for some, is_masked in _over_channels(Simd(isa, builder), named):
                function = _input_function(builder.module, isa, size, is_masked)
                builder.call(function, [some[name] for name in arguments])
            return context.get_dummy_value()

        return types.void(*[types.int64] * len(INPUT_ARGUMENTS)), emit

    return transform


def output_transform(isa: Isa, size: Size, pool: Pair = (1, 1)):
    """Return ``transform(*OUTPUT_ARGUMENTS, lo, hi)``: ``finish(A' M A + bias + r)``.

    What is negative is multiplied by the slopes; without slopes, the result is clipped. M does
    not last. Of each window of a pooling the largest is stored; if there is one, r is not.
    """
    arguments = (*OUTPUT_ARGUMENTS[1:], *VECTORS, "lo", "hi")

    @intrinsic
    def transform(typing, n_channels, m, m_point, bias, y, y_h, y_w, r, r_h, r_w,
                  slopes, n_rows, n_columns, lo, hi):  # fmt: skip
        def emit(context, builder, signature, args):
            named = dict(zip((*OUTPUT_ARGUMENTS, "lo", "hi"), args, strict=True))
            whole = [
                builder.icmp_signed("==", named[name], ir.Constant(I64, n))
                for name, n in zip(("n_rows", "n_columns"), size.pooled_tile(pool), strict=True)
            ]
            for some, is_masked in _over_channels(Simd(isa, builder), named):
                with builder.if_else(builder.and_(*whole)) as branches:
                    for branch, is_cut in zip(branches, (False, True), strict=True):
                        with branch:
                            function = _output_function(
                                builder.module, isa, size, pool, is_masked, is_cut
                            )
                            builder.call(function, [some[name] for name in arguments])
            return context.get_dummy_value()

        signature = [types.int64] * len(OUTPUT_ARGUMENTS) + [types.float32] * 2
        return types.void(*signature), emit

    return transform


def _over_channels(simd, named):
    """Yield the arguments for all whole vectors, and for the last one where it is none."""
    b, lanes = simd.builder, ir.Constant(I64, simd.isa.lanes)
    n_whole, rest = b.sdiv(named["n_channels"], lanes), b.srem(named["n_channels"], lanes)
    zero, one = ir.Constant(I64, 0), ir.Constant(I64, 1)
    with b.if_then(b.icmp_signed(">", n_whole, zero)):
        yield named | {"n_vectors": n_whole, "n_valid": lanes}, False
    with b.if_then(b.icmp_signed(">", rest, zero)):
        yield _at_vector(simd, named, n_whole) | {"n_vectors": one, "n_valid": rest}, True


def _at_vector(simd, named, number):
    """Return the arguments with the addresses of a channel vector."""
    b, zero = simd.builder, ir.Constant(I64, 0)
    nbytes = b.mul(number, ir.Constant(I64, simd.vector_nbytes))
    moved = {
        name: b.add(named[name], nbytes) for name in OF_CHANNELS + OPTIONAL if name in named
    }
    for name in OPTIONAL:
        if name in moved:
            is_given = b.icmp_signed("!=", named[name], zero)
            moved[name] = b.select(is_given, moved[name], zero)
    return named | moved


def _input_function(module, isa, size, is_masked):
    def emit(builder, named):
        simd = Simd(isa, builder)
        mask = simd.mask(named["n_valid"]) if is_masked else None
        with cgutils.for_range(builder, named["n_vectors"]) as vector:
            _emit_input(simd, _at_vector(simd, named, vector.index), size, mask)

    name = f"f32_winograd_{size.name}_input{'_masked' if is_masked else ''}"
    return function_in(module, name, (*INPUT_ARGUMENTS[1:], *VECTORS), (), emit)


def _emit_input(simd, named, size, mask):
    PH, PW = (axis.patch for axis in size.axes)
    pixels = _Grid(simd, named["x"], named["x_h"], named["x_w"])
    for j in range(PW, PW + size.along_w.tile):  # what the next tile of a row adds
        for address in pixels.column(j, PH):
            simd.prefetch(address)
    points = _points(simd, named, "v", size)
    columns = ([simd.load(x, mask) for x in pixels.column(j, PH)] for j in range(PW))
    for i, row in enumerate(_along_both(simd, size, points, columns, _to_points)):
        for value, address in zip(row, points.row(i, PW), strict=True):
            simd.store(value, address)


def _output_function(module, isa, size, pool, is_masked, is_cut):
    def emit(builder, named):
        simd = Simd(isa, builder)
        mask = simd.mask(named["n_valid"]) if is_masked else None
        with cgutils.for_range(builder, named["n_vectors"]) as vector:
            _emit_output(simd, _at_vector(simd, named, vector.index), size, pool, mask, is_cut)

    kinds = "_pooled" * (pool != (1, 1)) + "_masked" * is_masked + "_cut" * is_cut
    name = f"f32_winograd_{size.name}_output{kinds}"
    return function_in(module, name, (*OUTPUT_ARGUMENTS[1:], *VECTORS), ("lo", "hi"), emit)


def _emit_output(simd, named, size, pool, mask, is_cut):
    b = simd.builder
    PH, PW = (axis.patch for axis in size.axes)
    height, width = size.pooled_tile(pool)
    patch = _Grid(simd, named["y"], named["y_h"], named["y_w"])
    added = _Grid(simd, named["r"], named["r_h"], named["r_w"])
    for j in range(width, 2 * width):  # what the next tile of a row stores
        for address in patch.column(j, height):
            simd.prefetch(address, for_write=True)
    points = _points(simd, named, "m", size)
    columns = ([simd.load(m) for m in points.column(j, PH)] for j in range(PW))
    bias = simd.load(named["bias"])
    rows = _along_both(simd, size, points, columns, _from_points)
    for i in range(height):
        windows = _windows(simd, islice(rows, pool[0]), bias, pool[1])
        pixels = list(zip(windows, patch.row(i, width), added.row(i, width), strict=True))
        if not is_cut:
            _store(simd, named, pixels, mask)
            continue
        with b.if_then(b.icmp_signed(">", named["n_rows"], ir.Constant(I64, i))):
            for j, pixel in enumerate(pixels):
                with b.if_then(b.icmp_signed(">", named["n_columns"], ir.Constant(I64, j))):
                    _store(simd, named, [pixel], mask)


def _windows(simd, rows, bias, width):
    """Return the vectors of each window of a pooling, with the bias."""
    rows = [[simd.builder.fadd(value, bias) for value in row] for row in rows]
    return [
        [value for row in rows for value in row[j : j + width]]
        for j in range(0, len(rows[0]), width)
    ]


def _store(simd, named, pixels, mask):
    """Finish windows of vectors, each given with its address and that of the residual."""
    b = simd.builder
    slots = [simd.variables(window) for window, _, _ in pixels]
    if len(slots[0]) == 1:
        with b.if_then(b.icmp_signed("!=", named["r"], ir.Constant(I64, 0))):
            for (slot,), (_, _, r) in zip(slots, pixels, strict=True):
                b.store(b.fadd(b.load(slot), simd.load(r, mask)), slot)
    for finished in _finishes(simd, named):
        for window, (_, y, _) in zip(slots, pixels, strict=True):
            simd.store(_largest(simd, [finished(b.load(slot)) for slot in window]), y, mask)


def _largest(simd, vectors):
    """Return what a pooling makes of a window."""
    if len(vectors) == 1:
        return vectors[0]
    return reduce(partial(MAX.combine, simd.builder), vectors, simd.constant(MAX.start))


def _points(simd, named, name, size):
    """Return where the points of a tile are."""
    point = named[f"{name}_point"]
    row = simd.builder.mul(point, ir.Constant(I64, size.along_w.patch))
    return _Grid(simd, named[name], row, point)


def _along_both(simd, size, points, columns, along):
    """Yield the rows of what becomes of columns along H, and then along W."""
    waits = size.n_points > 2 * simd.isa.registers
    results = []
    for j, column in enumerate(columns):
        result = along(simd, size.along_h, column)
        if waits:
            for value, address in zip(result, points.column(j, len(result)), strict=True):
                simd.store(value, address)
        results.append(result)
    for i in range(len(results[0])):
        row = [result[i] for result in results]
        if waits:
            row = [simd.load(address) for address in points.row(i, len(results))]
        yield along(simd, size.along_w, row)


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
