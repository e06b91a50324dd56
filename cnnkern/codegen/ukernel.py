"""The micro-kernel: one register tile of a convolution or matrix product.

Operation, for the `height` pixels m and the columns n of one panel:

    y[m, n] = clip(b[n] + sum_k x[m, k] * w[k, n] + r[m, n], lo, hi)

The K-axis is walked as `n_runs` runs of `run_len` contiguous floats (virtual im2col):
run s of pixel m starts at ``x_rows[m] + runs[s]``. The sum is taken in that order, one
fused multiply-add per k, whatever the tile, so that every tile height gives the same bits.

    packed panel:  | bias: NR | k = 0: NR | k = 1: NR | ... | k = K-1: NR |

Columns at and beyond `n_valid` are computed and not stored; the panel holds zeros there.
All addresses need float alignment only. Rows may repeat: residuals are read before the
first store, so a repeated row writes the same values twice.

Register budget: height x vectors accumulators, one filter vector per column vector, one
broadcast (none on AVX-512, where the multiply-add broadcasts from memory).
"""

from dataclasses import dataclass

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .isa import Isa
from .vector import F32, I32, I64, VOID, external, multiply_add

# Arguments of a tile function, in order.
TILE_ARGUMENTS = (
    "x_rows",  # address of int64[height]: each pixel's first float
    "runs",  # address of int64[n_runs]: each run's offset in bytes
    "n_runs",
    "run_len",
    "panel",  # address of the packed panel
    "y_rows",  # address of int64[height]: each output pixel's first float
    "r_rows",  # the same for the residual, or 0 for none
    "column_offset",  # of the panel's first column in y and r, in bytes
    "n_valid",  # columns to store
)


def tile_call(isa: Isa):
    """Return ``tile(n_rows, n_vectors, *TILE_ARGUMENTS, lo, hi)`` for Numba code.

    It runs the smallest tile of at least `n_rows` pixels; the row tables must repeat
    their last entry up to the tallest tile.
    """

    @intrinsic
    def tile(typing, n_rows, n_vectors, x_rows, runs, n_runs, run_len, panel,
             y_rows, r_rows, column_offset, n_valid, lo, hi):  # fmt: skip
        def emit(context, builder, signature, args):
            _emit_dispatch(builder, isa, args[0], args[1], args[2:])
            return context.get_dummy_value()

        return types.void(*[types.int64] * 11, types.float32, types.float32), emit

    return tile


def _emit_dispatch(builder, isa, n_rows, n_vectors, tile_args):
    """Emit a switch from (rows, vectors) to the function of the smallest tile that fits."""
    done = builder.append_basic_block("tile.done")
    key = builder.add(builder.mul(n_rows, ir.Constant(I64, isa.vectors + 1)), n_vectors)
    switch = builder.switch(key, done)
    for vectors in range(1, isa.vectors + 1):
        for height in isa.heights:
            shorter = max((h for h in isa.heights if h < height), default=0)
            block = builder.append_basic_block(f"tile.{height}x{vectors}")
            for rows in range(shorter + 1, height + 1):
                switch.add_case(ir.Constant(I64, rows * (isa.vectors + 1) + vectors), block)
            with builder.goto_block(block):
                builder.call(_Tile(builder.module, isa, height, vectors).function, tile_args)
                builder.branch(done)
    builder.position_at_end(done)


@dataclass
class _Tile:
    """Emits one tile function into `module`."""

    module: ir.Module
    isa: Isa
    height: int
    vectors: int

    @property
    def function(self) -> ir.Function:
        name = f"f32_tile_{self.height}x{self.vectors * self.isa.lanes}__{self.isa.name}"
        if name not in self.module.globals:
            signature = ir.FunctionType(VOID, [I64] * len(TILE_ARGUMENTS) + [F32, F32])
            function = ir.Function(self.module, signature, name)
            function.linkage = "internal"
            function.attributes.add("noinline")  # each tile gets all registers
            self._emit_body(function)
        return self.module.globals[name]

    def _emit_body(self, function: ir.Function) -> None:
        self.vector = ir.VectorType(F32, self.isa.lanes)
        self.builder = ir.IRBuilder(function.append_basic_block())
        named = dict(zip((*TILE_ARGUMENTS, "lo", "hi"), function.args, strict=True))
        sums = self._start_from_bias(named["panel"])
        self._accumulate(named, sums)
        self._add_residual(named, sums)
        self._clip(named["lo"], named["hi"], sums)
        self._store(named, sums)
        self.builder.ret_void()

    def _start_from_bias(self, panel):
        """Return the accumulators, height x vectors stack slots that LLVM keeps in registers."""
        bias = self._load_columns(self._pointer(panel, F32))
        sums = [[self.builder.alloca(self.vector) for _ in bias] for _ in range(self.height)]
        for row in sums:
            for slot, value in zip(row, bias, strict=True):
                self.builder.store(value, slot)
        return sums

    def _accumulate(self, named, sums):
        b, width = self.builder, self.vectors * self.isa.lanes
        pixels = self._row_addresses(named["x_rows"])
        filters = b.alloca(I64)
        b.store(b.add(named["panel"], ir.Constant(I64, 4 * width)), filters)
        with cgutils.for_range(b, named["n_runs"]) as run:
            offset = b.load(b.gep(self._pointer(named["runs"], I64), [run.index]))
            starts = [self._pointer(b.add(p, offset), F32) for p in pixels]
            with cgutils.for_range(b, named["run_len"]) as k:
                address = b.load(filters)
                columns = self._load_columns(self._pointer(address, F32))
                for start, row in zip(starts, sums, strict=True):
                    pixel = self._splat(b.load(b.gep(start, [k.index])))
                    for slot, column in zip(row, columns, strict=True):
                        b.store(multiply_add(b, self.isa, pixel, column, b.load(slot)), slot)
                b.store(b.add(address, ir.Constant(I64, 4 * width)), filters)

    def _add_residual(self, named, sums):
        b = self.builder
        has_residual = b.icmp_signed("!=", named["r_rows"], ir.Constant(I64, 0))
        with b.if_then(has_residual):
            for r_row, row in zip(self._row_addresses(named["r_rows"]), sums, strict=True):
                start = b.add(r_row, named["column_offset"])
                for j, slot in enumerate(row):
                    pointer, mask = self._column(start, j, named["n_valid"])
                    value = self._masked_load(pointer, mask)
                    b.store(b.fadd(b.load(slot), value), slot)

    def _clip(self, lo, hi, sums):
        """Clip as ``x < lo ? lo : x > hi ? hi : x``, which keeps NaN."""
        b = self.builder
        low, high = self._splat(lo), self._splat(hi)
        for slot in (slot for row in sums for slot in row):
            x = b.load(slot)
            x = b.select(b.fcmp_ordered("<", x, low), low, x)
            b.store(b.select(b.fcmp_ordered(">", x, high), high, x), slot)

    def _store(self, named, sums):
        b, width = self.builder, self.vectors * self.isa.lanes
        rows = self._row_addresses(named["y_rows"])
        is_full = b.icmp_signed(">=", named["n_valid"], ir.Constant(I64, width))
        with b.if_else(is_full) as (full, partial):
            for branch, masked in ((full, False), (partial, True)):
                with branch:
                    for y_row, row in zip(rows, sums, strict=True):
                        start = b.add(y_row, named["column_offset"])
                        for j, slot in enumerate(row):
                            pointer, mask = self._column(start, j, named["n_valid"])
                            if masked:
                                self._masked_store(b.load(slot), pointer, mask)
                            else:
                                b.store(b.load(slot), pointer, align=4)

    def _row_addresses(self, table):
        pointer = self._pointer(table, I64)
        return [
            self.builder.load(self.builder.gep(pointer, [ir.Constant(I64, i)]))
            for i in range(self.height)
        ]

    def _column(self, start, j, n_valid):
        """Return pointer and mask of column vector `j` of a row that begins at `start`."""
        b, lanes = self.builder, self.isa.lanes
        pointer = self._pointer(b.add(start, ir.Constant(I64, 4 * j * lanes)), self.vector)
        indices = ir.Constant(
            ir.VectorType(I32, lanes), [j * lanes + lane for lane in range(lanes)]
        )
        limit = self._splat(b.trunc(n_valid, I32))
        return pointer, b.icmp_signed("<", indices, limit)

    def _load_columns(self, pointer):
        b = self.builder
        vectors = b.bitcast(pointer, self.vector.as_pointer())
        return [
            b.load(b.gep(vectors, [ir.Constant(I64, j)]), align=4)
            for j in range(self.vectors)
        ]

    def _masked_load(self, pointer, mask):
        arguments = [pointer.type, I32, mask.type, self.vector]
        function = external(
            self.builder, f"llvm.masked.load.v{self.isa.lanes}f32.p0", self.vector, arguments
        )
        zeros = ir.Constant(self.vector, None)
        return self.builder.call(function, [pointer, ir.Constant(I32, 4), mask, zeros])

    def _masked_store(self, value, pointer, mask):
        arguments = [self.vector, pointer.type, I32, mask.type]
        function = external(
            self.builder, f"llvm.masked.store.v{self.isa.lanes}f32.p0", VOID, arguments
        )
        self.builder.call(function, [value, pointer, ir.Constant(I32, 4), mask])

    def _splat(self, scalar):
        vector = ir.VectorType(scalar.type, self.isa.lanes)
        undefined = ir.Constant(vector, ir.Undefined)
        first = self.builder.insert_element(undefined, scalar, ir.Constant(I32, 0))
        zeros = ir.Constant(ir.VectorType(I32, self.isa.lanes), None)
        return self.builder.shuffle_vector(first, undefined, zeros)

    def _pointer(self, address, element):
        return self.builder.inttoptr(address, element.as_pointer())
