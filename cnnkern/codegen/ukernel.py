"""The micro-kernel: one register tile of a convolution or matrix product.

Operation, for the `height` pixels m and the columns n of one panel:

    y[m, n] = clip((b[n] + sum_k x[m, k] * w[k, n] + u[m, n]) * s[n] + r[m, n], lo, hi)

or, where there are slopes, what is negative times a[n] instead of the clip.

The K-axis is walked as `n_runs` runs of `run_len` contiguous floats (virtual im2col):
run s of pixel m starts at ``x_rows[m] + runs[s]``. The sum is taken in that order, one
fused multiply-add per k, whatever the tile, so that every tile height gives the same bits.
A sum may be taken in parts of `part` products each, which are then added: its rounding error
grows with the roots of part and K / part, not with the root of K (Higham, "The accuracy of
floating point summation", 1993).

    packed panel:  | bias: NR | k = 0: NR | k = 1: NR | ... | k = K-1: NR |

The bias is float32; filters stand as their format says (codegen/filters.py).
Columns at and beyond `n_valid` are computed and not stored; the panel holds zeros there.
All addresses need float alignment only. Rows may repeat: what is added is read before the
first store, so a repeated row writes the same values twice.

Register budget: height x vectors accumulators, one filter vector per column vector, one
broadcast (none on AVX-512, where the multiply-add broadcasts from memory). One pixel has too
few sums to keep the units busy, and one panel's filters arrive too slowly: there are tiles of
one pixel and several panels.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .filters import FLOAT32, Format
from .isa import LINE, LONG_SUM, Isa
from .simd import Simd
from .vector import F32, I64, call_one_of, function_in

# Filters stream from far caches, and the processor's own prefetch ends with every page.
FILTERS_AHEAD_NBYTES = 4096
WORD = 8  # bytes of an address

ROW_TABLES = ("x_rows", "y_rows", "r_rows", "u_rows")
# Arguments of a tile function, in order.
TILE_ARGUMENTS = (
    "n_tiles",  # of `height` pixels each, one after the other
    "x_rows",  # address of int64[n_tiles, height]: each pixel's first float
    "runs",  # address of int64[n_runs]: each run's offset in bytes
    "n_runs",
    "run_len",
    "panel",  # address of the packed panel
    "panel_nbytes",  # from one panel to the next, for tiles of several
    "y_rows",  # likewise: each output pixel's first float
    "r_rows",  # likewise for the residual, or 0 for none
    "u_rows",  # likewise: rows of a panel's columns to add, or 0 for none
    "scale",  # address of float32[width]: factors of the columns, or 0 for ones
    "slopes",  # address of float32[width]: factors of what is negative, or 0 for ones
    "column_offset",  # of the panel's first column in y and r, in bytes
    "n_valid",  # columns to store
    "part",  # products of a partial sum
    "totals",  # address of float32[height, width] for the sum of the parts; 0: one part
    "number",  # of the first tile among those of its panel
    "ahead",  # address of other filters that tiles ask for, each for a share
    "ahead_step",  # bytes per step that they ask for of each half of a share, or 0
)


def tile_call(isa: Isa, narrowest: int = 1, most_panels: int = 1, format: Format = FLOAT32):
    """Return ``tile(n_rows, n_units, *TILE_ARGUMENTS, lo, hi)`` for Numba code.

    It runs the smallest tile of at least `n_rows` pixels, as often as `n_tiles` says; the row
    tables must repeat their last entry up to the tallest tile. There is none of less than
    `narrowest` units. A single pixel may have several panels, all of them whole.
    """

    @intrinsic
    def tile(typing, n_rows, n_units, n_tiles, x_rows, runs, n_runs, run_len, panel,
             panel_nbytes, y_rows, r_rows, u_rows, scale, slopes, column_offset, n_valid,
             part, totals, number, ahead, ahead_step, lo, hi):  # fmt: skip
        def emit(context, builder, signature, args):
            n_rows, n_units, *tile_args = args
            shapes = _shapes(isa, narrowest, most_panels)
            _emit_dispatch(builder, isa, shapes, format, n_rows, n_units, tile_args)
            return context.get_dummy_value()

        integers = [types.int64] * (2 + len(TILE_ARGUMENTS))
        return types.void(*integers, types.float32, types.float32), emit

    return tile


def _shapes(isa, narrowest, most_panels):
    """Return the height, the units and the panels of every tile."""
    units = isa.tile_columns // isa.unit  # of a panel
    shapes = [(height, n, 1) for n in range(narrowest, units + 1) for height in isa.heights]
    return shapes + [(1, n * units, n) for n in range(2, most_panels + 1)]


def _emit_dispatch(builder, isa, shapes, format, n_rows, n_units, tile_args):
    """Emit a call of the smallest tile that has room for so many rows and units."""
    most = max(n for _, n, _ in shapes)
    number = builder.add(builder.mul(n_rows, ir.Constant(I64, most + 1)), n_units)
    tiles = []
    for height, n, panels in shapes:
        shorter = max((h for h in isa.heights if h < height), default=0)
        numbers = [rows * (most + 1) + n for rows in range(shorter + 1, height + 1)]
        tile = _Tile(isa, height, n * isa.unit, panels, format)
        tiles.append((numbers, tile.function(builder.module)))
    call_one_of(builder, number, tiles, tile_args)


class _Stream(NamedTuple):
    """Filters that are asked for while others are in use."""

    address: Any  # slot
    step: Any  # bytes
    half: Any  # bytes from the one half to the other


@dataclass
class _Tile:
    """Emits one tile function."""

    isa: Isa
    height: int
    width: int  # columns
    panels: int = 1  # that have these columns
    format: Format = FLOAT32

    @property
    def columns(self) -> int:
        """Return the columns of a panel."""
        return self.width // self.panels

    @property
    def filters_nbytes(self) -> int:
        """Return the bytes of a panel per product."""
        return self.columns * self.format.nbytes

    def function(self, module: ir.Module) -> ir.Function:
        name = f"{self.format.name}_tile_{self.height}x{self.width}__{self.isa.name}"
        return function_in(module, name, TILE_ARGUMENTS, ("lo", "hi"), self._emit_body)

    def _emit_body(self, builder: ir.IRBuilder, named: dict[str, Any]) -> None:
        self.builder = builder
        self.simd = Simd(self.isa, self.builder)
        # The vectors of a row: whole ones, then maybe a shorter one.
        self.row = [self.simd] * (self.width // self.isa.lanes)
        if rest := self.width % self.isa.lanes:
            self.row.append(self.simd.of_lanes(rest))
        self.unmasked = [None] * len(self.row)
        tables = {name: named[name] for name in ROW_TABLES}
        with cgutils.for_range(builder, named["n_tiles"]) as tile:
            first = builder.mul(tile.index, ir.Constant(I64, WORD * self.height))
            here = {name: self._moved(table, first) for name, table in tables.items()}
            number = builder.add(named["number"], tile.index)
            self._emit_tile(named | here | {"number": number})

    def _moved(self, table, offset):
        """Return the address of a table moved by an offset; none stays none."""
        moved = self.builder.add(table, offset)
        return self.builder.select(self._is_given(table), moved, table)

    def _emit_tile(self, named):
        self._prefetch(named)
        bias = self._row_of_panels(named, named["panel"], FLOAT32)
        sums = [self.simd.variables(bias) for _ in range(self.height)]
        self._accumulate(named, sums)
        self._add_partial_sums(named, sums)
        self._scale(named, sums)
        self._add_residual(named, sums)
        with self.builder.if_then(self._is_given(named["slopes"])):
            self._bend(named, sums)
        self._clip_and_store(named, sums)

    def _prefetch(self, named):
        """Let output and residual arrive from far caches while the sums are taken."""
        b = self.builder
        products = b.mul(named["n_runs"], named["run_len"])
        with b.if_then(b.icmp_signed(">=", products, ir.Constant(I64, LONG_SUM))):
            self._prefetch_rows(named, "y_rows", for_write=True)
        with b.if_then(self._is_given(named["r_rows"])):
            self._prefetch_rows(named, "r_rows")

    def _prefetch_rows(self, named, table, for_write=False):
        for row in self._rows(named, table):
            for nbytes in range(0, 4 * self.width, LINE):
                self.simd.prefetch(self.simd.offset(row, nbytes), for_write)

    def _is_given(self, argument):
        return self.builder.icmp_signed("!=", argument, ir.Constant(I64, 0))

    def _is_zero(self, number):
        return self.builder.icmp_signed("==", number, ir.Constant(I64, 0))

    def _accumulate(self, named, sums):
        b, simd = self.builder, self.simd
        starts, step = simd.words(named["x_rows"], self.height), ir.Constant(I64, 4)
        (filters,) = simd.variables([simd.offset(named["panel"], 4 * self.columns)])
        stream = self._stream(named)
        part = b.mul(named["part"], step)
        in_parts = self._is_given(named["totals"])
        with b.if_then(in_parts):
            self._store_totals(named, self._zeros())
        with cgutils.for_range(b, named["n_runs"]) as run:
            first = simd.word(named["runs"], run.index)
            end = b.add(first, b.mul(named["run_len"], step))
            with cgutils.for_range_slice(b, first, end, part) as (begin, _):
                whole = b.add(begin, part)
                is_whole = b.icmp_signed("<=", whole, end)
                stop = b.select(is_whole, whole, end)
                add = partial(self._add_unrolled, named, starts, filters, sums)
                if self.isa.unroll > 1:
                    begin = self._add_long(named, add, begin, stop, stream)
                    add = partial(add, n=1)
                self._add_rest(named, partial(add, begin, stop), stream)
                with b.if_then(b.and_(is_whole, in_parts)):
                    self._store_totals(named, self._with_totals(named, sums))
                    self._set(sums, self._zeros())
        with b.if_then(in_parts):
            self._set(sums, self._with_totals(named, sums))

    def _stream(self, named):
        """Return what a tile asks for, other than its own filters.

        Each asks for an equal share, in two halves: memory delivers while all of them add.
        """
        b = self.builder
        products = b.mul(named["n_runs"], named["run_len"])
        steps = b.udiv(products, ir.Constant(I64, self.isa.unroll))
        half = b.mul(named["ahead_step"], steps)
        asking = b.sub(named["number"], ir.Constant(I64, self.isa.first_tiles))
        shares = b.mul(asking, ir.Constant(I64, 2))
        (address,) = self.simd.variables([b.add(named["ahead"], b.mul(shares, half))])
        return _Stream(address, named["ahead_step"], half)

    def _add_long(self, named, add, begin, stop, stream):
        """Add most products of a long run; return the offset of the others.

        The first tile of a panel leaves its filters in L1: the others need not ask for them.
        """
        b, simd, n = self.builder, self.simd, self.isa.unroll
        nbytes, (rest,) = b.sub(stop, begin), simd.variables([begin])
        is_long = b.icmp_signed(">=", nbytes, ir.Constant(I64, 4 * LONG_SUM))
        with b.if_then(is_long):
            end = b.add(begin, b.and_(nbytes, ir.Constant(I64, -4 * n)))
            if self.panels > 1:  # this is their only tile
                add(begin, end)
            else:
                self._add_first_or_later(named, partial(add, begin, end), stream)
            b.store(end, rest)
        return b.load(rest)

    def _add_first_or_later(self, named, add, stream):
        b = self.builder
        is_streaming = self._is_given(named["ahead_step"])
        with b.if_else(self._is_zero(named["number"])) as (first, later):
            with first:
                add(asks=True)
            with later, b.if_else(is_streaming) as (streaming, near):
                with streaming:
                    add(stream=stream)
                with near:
                    add()

    def _add_rest(self, named, add, stream):
        """Add product by product, which leaves time to ask for all filters.

        One index into all rows: a short run costs no more than its products.
        """
        if self.panels > 1:  # the processor itself sees several coming
            add()
        elif self.isa.unroll > 1:
            add(asks=True)
        else:
            with self.builder.if_else(self._is_given(named["ahead_step"])) as (streaming, own):
                with streaming:
                    add(asks=True, stream=stream)
                with own:
                    add(asks=True)

    def _add_unrolled(
        self, named, starts, filters, sums, begin, end, asks=False, stream=None, n=None
    ):
        b, simd, n = self.builder, self.simd, n or self.isa.unroll
        with cgutils.for_range_slice(b, begin, end, ir.Constant(I64, 4 * n)) as (offset, _):
            if stream is not None:
                address = b.load(stream.address)
                simd.prefetch(address, level=2)
                simd.prefetch(b.add(address, stream.half), level=2)
                b.store(b.add(address, stream.step), stream.address)
            for i in range(n):
                self._multiply_add(
                    named, starts, simd.offset(offset, 4 * i), filters, sums, asks
                )

    def _multiply_add(self, named, starts, offset, filters, sums, asks):
        """Add the products of one k to all sums; ask for filters ahead where `asks`."""
        b, simd = self.builder, self.simd
        address = b.load(filters)
        columns = self._row_of_panels(named, address, self.format)
        for nbytes in range(0, self.filters_nbytes, LINE) if asks else ():
            simd.prefetch(simd.offset(address, FILTERS_AHEAD_NBYTES + nbytes))
        for start, row in zip(starts, sums, strict=True):
            for part, x, slot, column in zip(
                self.row, self._broadcasts(b.add(start, offset)), row, columns, strict=True
            ):
                b.store(part.multiply_add(x, column, b.load(slot)), slot)
        b.store(simd.offset(address, self.filters_nbytes), filters)

    def _row_of_panels(self, named, address, format):
        """Load the bias or a row of filters; `address` is where the first panel's stands."""
        b, row = self.builder, self.row[: len(self.row) // self.panels]
        starts = (
            b.add(address, b.mul(named["panel_nbytes"], ir.Constant(I64, n)))
            for n in range(self.panels)
        )
        return [vector for start in starts for vector in format.load(row, start)]

    def _broadcasts(self, pixel):
        """Return the float at an address in every lane of each vector of a row.

        A shorter vector reads it anew, from the same address: the multiply-adds then broadcast
        from memory. To take half of a register that both could share costs a tenth, and so do
        addresses of its own, for which there are no registers.
        """
        first, last = self.row[0], self.row[-1]
        values = [self._broadcast(first, pixel)] * self.row.count(first)
        if last is not first:
            self.simd.forget()
            values.append(self._broadcast(last, pixel))
        return values

    def _broadcast(self, part, pixel):
        return part.splat(self.builder.load(self.simd.pointer(pixel, F32)))

    def _zeros(self):
        return [[part.zeros() for part in self.row]] * self.height

    def _set(self, sums, values):
        for row, row_values in zip(sums, values, strict=True):
            for slot, value in zip(row, row_values, strict=True):
                self.builder.store(value, slot)

    def _total(self, named, m):
        return self.simd.offset(named["totals"], 4 * m * self.width)

    def _with_totals(self, named, sums):
        """Return totals + sums."""
        return [
            [
                self.builder.fadd(total, self.builder.load(slot))
                for total, slot in zip(self._columns(self._total(named, m)), row, strict=True)
            ]
            for m, row in enumerate(sums)
        ]

    def _store_totals(self, named, values):
        for m, row in enumerate(values):
            self._store_row(row, self._total(named, m), None)

    def _add_partial_sums(self, named, sums):
        with self.builder.if_then(self._is_given(named["u_rows"])):
            self._add_rows(sums, self.simd.words(named["u_rows"], self.height))

    def _scale(self, named, sums):
        b = self.builder
        with b.if_then(self._is_given(named["scale"])):
            factors = self._columns(named["scale"])
            for row in sums:
                for slot, factor in zip(row, factors, strict=True):
                    b.store(b.fmul(b.load(slot), factor), slot)

    def _add_residual(self, named, sums):
        with self.builder.if_then(self._is_given(named["r_rows"])):
            rows = self._rows(named, "r_rows")
            self._by_columns(named, lambda masks: self._add_rows(sums, rows, masks))

    def _add_rows(self, sums, addresses, masks=None):
        b = self.builder
        for address, row in zip(addresses, sums, strict=True):
            for slot, value in zip(row, self._columns(address, masks), strict=True):
                b.store(b.fadd(b.load(slot), value), slot)

    def _bend(self, named, sums):
        b, slopes = self.builder, self._columns(named["slopes"])
        for row in sums:
            for part, slot, slope in zip(self.row, row, slopes, strict=True):
                b.store(part.leaky(b.load(slot), slope), slot)

    def _clip_and_store(self, named, sums):
        """Clip row by row: many stores that follow each other delay the multiply-adds."""
        b, low, high = self.builder, named["lo"], named["hi"]
        rows = list(zip(self._rows(named, "y_rows"), sums, strict=True))

        def emit(masks):
            with b.if_else(self.simd.is_bounded(low, high)) as (bounded, unbounded):
                with bounded:
                    for address, row in rows:
                        self._store_row(self._clipped(row, low, high), address, masks)
                with unbounded:
                    for address, row in rows:
                        self._store_row([b.load(slot) for slot in row], address, masks)

        self._by_columns(named, emit)

    def _clipped(self, row, low, high):
        return [
            part.clip(part.later(self.builder.load(slot)), part.splat(low), part.splat(high))
            for part, slot in zip(self.row, row, strict=True)
        ]

    def _store_row(self, values, address, masks):
        masks = masks or self.unmasked
        for j, (part, value, mask) in enumerate(zip(self.row, values, masks, strict=True)):
            part.store(value, self._column(address, j), mask)

    def _by_columns(self, named, emit):
        """Emit for rows that are valid as a whole, without masks, and for others with them.

        LLVM keeps what it loads under a mask in memory until it is used.
        """
        b = self.builder
        is_full = b.icmp_signed(">=", named["n_valid"], ir.Constant(I64, self.width))
        with b.if_else(is_full) as (full, partial):
            with full:
                emit(None)
            with partial:
                emit(self._masks(named["n_valid"]))

    def _masks(self, n_valid):
        return [part.mask(n_valid, j * self.isa.lanes) for j, part in enumerate(self.row)]

    def _rows(self, named, table):
        """Return the addresses of the panel's first column in every row of a table."""
        rows = self.simd.words(named[table], self.height)
        return [self.builder.add(row, named["column_offset"]) for row in rows]

    def _column(self, address, j):
        return self.simd.offset(address, j * self.simd.vector_nbytes)

    def _columns(self, address, masks=None):
        return [
            part.load(self._column(address, j), mask)
            for j, (part, mask) in enumerate(zip(self.row, masks or self.unmasked, strict=True))
        ]
