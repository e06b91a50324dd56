"""The depthwise micro-kernel: output pixels of a channel vector, in registers.

    y[t, c] = clip(b[c] + sum over runs r, taps k of x[t*stride + k, c] * w[r, k, c], lo, hi)

where there are slopes, what is negative is multiplied by a[c] before the clip.

`x` is a row of pixels; run r starts ``runs[r]`` bytes later and has `taps` neighbouring
pixels. Each input vector is loaded once and feeds every output that it belongs to. One call
takes all channel vectors of a tile, one after the other, and then those of the next tile.

    packed filters of a channel vector:  | bias | r=0: k=0 .. taps-1 | r=1: ... |

Where the registers hold twice the sums and the filters of two runs, a pair of rows is done at
once: run r of the upper one is run r-1 of the lower one. With 3x3 taps it loads three inputs
per output where single rows load four, and has as many sums as the multiply-add units need.

Register budget: `width` accumulators and `taps` filter vectors per row, 1 input.
"""

from typing import NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .isa import Isa
from .simd import Simd
from .vector import I1, I64, function_in

# Output pixels of a tile: 7 divides the usual widths 112, 56, 28, 14, 7; 4 divides three of
# them and with 3 makes 7.
WIDTHS = (7, 4, 3, 2, 1)
# Addresses that are one sum, and few registers: x86 multiplies a step by 1, 2 or 4 on the way.
PIXELS_AT_ONCE = 4

ARGUMENTS = (
    "x",  # address of the first pixel's channel vector
    "x_pixel",  # bytes from one input pixel to the next
    "runs",  # address of int64[]: each run's offset in bytes
    "first", "end",  # the runs that lie in the image
    "filters",  # address of the first channel vector's
    "filters_nbytes",  # from one channel vector to the next
    "y",
    "y_pixel",  # bytes from one output pixel to the next
    "y_row",  # bytes from the upper row of a pair to the lower one
    "slopes",  # address of the first channel vector's: factors of what is negative, or 0
    "n_vectors",
    "n_valid",  # channels of the last vector
)  # fmt: skip


class Window(NamedTuple):
    """What a tile is compiled for."""

    taps: int  # a pair's window has as many runs
    stride: int
    rows: int  # 1, or 2 for a pair


def _widths(isa: Isa, window: Window) -> tuple[int, ...]:
    """Return the widths of tiles whose sums and filters the registers hold."""
    if window.rows == 1:
        return WIDTHS
    most = (isa.registers - 1) // 2 - window.taps
    return tuple(width for width in WIDTHS if width <= most)


def depthwise_call(isa: Isa, window: Window):
    """Return ``tiles(n_pixels, *ARGUMENTS, lo, hi)``: does and returns some output pixels.

    It does as many of the widest tiles of at most `n_pixels` pixels as there are. Vectors are
    whole but for a single one of less than LANES valid channels.
    """

    @intrinsic
    def tiles(
        typing, n_pixels, x, x_pixel, runs, first, end, filters, filters_nbytes, y, y_pixel,
        y_row, slopes, n_vectors, n_valid, lo, hi,
    ):  # fmt: skip
        def emit(context, builder, signature, args):
            return _emit_dispatch(builder, isa, window, args[0], args[1:])

        integers = [types.int64] * (1 + len(ARGUMENTS))
        return types.int64(*integers, types.float32, types.float32), emit

    return tiles


def _emit_dispatch(builder, isa, window, n_pixels, tile_args):
    """Emit the choice of the width and of the masked or unmasked function."""
    done = builder.append_basic_block("depthwise.done")
    result = builder.alloca(I64)
    is_full = builder.icmp_signed(">=", tile_args[-3], ir.Constant(I64, isa.lanes))
    for width in _widths(isa, window):
        pixels = ir.Constant(I64, width)
        with builder.if_then(builder.icmp_signed(">=", n_pixels, pixels)):
            n_tiles = builder.sdiv(n_pixels, pixels)
            with builder.if_else(is_full) as (full, partial):
                for branch, is_masked in ((full, False), (partial, True)):
                    with branch:
                        function = _function(builder.module, isa, window, width, is_masked)
                        builder.call(function, [n_tiles, *tile_args])
            builder.store(builder.mul(n_tiles, pixels), result)
            builder.branch(done)
            builder.position_at_end(builder.append_basic_block("depthwise.unused"))
    builder.branch(done)
    builder.position_at_end(done)
    return builder.load(result)


def _function(module, isa, window, width, is_masked):
    kind = "masked" if is_masked else "full"
    name = (
        f"f32_depthwise_{window.rows}x{width}_k{window.taps}s{window.stride}_{kind}__{isa.name}"
    )

    def emit(builder, named):
        simd = Simd(isa, builder)
        mask = simd.mask(named["n_valid"]) if is_masked else None
        step, pixels = ir.Constant(I64, width * window.stride), ir.Constant(I64, width)
        has_slopes = builder.icmp_signed("!=", named["slopes"], ir.Constant(I64, 0))
        with cgutils.for_range(builder, named["n_tiles"]) as tile:
            x_tile = builder.mul(tile.index, builder.mul(named["x_pixel"], step))
            y_tile = builder.mul(tile.index, builder.mul(named["y_pixel"], pixels))
            with cgutils.for_range(builder, named["n_vectors"]) as vector:
                channels = builder.mul(vector.index, ir.Constant(I64, simd.vector_nbytes))
                here = {
                    "x": builder.add(x_tile, channels),
                    "y": builder.add(y_tile, channels),
                    "filters": builder.mul(vector.index, named["filters_nbytes"]),
                    "slopes": builder.select(has_slopes, channels, ir.Constant(I64, 0)),
                }
                here = {name: builder.add(named[name], nbytes) for name, nbytes in here.items()}
                _emit_tile(simd, named | here, window, width, mask)

    return function_in(module, name, ("n_tiles", *ARGUMENTS), ("lo", "hi"), emit)


def _emit_tile(simd, named, window, width, mask):
    b = simd.builder
    bias = simd.load(named["filters"])
    rows = [simd.variables([bias] * width) for _ in range(window.rows)]
    emit_runs = _emit_runs if window.rows == 1 else _emit_runs_of_pair
    emit_runs(simd, named, window, rows, mask)
    with b.if_then(b.icmp_signed("!=", named["slopes"], ir.Constant(I64, 0))):
        _emit_bend(simd, named["slopes"], [slot for sums in rows for slot in sums])
    with b.if_else(simd.is_bounded(named["lo"], named["hi"])) as (bounded, unbounded):
        with bounded:
            bounds = simd.splat(named["lo"]), simd.splat(named["hi"])
            for slot, pixel in _places(simd, named, rows):
                simd.store(simd.clip(simd.later(b.load(slot)), *bounds), pixel, mask)
        with unbounded:
            for slot, pixel in _places(simd, named, rows):
                simd.store(b.load(slot), pixel, mask)


def _places(simd, named, rows):
    """Yield every sum and where it is stored."""
    b, y = simd.builder, named["y"]
    for sums in rows:
        pixel = y
        for slot in sums:
            yield slot, pixel
            pixel = b.add(pixel, named["y_pixel"])
        y = b.add(y, named["y_row"])


def _emit_runs(simd, named, window, rows, mask):
    """Emit the loop over the runs of a single row."""
    b = simd.builder
    run_nbytes = ir.Constant(I64, window.taps * simd.vector_nbytes)
    (filters,) = simd.variables([b.add(named["filters"], b.mul(named["first"], run_nbytes))])
    one = ir.Constant(I64, 1)
    with cgutils.for_range_slice(b, named["first"], named["end"], one, I64) as (run, _):
        _emit_run(simd, named, run, [(rows[0], b.load(filters))], window, mask)
        b.store(b.add(b.load(filters), run_nbytes), filters)


def _emit_runs_of_pair(simd, named, window, rows, mask):
    """Emit every run of both rows, one after the other: loops would cost a tenth.

    Where all of them lie in the image there is no branch between them, either.
    """
    b = simd.builder
    zero, taps = ir.Constant(I64, 0), ir.Constant(I64, window.taps)
    begins, ends = named["first"], named["end"]
    is_inside = b.and_(b.icmp_signed("<=", begins, zero), b.icmp_signed(">", ends, taps))
    if mask is not None:  # rare: not worth the code
        is_inside = ir.Constant(I1, 0)
    with b.if_else(is_inside) as (inside, at_border):
        with inside:
            for run, terms in _runs_of_pair(simd, named, window, rows):
                _emit_run(simd, named, run, terms, window, mask)
        with at_border:
            for run, terms in _runs_of_pair(simd, named, window, rows):
                has_begun = b.icmp_signed("<=", begins, run)
                with b.if_then(b.and_(has_begun, b.icmp_signed("<", run, ends))):
                    _emit_run(simd, named, run, terms, window, mask)


def _runs_of_pair(simd, named, window, rows):
    """Yield every run, and what it adds to as `_emit_run` takes it."""
    run_nbytes = window.taps * simd.vector_nbytes
    for run in range(window.taps + 1):
        terms = [
            (sums, simd.offset(named["filters"], (run - row) * run_nbytes))
            for row, sums in enumerate(rows)
            if 0 <= run - row < window.taps
        ]
        yield ir.Constant(I64, run), terms


def _emit_run(simd, named, run, terms, window, mask):
    """Emit what a run adds to rows of sums, each given with the address of its filters."""
    b = simd.builder
    taps, stride, _ = window
    after_bias = [(1 + k) * simd.vector_nbytes for k in range(taps)]
    columns = [
        [simd.load(simd.offset(filters, nbytes)) for nbytes in after_bias]
        for _, filters in terms
    ]
    pixel = b.add(named["x"], simd.word(named["runs"], run))
    steps = [b.mul(named["x_pixel"], ir.Constant(I64, n)) for n in range(1 + PIXELS_AT_ONCE)]
    width = len(terms[0][0])
    for position in range((width - 1) * stride + taps):
        if position and position % PIXELS_AT_ONCE == 0:
            pixel = b.add(pixel, steps[PIXELS_AT_ONCE])
        x = simd.load(b.add(pixel, steps[position % PIXELS_AT_ONCE]), mask)
        for (sums, _), row_columns in zip(terms, columns, strict=True):
            for t, slot in enumerate(sums):
                k = position - t * stride
                if 0 <= k < taps:
                    b.store(simd.multiply_add(x, row_columns[k], b.load(slot)), slot)


def _emit_bend(simd, slopes, slots):
    """Emit the product of what is negative and the slopes."""
    b, factors = simd.builder, simd.load(slopes)
    for slot in slots:
        b.store(simd.leaky(b.load(slot), factors), slot)
