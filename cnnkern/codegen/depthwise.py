"""The depthwise micro-kernel: a row of output pixels of a channel vector, in registers.

    y[t, c] = clip(b[c] + sum over runs r, taps k of x[t*stride + k, c] * w[r, k, c], lo, hi)

`x` is a row of pixels; run r starts ``runs[r]`` bytes later and has `taps` neighbouring
pixels. Each input vector is loaded once and feeds every output that it belongs to. One call
takes all channel vectors of the row, one after the other.

    packed filters of a channel vector:  | bias | r=0: k=0 .. taps-1 | r=1: ... |

Register budget: `width` accumulators, `taps` filter vectors, 1 input: at most 7 + 7 + 1.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .isa import Isa
from .simd import Simd
from .vector import I64, function_in

# Output pixels of a tile: 7 divides the usual widths 112, 56, 28, 14, 7.
WIDTHS = (7, 4, 2, 1)
# Addresses that are one sum, and few registers: x86 multiplies a step by 1, 2 or 4 on the way.
PIXELS_AT_ONCE = 4

ARGUMENTS = (
    "x",  # address of the first pixel's channel vector
    "x_pixel",  # bytes from one input pixel to the next
    "runs",  # address of int64[n_runs]: each run's offset in bytes
    "n_runs",
    "bias",  # address of the bias of the first channel vector
    "filters",  # address of the first run's filters
    "filters_nbytes",  # from one channel vector to the next
    "y",
    "y_pixel",  # bytes from one output pixel to the next
    "n_vectors",
    "n_valid",  # channels of the last vector
)


def depthwise_call(isa: Isa, taps: int, stride: int):
    """Return ``tile(n_pixels, *ARGUMENTS, lo, hi)``: does and returns one of WIDTHS pixels.

    It takes the widest tile of at most `n_pixels` output pixels. Vectors are whole but for a
    single one of less than LANES valid channels.
    """

    @intrinsic
    def tile(
        typing, n_pixels, x, x_pixel, runs, n_runs, bias, filters, filters_nbytes, y, y_pixel,
        n_vectors, n_valid, lo, hi,
    ):  # fmt: skip
        def emit(context, builder, signature, args):
            return _emit_dispatch(builder, isa, (taps, stride), args[0], args[1:])

        integers = [types.int64] * (1 + len(ARGUMENTS))
        return types.int64(*integers, types.float32, types.float32), emit

    return tile


def _emit_dispatch(builder, isa, window, n_pixels, tile_args):
    """Emit the choice of the width and of the masked or unmasked function."""
    done = builder.append_basic_block("depthwise.done")
    result = builder.alloca(I64)
    is_full = builder.icmp_signed(">=", tile_args[-3], ir.Constant(I64, isa.lanes))
    for width in WIDTHS:
        fits = builder.icmp_signed(">=", n_pixels, ir.Constant(I64, width))
        with builder.if_then(fits):
            with builder.if_else(is_full) as (full, partial):
                for branch, is_masked in ((full, False), (partial, True)):
                    with branch:
                        function = _function(builder.module, isa, window, width, is_masked)
                        builder.call(function, tile_args)
            builder.store(ir.Constant(I64, width), result)
            builder.branch(done)
            builder.position_at_end(builder.append_basic_block("depthwise.unused"))
    builder.branch(done)
    builder.position_at_end(done)
    return builder.load(result)


def _function(module, isa, window, width, is_masked):
    taps, stride = window
    kind = "masked" if is_masked else "full"
    name = f"f32_depthwise_{width}_k{taps}s{stride}_{kind}__{isa.name}"

    def emit(builder, named):
        simd = Simd(isa, builder)
        mask = simd.mask(named["n_valid"]) if is_masked else None
        with cgutils.for_range(builder, named["n_vectors"]) as vector:
            channels = builder.mul(vector.index, ir.Constant(I64, simd.vector_nbytes))
            packed = builder.mul(vector.index, named["filters_nbytes"])
            offsets = {"x": channels, "y": channels, "bias": packed, "filters": packed}
            here = {name: builder.add(named[name], offset) for name, offset in offsets.items()}
            _emit_tile(simd, named | here, window, width, mask)

    return function_in(module, name, ARGUMENTS, ("lo", "hi"), emit)


def _emit_tile(simd, named, window, width, mask):
    taps, stride = window
    b = simd.builder
    nbytes = simd.vector_nbytes
    sums = simd.variables([simd.load(named["bias"])] * width)
    (filters,) = simd.variables([named["filters"]])
    steps = [b.mul(named["x_pixel"], ir.Constant(I64, n)) for n in range(1 + PIXELS_AT_ONCE)]
    with cgutils.for_range(b, named["n_runs"]) as run:
        offset = simd.word(named["runs"], run.index)
        pixel, address = b.add(named["x"], offset), b.load(filters)
        columns = [simd.load(simd.offset(address, k * nbytes)) for k in range(taps)]
        for position in range((width - 1) * stride + taps):
            if position and position % PIXELS_AT_ONCE == 0:
                pixel = b.add(pixel, steps[PIXELS_AT_ONCE])
            x = simd.load(b.add(pixel, steps[position % PIXELS_AT_ONCE]), mask)
            for t, slot in enumerate(sums):
                k = position - t * stride
                if 0 <= k < taps:
                    b.store(simd.multiply_add(x, columns[k], b.load(slot)), slot)
        b.store(simd.offset(address, taps * nbytes), filters)
    low, high, y = named["lo"], named["hi"], named["y"]
    with b.if_then(simd.is_bounded(low, high)):
        bounds = simd.splat(low), simd.splat(high)
        for slot in sums:
            b.store(simd.clip(b.load(slot), *bounds), slot)
    for slot in sums:
        simd.store(b.load(slot), y, mask)
        y = b.add(y, named["y_pixel"])
