"""The pooling micro-kernel: a box of pixels folded to one, channel vectors in registers.

y[c] = finish(fold over d, h, w of x[d, h, w, c])
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .isa import Isa
from .simd import Simd
from .vector import F32, I64, VOID

VECTORS = 4  # a full tile: 4 sums hide the latency of an addition


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
    "x",  # address of the box's first pixel
    "D", "H", "W",
    "x_d", "x_h", "x_w",  # bytes
    "y",
    "n_valid",  # channels from here on
)  # fmt: skip


def fold_call(isa: Isa, fold: Fold):
    """Return ``tile(*ARGUMENTS, count)``: does and returns how many channels.

    A mean is the sum divided by `count`.
    """

    @intrinsic
    def tile(typing, x, D, H, W, x_d, x_h, x_w, y, n_valid, count):
        def emit(context, builder, signature, args):
            return _emit_dispatch(builder, isa, fold, args)

        return types.int64(*[types.int64] * len(ARGUMENTS), types.float32), emit

    return tile


def _emit_dispatch(builder, isa, fold, args):
    """Emit the choice between VECTORS full vectors and one masked vector."""
    n_full = ir.Constant(I64, VECTORS * isa.lanes)
    is_full = builder.icmp_signed(">=", args[-2], n_full)
    with builder.if_else(is_full) as (full, partial):
        for branch, n_vectors in ((full, VECTORS), (partial, 1)):
            with branch:
                builder.call(_function(builder.module, isa, fold, n_vectors), args)
    return builder.select(is_full, n_full, ir.Constant(I64, isa.lanes))


def _function(module, isa, fold, n_vectors):
    name = f"f32_fold_{fold.name}_{n_vectors}__{isa.name}"
    if name not in module.globals:
        signature = ir.FunctionType(VOID, [I64] * len(ARGUMENTS) + [F32])
        function = ir.Function(module, signature, name)
        function.linkage = "internal"
        _emit_tile(function, isa, fold, n_vectors)
    return module.globals[name]


def _emit_tile(function, isa, fold, n_vectors):
    b = ir.IRBuilder(function.append_basic_block())
    simd = Simd(isa, b)
    named = dict(zip((*ARGUMENTS, "count"), function.args, strict=True))
    mask = simd.mask(named["n_valid"]) if n_vectors == 1 else None
    slots = simd.variables([simd.constant(fold.start)] * n_vectors)
    nbytes = 4 * isa.lanes
    with cgutils.for_range(b, named["D"]) as d, cgutils.for_range(b, named["H"]) as h:
        steps = b.add(b.mul(d.index, named["x_d"]), b.mul(h.index, named["x_h"]))
        row = b.add(named["x"], steps)
        with cgutils.for_range(b, named["W"]) as w:
            pixel = b.add(row, b.mul(w.index, named["x_w"]))
            for v, slot in enumerate(slots):
                x = simd.load(simd.offset(pixel, v * nbytes), mask)
                b.store(fold.combine(b, b.load(slot), x), slot)
    for v, slot in enumerate(slots):
        y = b.load(slot)
        if fold.is_mean:
            y = b.fdiv(y, simd.splat(named["count"]))
        simd.store(y, simd.offset(named["y"], v * nbytes), mask)
    b.ret_void()
