"""The pooling micro-kernel: boxes of pixels folded to one each, channel vectors in registers.

y[i, c] = finish(fold over d, h, w of x[i, d, h, w, c]) for neighbouring boxes i
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .isa import Isa
from .simd import Simd
from .vector import I64, function_in

VECTORS = 4  # folded side by side: 4 sums hide the latency of an addition
UNROLLED = ((1, 2, 2), (1, 3, 3))  # sizes D, H, W of boxes that have code of their own


@dataclass(frozen=True)
class Fold:
    """How numbers become one; the functions emit vector code."""

    name: str
    start: float
    combine: Callable[[ir.IRBuilder, Any, Any], Any]
    is_mean: bool = False


def _larger(builder, a, b):
    """A NaN in `b` is dropped, as in TensorFlow's windows."""
    return builder.select(builder.fcmp_ordered(">", b, a), b, a)


def _larger_or_nan(builder, a, b):
    keeps = builder.or_(builder.fcmp_ordered(">=", a, b), builder.fcmp_unordered("uno", a, a))
    return builder.select(keeps, a, b)


# What TensorFlow gives for a window without numbers.
MAX = Fold("max", float(np.finfo(np.float32).min), _larger)
# A global maximum is a reduction in Keras, and reductions keep NaN.
MAX_OR_NAN = Fold("max_or_nan", float("-inf"), _larger_or_nan)
MEAN = Fold("mean", 0.0, lambda builder, a, b: builder.fadd(a, b), is_mean=True)

ARGUMENTS = (
    "x",  # address of the first box's first pixel
    "D", "H", "W",  # pixels of a box
    "x_d", "x_h", "x_w",  # bytes
    "C",
    "y",
    "n_boxes",
    "x_step", "y_step",  # bytes from one box to the next
)  # fmt: skip


def fold_call(isa: Isa, fold: Fold):
    """Return ``fold(*ARGUMENTS, count)`` for Numba code; a mean is the sum over `count`."""

    @intrinsic
    def call(typing, x, D, H, W, x_d, x_h, x_w, C, y, n_boxes, x_step, y_step, count):
        def emit(context, builder, signature, args):
            _emit_dispatch(builder, isa, fold, args)
            return context.get_dummy_value()

        return types.void(*[types.int64] * len(ARGUMENTS), types.float32), emit

    return call


def _emit_dispatch(builder, isa, fold, args):
    """Emit the choice between boxes of a size known here and any others."""
    named = dict(zip(ARGUMENTS, args[:-1], strict=True))
    done = builder.append_basic_block("fold.done")
    for sizes in UNROLLED:
        equal = (
            builder.icmp_signed("==", named[axis], ir.Constant(I64, size))
            for axis, size in zip("DHW", sizes, strict=True)
        )
        with builder.if_then(reduce(builder.and_, equal)):
            builder.call(_function(builder.module, isa, fold, sizes), args)
            builder.branch(done)
    builder.call(_function(builder.module, isa, fold), args)
    builder.branch(done)
    builder.position_at_end(done)


def _function(module, isa, fold, sizes=None):
    name = f"f32_fold_{fold.name}_{'x'.join(map(str, sizes or 'n'))}__{isa.name}"
    return function_in(module, name, ARGUMENTS, ("count",), _Boxes(isa, fold, sizes).emit)


@dataclass
class _Boxes:
    """Emits the folding of boxes."""

    isa: Isa
    fold: Fold
    sizes: tuple[int, int, int] | None  # D, H and W where they are known

    def emit(self, builder: ir.IRBuilder, named: dict[str, Any]) -> None:
        """Emit whole blocks of vectors box by box, then what is left vector by vector."""
        b, self.builder, self.named = builder, builder, named
        self.simd = simd = Simd(self.isa, b)
        zero, lanes, several = (ir.Constant(I64, n * self.isa.lanes) for n in (0, 1, VECTORS))
        n_whole = b.sub(named["C"], b.srem(named["C"], several))
        with (
            cgutils.for_range(b, named["n_boxes"]) as box,
            cgutils.for_range_slice(b, zero, n_whole, several) as (c, _),
        ):
            self._fold_vectors(box.index, c, VECTORS)
        with cgutils.for_range_slice(b, n_whole, named["C"], lanes) as (c, _):
            mask = simd.mask(b.sub(named["C"], c))
            with cgutils.for_range(b, named["n_boxes"]) as box:
                self._fold_vectors(box.index, c, 1, mask)

    def _fold_vectors(self, box, c, n_vectors, mask=None):
        """Emit ``y = fold(x)`` of a box for neighbouring vectors from channel `c` on."""
        b, simd = self.builder, self.simd
        x, y = self._address("x", box, c), self._address("y", box, c)
        slots = simd.variables([simd.constant(self.fold.start)] * n_vectors)
        self._each_pixel(x, lambda pixel: self._combine(slots, pixel, mask))
        for v, slot in enumerate(slots):
            result = b.load(slot)
            if self.fold.is_mean:
                result = b.fdiv(result, simd.splat(self.named["count"]))
            simd.store(result, self._vector(y, v), mask)

    def _address(self, array, box, c):
        b, start, step = self.builder, self.named[array], self.named[f"{array}_step"]
        return b.add(b.add(start, b.mul(box, step)), b.shl(c, ir.Constant(I64, 2)))

    def _each_pixel(self, x, emit):
        """Emit code for the pixels of a box, in order."""
        b, named = self.builder, self.named
        if self.sizes is None:
            with (
                cgutils.for_range(b, named["D"]) as d,
                cgutils.for_range(b, named["H"]) as h,
                cgutils.for_range(b, named["W"]) as w,
            ):
                emit(self._pixel(x, d.index, h.index, w.index))
        else:
            for indices in np.ndindex(self.sizes):
                emit(self._pixel(x, *(ir.Constant(I64, i) for i in indices)))

    def _pixel(self, x, *indices):
        for index, stride in zip(indices, ("x_d", "x_h", "x_w"), strict=True):
            x = self.builder.add(x, self.builder.mul(index, self.named[stride]))
        return x

    def _combine(self, slots, pixel, mask):
        for v, slot in enumerate(slots):
            x = self.simd.load(self._vector(pixel, v), mask)
            self.builder.store(
                self.fold.combine(self.builder, self.builder.load(slot), x), slot
            )

    def _vector(self, address, v):
        return self.simd.offset(address, v * self.simd.vector_nbytes)
