"""The micro-kernel for few output columns: vectors along the sum instead of the columns.

Operation, for some pixels m and all N columns n:

    y[m, n] = clip(b[n] + sum_k x[m, k] * w[k, n] + r[m, n], lo, hi)

The K-axis is walked as `n_runs` runs of `run_len` contiguous floats, as in codegen/ukernel.py.
Lane l of a sum takes the floats l, l + LANES, ... of every run; in the end halves of the lanes
are added until one is left. The order does not depend on how many pixels a tile has.

    packed filters:  | b[n]: LANES |  run 0: | floats 0 .. LANES-1: n = 0 | n = 1 | ... |
                                             | floats LANES .. 2*LANES-1: n = 0 | ... | ...

A run ends in zeros to whole vectors. Floats of x beyond a run are not read, so that what
stands there, be it NaN, does not count.

Rows may repeat: the residual is read before the first store.
"""

from dataclasses import dataclass
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .isa import NARROW_COLUMNS, Isa
from .simd import Simd
from .vector import F32, I32, I64, call_one_of, function_in

# Arguments of a tile function, in order.
ARGUMENTS = (
    "x_rows",  # address of int64[pixels]: each pixel's first float
    "runs",  # address of int64[n_runs]: each run's offset in bytes
    "n_runs",
    "run_len",
    "filters",
    "y_rows",  # address of int64[pixels]: each output pixel's first float
    "r_rows",  # the same for the residual, or 0 for none
)


def narrow_call(isa: Isa):
    """Return ``tile(N, *ARGUMENTS, lo, hi)`` for Numba code, of ``isa.narrow_pixels``."""

    @intrinsic
    def tile(typing, N, x_rows, runs, n_runs, run_len, filters, y_rows, r_rows, lo, hi):
        def emit(context, builder, signature, args):
            tiles = [
                ([columns], _Tile(isa, columns).function(builder.module))
                for columns in range(1, NARROW_COLUMNS + 1)
            ]
            call_one_of(builder, args[0], tiles, args[1:])
            return context.get_dummy_value()

        return types.void(*[types.int64] * (1 + len(ARGUMENTS)), *[types.float32] * 2), emit

    return tile


@dataclass
class _Tile:
    """Emits one tile function."""

    isa: Isa
    columns: int

    def function(self, module: ir.Module) -> ir.Function:
        name = f"f32_narrow_{self.columns}__{self.isa.name}"
        return function_in(module, name, ARGUMENTS, ("lo", "hi"), self._emit_body)

    def _emit_body(self, builder: ir.IRBuilder, named: dict[str, Any]) -> None:
        self.builder = builder
        self.simd = simd = Simd(self.isa, self.builder)
        self.pixels = self.isa.narrow_pixels
        zeros = [simd.zeros()] * self.columns
        sums = [simd.variables(zeros) for _ in range(self.pixels)]
        self._accumulate(named, sums)
        results = self._totals(named, sums)
        self._add_residual(named, results)
        self._store(named, results)

    def _accumulate(self, named, sums):
        b, simd = self.builder, self.simd
        starts = simd.words(named["x_rows"], self.pixels)
        (filters,) = simd.variables([simd.offset(named["filters"], simd.vector_nbytes)])
        lanes, zero = ir.Constant(I64, self.isa.lanes), ir.Constant(I64, 0)
        rest = b.srem(named["run_len"], lanes)
        whole, mask = b.sub(named["run_len"], rest), simd.mask(rest)
        with cgutils.for_range(b, named["n_runs"]) as run:
            first = simd.word(named["runs"], run.index)
            with cgutils.for_range_slice(b, zero, whole, lanes) as (k, _):
                self._multiply_add(starts, self._plus_floats(first, k), filters, sums)
            with b.if_then(b.icmp_signed(">", rest, zero)):
                self._multiply_add(starts, self._plus_floats(first, whole), filters, sums, mask)

    def _plus_floats(self, offset, count):
        return self.builder.add(offset, self.builder.shl(count, ir.Constant(I64, 2)))

    def _multiply_add(self, starts, offset, filters, sums, mask=None):
        """Add the products of a vector of each pixel to all sums."""
        b, simd = self.builder, self.simd
        address = b.load(filters)
        columns = [
            simd.load(simd.offset(address, n * simd.vector_nbytes)) for n in range(self.columns)
        ]
        for start, row in zip(starts, sums, strict=True):
            x = simd.load(b.add(start, offset), mask)
            for slot, column in zip(row, columns, strict=True):
                b.store(simd.multiply_add(x, column, b.load(slot)), slot)
        b.store(simd.offset(address, self.columns * simd.vector_nbytes), filters)

    def _totals(self, named, sums):
        """Return slots of all sums, each one number, with the bias."""
        b, simd = self.builder, self.simd
        biases = [
            b.load(simd.pointer(simd.offset(named["filters"], 4 * n), F32))
            for n in range(self.columns)
        ]
        return [
            simd.variables(
                [
                    b.fadd(self._sum_of_lanes(b.load(slot)), bias)
                    for slot, bias in zip(row, biases, strict=True)
                ]
            )
            for row in sums
        ]

    def _sum_of_lanes(self, vector):
        b, lanes = self.builder, self.isa.lanes
        while lanes > 1:
            lanes //= 2
            lower, upper = (
                ir.Constant(ir.VectorType(I32, lanes), list(range(first, first + lanes)))
                for first in (0, lanes)
            )
            vector = b.fadd(
                b.shuffle_vector(vector, vector, lower), b.shuffle_vector(vector, vector, upper)
            )
        return b.extract_element(vector, ir.Constant(I32, 0))

    def _add_residual(self, named, results):
        b = self.builder
        with b.if_then(b.icmp_signed("!=", named["r_rows"], ir.Constant(I64, 0))):
            rows = self.simd.words(named["r_rows"], self.pixels)
            for slots, pointers in zip(results, map(self._floats, rows), strict=True):
                for slot, pointer in zip(slots, pointers, strict=True):
                    b.store(b.fadd(b.load(slot), b.load(pointer)), slot)

    def _store(self, named, results):
        b = self.builder
        rows = self.simd.words(named["y_rows"], self.pixels)
        for slots, pointers in zip(results, map(self._floats, rows), strict=True):
            for slot, pointer in zip(slots, pointers, strict=True):
                b.store(self.simd.clip(b.load(slot), named["lo"], named["hi"]), pointer)

    def _floats(self, address):
        """Return pointers to the columns of a pixel."""
        return [
            self.simd.pointer(self.simd.offset(address, 4 * n), F32)
            for n in range(self.columns)
        ]
