"""Register tiles of the micro-kernel: which registers they use, and in which order.

Register budget: height x vectors accumulators, one filter vector per column vector, one
broadcast (none on AVX-512, where the multiply-add broadcasts from memory). LLVM must not spill:
its spilled vectors straddle cache lines, and tiles of few products lose a twentieth. Rare
duties, which need registers, have functions of their own (`GeneralTile`).

One pixel has too few sums to keep the units busy, and one panel's filters arrive too slowly:
there are tiles of one pixel and several panels.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

from llvmlite import ir
from numba.core import cgutils

from .filters import FLOAT32, Format
from .isa import LINE, LONG_SUM, TAIL, Isa
from .simd import Simd
from .vector import F32, I64, function_in

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
    "asks_output",  # 1: the output is in a far cache, and the tile asks for it first; or 0
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


class _Stream(NamedTuple):
    """Filters that are asked for while others are in use."""

    address: Any  # slot
    step: Any  # bytes
    half: Any  # bytes from the one half to the other


@dataclass
class _Tile(ABC):
    """Emits one tile function."""

    isa: Isa
    height: int
    width: int  # columns
    panels: int = 1  # that have these columns
    format: Format = FLOAT32

    kind: ClassVar[str]

    @property
    def columns(self) -> int:
        """Return the columns of a panel."""
        return self.width // self.panels

    @property
    def filters_nbytes(self) -> int:
        """Return the bytes of a panel per product."""
        return self.columns * self.format.nbytes

    def function(self, module: ir.Module) -> ir.Function:
        size = f"{self.height}x{self.width}"
        name = f"{self.format.name}_{self.kind}_{size}__{self.isa.name}"
        return function_in(module, name, TILE_ARGUMENTS, ("lo", "hi"), self._emit_body)

    def _emit_body(self, builder: ir.IRBuilder, named: dict[str, Any]) -> None:
        self.builder = builder
        self.simd = Simd(self.isa, self.builder)
        # The vectors of a row: whole ones, then maybe a shorter one.
        self.row = [self.simd] * (self.width // self.isa.lanes)
        if rest := self.width % self.isa.lanes:
            self.row.append(self.simd.of_lanes(rest))
        self.unmasked = [None] * len(self.row)
        self.bounds = self.simd.in_memory([named["lo"], named["hi"]])
        tables = {name: named[name] for name in ROW_TABLES}
        products = builder.mul(named["n_runs"], named["run_len"])
        is_long = builder.icmp_signed(">=", products, ir.Constant(I64, self.isa.paired_sum))
        with cgutils.for_range(builder, named["n_tiles"]) as turn:
            tile = self._tile_of(turn.index, named["n_tiles"], builder.zext(is_long, I64))
            first = builder.mul(tile, ir.Constant(I64, WORD * self.height))
            here = {name: self._moved(table, first) for name, table in tables.items()}
            number = builder.add(named["number"], turn.index)
            self._emit_tile(named | here | {"number": number})

    def _tile_of(self, turn, n_tiles, is_long):
        """Return whose turn it is: the second tile's, then the first one's, and so on in pairs.

        Were every tile as far from the last one, the processor would read several tiles ahead,
        and so beyond the task's rows. Those are another core's, which waits for each line that
        was read when it writes there again: on a distant core a tenth of its time. Tiles of
        sums below `isa.paired_sum` come one after the other.
        """
        b = self.builder
        neighbour = b.xor(turn, is_long)
        return b.select(b.icmp_signed("<", neighbour, n_tiles), neighbour, turn)

    def _moved(self, table, offset):
        """Return the address of a table moved by an offset; none stays none."""
        moved = self.builder.add(table, offset)
        return self.builder.select(self._is_given(table), moved, table)

    def _emit_tile(self, named):
        self._prefetch(named)
        simd = self.simd
        bias = self._row_of_panels(named, named["panel"], FLOAT32)
        self.sums = [simd.variables(bias) for _ in range(self.height)]
        self.starts = simd.words(named["x_rows"], self.height)
        (self.filters,) = simd.variables([simd.offset(named["panel"], 4 * self.columns)])
        self.stream = self._stream(named)
        self._add_and_store(named)

    @abstractmethod
    def _add_and_store(self, named: dict[str, Any]) -> None:
        """Add the products, finish the sums and store them."""

    @abstractmethod
    def _complete(self, named: dict[str, Any], m: int, masks: Any) -> None:
        """Do all for a row but the clip."""

    def _prefetch(self, named):
        """Let output and residual arrive from far caches while the sums are taken."""
        b = self.builder
        with b.if_then(self._is_given(named["asks_output"])):
            self._prefetch_rows(named, "y_rows", for_write=True)
        with b.if_then(self._is_given(named["r_rows"])):
            self._prefetch_rows(named, "r_rows")

    def _prefetch_rows(self, named, table, for_write=False):
        for m in range(self.height):
            for nbytes in range(0, 4 * self.width, LINE):
                row = self._in_row(named, table, m)
                self.simd.prefetch(self.simd.offset(row, nbytes), for_write)

    def _is_given(self, argument):
        return self.builder.icmp_signed("!=", argument, ir.Constant(I64, 0))

    def _is_zero(self, number):
        return self.builder.icmp_signed("==", number, ir.Constant(I64, 0))

    def _stream(self, named):
        """Return what a tile asks for, other than its own filters.

        Each asks for an equal share, in two halves: memory delivers while all of them add.
        """
        b, simd = self.builder, self.simd
        products = simd.offset(b.mul(named["n_runs"], named["run_len"]), -TAIL)
        steps = b.udiv(products, ir.Constant(I64, self.isa.unroll))
        half = b.mul(named["ahead_step"], steps)
        asking = b.sub(named["number"], ir.Constant(I64, self.isa.first_tiles))
        shares = b.mul(asking, ir.Constant(I64, 2))
        (address,) = simd.variables([b.add(named["ahead"], b.mul(shares, half))])
        return _Stream(address, named["ahead_step"], half)

    def _add_run(self, named, begin, stop):
        """Add the products from one offset of the rows to another."""
        if self.isa.unroll > 1:
            begin = self._add_long(named, begin, stop)
        self._add_rest(named, begin, stop)

    def _add_long(self, named, begin, stop):
        """Add most products of a long run; return the offset of the others.

        The first tile of a panel leaves its filters in L1: the others need not ask for them.
        """
        b, simd, n = self.builder, self.simd, self.isa.unroll
        nbytes, (rest,) = b.sub(stop, begin), simd.variables([begin])
        is_long = b.icmp_signed(">=", nbytes, ir.Constant(I64, 4 * (LONG_SUM - TAIL)))
        with b.if_then(is_long):
            end = b.add(begin, b.and_(nbytes, ir.Constant(I64, -4 * n)))
            add = partial(self._add_products, named, begin, end, n)
            if self.panels > 1:  # this is their only tile
                add()
            else:
                self._add_first_or_later(named, add)
            b.store(end, rest)
        return b.load(rest)

    def _add_first_or_later(self, named, add):
        b = self.builder
        is_streaming = self._is_given(named["ahead_step"])
        with b.if_else(self._is_zero(named["number"])) as (first, later):
            with first:
                add(asks=True)
            with later, b.if_else(is_streaming) as (streaming, near):
                with streaming:
                    add(streams=True)
                with near:
                    add()

    def _add_rest(self, named, begin, stop):
        """Add product by product, which leaves time to ask for all filters.

        One index into all rows: a short run costs no more than its products.
        """
        add = partial(self._add_products, named, begin, stop, 1)
        if self.panels > 1:  # the processor itself sees several coming
            add()
        elif self.isa.unroll > 1:
            add(asks=True)
        else:
            with self.builder.if_else(self._is_given(named["ahead_step"])) as (streaming, own):
                with streaming:
                    add(asks=True, streams=True)
                with own:
                    add(asks=True)

    def _add_products(self, named, begin, end, n, asks=False, streams=False):
        """Add `n` products at a time; ask for the panel's next filters, or for the stream's."""
        b, simd = self.builder, self.simd
        with cgutils.for_range_slice(b, begin, end, ir.Constant(I64, 4 * n)) as (offset, _):
            if streams:
                address = b.load(self.stream.address)
                simd.prefetch(address, level=2)
                simd.prefetch(b.add(address, self.stream.half), level=2)
                b.store(b.add(address, self.stream.step), self.stream.address)
            for i in range(n):
                address = b.load(self.filters)
                columns = self._row_of_panels(named, address, self.format)
                for nbytes in range(0, self.filters_nbytes, LINE) if asks else ():
                    simd.prefetch(simd.offset(address, FILTERS_AHEAD_NBYTES + nbytes))
                for m in range(self.height):
                    self._multiply_add(m, simd.offset(offset, 4 * i), columns)
                b.store(simd.offset(address, self.filters_nbytes), self.filters)

    def _row_of_panels(self, named, address, format):
        """Load the bias or a row of filters; `address` is where the first panel's stands."""
        b, row = self.builder, self.row[: len(self.row) // self.panels]
        starts = (
            b.add(address, b.mul(named["panel_nbytes"], ir.Constant(I64, n)))
            for n in range(self.panels)
        )
        return [vector for start in starts for vector in format.load(row, start)]

    def _multiply_add(self, m, offset, columns):
        """Add the products of one k to the sums of a row."""
        b, row = self.builder, self.sums[m]
        pixels = self._broadcasts(b.add(self.starts[m], offset))
        for part, x, column, slot in zip(self.row, pixels, columns, row, strict=True):
            b.store(part.multiply_add(x, column, b.load(slot)), slot)

    def _broadcasts(self, pixel):
        """Return the float at an address in every lane of each vector of a row.

        Multiply-adds that broadcast read it anew each: with a register less to write, twice as
        many of them wait in the processor while a tile is stored and the next one begins.
        """
        if self.panels > 1 or not self.isa.has_broadcast:
            return [self._broadcast(self.simd, pixel)] * len(self.row)
        values = []
        for part in self.row:
            self.simd.forget()
            values.append(self._broadcast(part, pixel))
        return values

    def _broadcast(self, part, address):
        return part.splat(self.builder.load(self.simd.pointer(address, F32)))

    def _finish(self, named, masks=None):
        """Finish and store row by row.

        Stores that follow each other delay the multiply-adds of the next tile: other work
        stands between them. The last two rows may be one, to be read before it is written.
        """
        bounds, alone = None, max(self.height - 2, 0)
        for m in range(self.height):
            self.simd.forget()
            self._complete(named, m, masks)
            bounds = bounds or self._bounds()
            self._clip(named, m, bounds)
            if m < alone:
                self._store(named, m, masks)
        for m in range(alone, self.height):
            self._store(named, m, masks)

    def _store(self, named, m, masks):
        self.simd.forget()
        row = [self.builder.load(slot) for slot in self.sums[m]]
        self._store_row(row, self._in_row(named, "y_rows", m), masks)

    def _store_row(self, values, address, masks=None):
        masks = masks or self.unmasked
        for j, (part, value, mask) in enumerate(zip(self.row, values, masks, strict=True)):
            part.store(value, self._column(address, j), mask)

    def _add_and_scale(self, named, m, masks):
        """Add partial sums, scale, add the residual: what is given of them."""
        self._add_partial_sums(named, m)
        self._scale(named, m)
        self._add_residual(named, m, masks)

    def _add_partial_sums(self, named, m):
        with self.builder.if_then(self._is_given(named["u_rows"])):
            self._add_row(m, self.simd.word(named["u_rows"], ir.Constant(I64, m)))

    def _scale(self, named, m):
        b = self.builder
        with b.if_then(self._is_given(named["scale"])):
            for slot, factor in zip(self.sums[m], self._columns(named["scale"]), strict=True):
                b.store(b.fmul(b.load(slot), factor), slot)

    def _add_residual(self, named, m, masks):
        with self.builder.if_then(self._is_given(named["r_rows"])):
            self._add_row(m, self._in_row(named, "r_rows", m), masks)

    def _add_row(self, m, address, masks=None):
        b = self.builder
        for slot, value in zip(self.sums[m], self._columns(address, masks), strict=True):
            b.store(b.fadd(b.load(slot), value), slot)

    def _bounds(self):
        """Read the bounds of each vector of a row."""
        self.simd.forget()
        high = self.simd.offset(self.bounds, 4)
        return [
            (self._broadcast(part, self.bounds), self._broadcast(part, high))
            for part in self.row
        ]

    def _clip(self, named, m, bounds):
        b = self.builder
        with b.if_then(self.simd.is_bounded(named["lo"], named["hi"])):
            for part, slot, (low, high) in zip(self.row, self.sums[m], bounds, strict=True):
                b.store(part.clip(b.load(slot), low, high), slot)

    def _in_row(self, named, table, m):
        """Return the address of the panel's first column in a row of a table."""
        row = self.simd.word(named[table], ir.Constant(I64, m))
        return self.builder.add(row, named["column_offset"])

    def _column(self, address, j):
        return self.simd.offset(address, j * self.simd.vector_nbytes)

    def _columns(self, address, masks=None):
        return [
            part.load(self._column(address, j), mask)
            for j, (part, mask) in enumerate(zip(self.row, masks or self.unmasked, strict=True))
        ]


class PlainTile(_Tile):
    """A tile of one panel, all of whose columns are stored, that takes its sums as a whole.

    The last products are added row by row, each row just before it is stored: the stores so
    take no time of their own.
    """

    kind = "plain"

    def _add_and_store(self, named):
        self._add_all_but_tail(named)
        self._finish(named)

    def _add_all_but_tail(self, named):
        b, simd = self.builder, self.simd
        nbytes = b.mul(named["run_len"], ir.Constant(I64, 4))
        last = simd.offset(named["n_runs"], -1)
        (tail,) = simd.variables([ir.Constant(I64, 0)])
        with cgutils.for_range(b, named["n_runs"]) as run:
            begin = simd.word(named["runs"], run.index)
            end = b.add(begin, nbytes)
            before = simd.offset(end, -4 * TAIL)
            end = b.select(b.icmp_signed("==", run.index, last), before, end)
            self._add_run(named, begin, end)
            b.store(end, tail)
        self.tail, self.tail_filters = b.load(tail), b.load(self.filters)

    def _complete(self, named, m, masks):
        self._add_tail(named, m)
        self._add_and_scale(named, m, masks)

    def _add_tail(self, named, m):
        """Add the last products of a row.

        The first row leaves no registers for all their filters.
        """
        if m == 1:
            self.kept = [self._tail_columns(named, k) for k in range(TAIL)]
        for k in range(TAIL):
            if m == 0:
                self.simd.forget()
            columns = self.kept[k] if m else self._tail_columns(named, k)
            self._multiply_add(m, self.simd.offset(self.tail, 4 * k), columns)

    def _tail_columns(self, named, k):
        address = self.simd.offset(self.tail_filters, k * self.filters_nbytes)
        return self._row_of_panels(named, address, self.format)


class GeneralTile(_Tile):
    """A tile whose sums may have parts and slopes, and whose last columns may not be stored."""

    kind = "tile"

    def _add_and_store(self, named):
        self._add_parts(named)
        self._by_columns(named, self._finish)

    def _add_parts(self, named):
        b, simd, step = self.builder, self.simd, ir.Constant(I64, 4)
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
                self._add_run(named, begin, b.select(is_whole, whole, end))
                with b.if_then(b.and_(is_whole, in_parts)):
                    self._store_totals(named, self._with_totals(named))
                    self._set(self._zeros())
        with b.if_then(in_parts):
            self._set(self._with_totals(named))

    def _zeros(self):
        return [[part.zeros() for part in self.row]] * self.height

    def _set(self, values):
        for row, row_values in zip(self.sums, values, strict=True):
            for slot, value in zip(row, row_values, strict=True):
                self.builder.store(value, slot)

    def _total(self, named, m):
        return self.simd.offset(named["totals"], 4 * m * self.width)

    def _with_totals(self, named):
        """Return totals + sums."""
        return [
            [
                self.builder.fadd(total, self.builder.load(slot))
                for total, slot in zip(self._columns(self._total(named, m)), row, strict=True)
            ]
            for m, row in enumerate(self.sums)
        ]

    def _store_totals(self, named, values):
        for m, row in enumerate(values):
            self._store_row(row, self._total(named, m))

    def _by_columns(self, named, emit):
        """Emit for rows that are valid as a whole, without masks, and for others with them.

        One for both where masks cost nothing.
        """
        b = self.builder
        if self.isa.has_masks:
            emit(named, self._masks(named["n_valid"]))
            return
        is_full = b.icmp_signed(">=", named["n_valid"], ir.Constant(I64, self.width))
        with b.if_else(is_full) as (full, partial):
            with full:
                emit(named, None)
            with partial:
                emit(named, self._masks(named["n_valid"]))

    def _masks(self, n_valid):
        return [part.mask(n_valid, j * self.isa.lanes) for j, part in enumerate(self.row)]

    def _complete(self, named, m, masks):
        self._add_and_scale(named, m, masks)
        self._bend(named, m)

    def _bend(self, named, m):
        b = self.builder
        with b.if_then(self._is_given(named["slopes"])):
            slopes = self._columns(named["slopes"])
            for part, slot, slope in zip(self.row, self.sums[m], slopes, strict=True):
                b.store(part.leaky(b.load(slot), slope), slot)
