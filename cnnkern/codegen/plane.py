"""The micro-kernel for one input channel and few output columns: vectors along the image row.

Operation, for neighbouring pixels m of a row and all N columns n:

    y[m, n] = clip(b[n] + sum_k x[m + k] * w[k, n], lo, hi)

where x[m + k] is the tap k of the window that begins at pixel m. The K-axis is walked as
`n_runs` runs of `run_len` contiguous floats, in the order of codegen/ukernel.py and with its
roundings. Lane l of a sum belongs to pixel l of the row, so that a vector of x serves all
columns; in the end the columns are brought together pixel by pixel.

    packed filters:  | b[0 .. N-1] | w[0, 0 .. N-1] | w[1, 0 .. N-1] | ...
"""

from dataclasses import dataclass
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .isa import PLANE_VECTORS, Isa
from .simd import Simd
from .vector import F32, I32, I64, call_one_of, function_in

# Arguments of a tile function, in order.
ARGUMENTS = (
    "x",  # address of the first pixel's window
    "runs",  # address of int64[n_runs]: each run's offset in bytes
    "n_runs",
    "run_len",
    "filters",
    "y",  # address of the first output pixel; the others touch it
    "n_pixels",  # at most PLANE_VECTORS * lanes
)


def plane_call(isa: Isa):
    """Return ``tile(N, *ARGUMENTS, lo, hi)`` for Numba code."""

    @intrinsic
    def tile(typing, N, x, runs, n_runs, run_len, filters, y, n_pixels, lo, hi):
        def emit(context, builder, signature, args):
            tiles = [
                ([columns], _Tile(isa, columns).function(builder.module))
                for columns in range(1, isa.plane_columns + 1)
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
        name = f"f32_plane_{self.columns}__{self.isa.name}"
        return function_in(module, name, ARGUMENTS, ("lo", "hi"), self._emit_body)

    def _emit_body(self, builder: ir.IRBuilder, named: dict[str, Any]) -> None:
        """Write the body for whole vectors, for fewer pixels, and with a vector less."""
        self.builder, self.simd = builder, Simd(self.isa, builder)
        whole, fewer = (
            ir.Constant(I64, count * self.isa.lanes)
            for count in (PLANE_VECTORS, PLANE_VECTORS - 1)
        )
        is_whole = builder.icmp_signed("==", named["n_pixels"], whole)
        with builder.if_else(is_whole) as (all_pixels, some_pixels):
            with all_pixels:
                self._emit_pixels(named, PLANE_VECTORS, is_whole=True)
            with some_pixels:
                is_fewer = builder.icmp_signed("<=", named["n_pixels"], fewer)
                with builder.if_else(is_fewer) as (fewer_vectors, all_vectors):
                    with fewer_vectors:
                        self._emit_pixels(named, PLANE_VECTORS - 1, is_whole=False)
                    with all_vectors:
                        self._emit_pixels(named, PLANE_VECTORS, is_whole=False)

    def _emit_pixels(self, named, count, is_whole):
        bounds = [self.simd.splat(named[name]) for name in ("lo", "hi")]
        for v, columns in enumerate(self._sums(named, count, is_whole)):
            clipped = [self.simd.clip(column, *bounds) for column in columns]
            self._store(named, v, clipped, is_whole)

    def _sums(self, named, count, is_whole):
        """Return for each vector of pixels the sums of all columns."""
        b, simd = self.builder, self.simd
        masks = [
            None if is_whole else simd.mask(named["n_pixels"], v * self.isa.lanes)
            for v in range(count)
        ]
        biases = self._splats(named["filters"])
        sums = [simd.variables(biases) for _ in range(count)]
        (filters,) = simd.variables([simd.offset(named["filters"], self._row_nbytes)])
        with cgutils.for_range(b, named["n_runs"]) as run:
            first = simd.word(named["runs"], run.index)
            begin = b.add(named["x"], first)
            end = b.add(begin, b.shl(named["run_len"], ir.Constant(I64, 2)))
            with cgutils.for_range_slice(b, begin, end, ir.Constant(I64, 4)) as (x, _):
                address = b.load(filters)
                pixels = [
                    simd.load(simd.offset(x, v * simd.vector_nbytes), mask)
                    for v, mask in enumerate(masks)
                ]
                for n, column in enumerate(self._splats(address)):
                    for vector, slots in zip(pixels, sums, strict=True):
                        b.store(simd.multiply_add(vector, column, b.load(slots[n])), slots[n])
                b.store(simd.offset(address, self._row_nbytes), filters)
        return [[b.load(slot) for slot in slots] for slots in sums]

    @property
    def _row_nbytes(self):
        return 4 * self.columns

    def _splats(self, address):
        """Return each of a filter row's floats in all lanes."""
        simd = self.simd
        return [
            simd.splat(self.builder.load(simd.pointer(simd.offset(address, 4 * n), F32)))
            for n in range(self.columns)
        ]

    def _interleaved(self, columns, first):
        """Return floats first, first+1, ... of the pixels: one column is added at a time."""
        lanes, result = self.isa.lanes, columns[0]
        places = [divmod(first + lane, self.columns) for lane in range(lanes)]
        for n, vector in enumerate(columns[1:], 1):
            picked = [
                lanes + pixel if column == n else pixel if n == 1 else lane
                for lane, (pixel, column) in enumerate(places)
            ]
            indices = ir.Constant(ir.VectorType(I32, lanes), picked)
            result = self.builder.shuffle_vector(result, vector, indices)
        return result

    def _store(self, named, v, columns, is_whole):
        """Store the columns of the vector `v` of pixels, pixel after pixel."""
        b, simd, lanes = self.builder, self.simd, self.isa.lanes
        n_floats = b.mul(named["n_pixels"], ir.Constant(I64, self.columns))
        for i in range(self.columns):
            place = (v * self.columns + i) * lanes
            mask = None if is_whole else simd.mask(n_floats, place)
            vector = self._interleaved(columns, i * lanes)
            simd.store(vector, simd.offset(named["y"], 4 * place), mask)
