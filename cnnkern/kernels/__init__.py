"""The one list of kernels, and the way from a kernel's name to its address.

A kernel is made by ``factory(isa)`` in the module named here. Kernels are compiled when
first asked for, once per machine; later processes link the cached object and import
neither Numba nor the modules below.
"""

import ctypes
import functools
import importlib
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..codegen import cache, loader
from ..codegen.isa import Isa
from ..codegen.transform import POOLED_SIZES, SIZES
from . import records


@dataclass(frozen=True)
class Kernel:
    """Where a kernel's loop stands and what its record looks like."""

    module: str
    record: np.dtype


# Activations that work on a row of floats, in an epilogue or as a step of their own.
ROW_FUNCTIONS = (
    "affine", "bounded_relu", "celu", "clip", "elu", "exponential", "gelu", "gelu_tanh",
    "hard_shrink", "hard_sigmoid", "hard_silu", "leaky_relu", "log_sigmoid", "mish", "selu",
    "sigmoid", "silu", "soft_shrink", "softplus", "softsign", "sparse_plus",
    "sparse_sigmoid", "squareplus", "tanh", "tanh_shrink", "threshold",
)  # fmt: skip

BINARY_FUNCTIONS = (
    "add", "divide", "gate", "maximum", "minimum", "multiply", "prelu", "scaled_add",
    "subtract",
)  # fmt: skip

KERNELS = {
    "f32_conv": Kernel("conv", records.CONV),
    "f32_int24_conv": Kernel("conv", records.CONV),
    "f32_narrow_conv": Kernel("narrow", records.CONV),
    "f32_plane_conv": Kernel("plane", records.CONV),
    "f32_strassen": Kernel("strassen", records.STRASSEN),
    "f32_winograd": Kernel("winograd", records.WINOGRAD),
    **{
        f"f32_winograd_{end}_{size}": Kernel("winograd", records.WINOGRAD)
        for size in SIZES
        for end in ("input", "output")
    },
    **{
        f"f32_winograd_pooled_{size}": Kernel("winograd", records.WINOGRAD)
        for size in POOLED_SIZES
    },
    **{
        f"f32_depthwise{window}": Kernel("depthwise", records.DEPTHWISE)
        for window in ("_k3s1", "_k3s2", "_k5s1", "_k5s2", "_k7s1", "")
    },
    "f32_bands": Kernel("bands", records.BANDS),
    "f32_max_pool": Kernel("pool", records.POOL),
    "f32_average_pool": Kernel("pool", records.POOL),
    "f32_adaptive_max_pool": Kernel("pool", records.POOL),
    "f32_adaptive_average_pool": Kernel("pool", records.POOL),
    "f32_global_max": Kernel("pool", records.GLOBAL_POOL),
    "f32_global_average": Kernel("pool", records.GLOBAL_POOL),
    "f32_im2col": Kernel("unfold", records.UNFOLD),
    "f32_map": Kernel("elementwise", records.MAP),
    **{f"f32_{name}": Kernel("elementwise", records.BINARY) for name in BINARY_FUNCTIONS},
    "f32_scale_shift": Kernel("elementwise", records.SCALE_SHIFT),
    "f32_standardize": Kernel("elementwise", records.SCALE_SHIFT),
    "f32_move": Kernel("move", records.MOVE),
    "f32_resample": Kernel("resample", records.RESAMPLE),
    "f32_softmax": Kernel("reduce", records.ROWS),
    "f32_log_softmax": Kernel("reduce", records.ROWS),
    "f32_layer_norm": Kernel("reduce", records.NORM),
    "f32_rms_norm": Kernel("reduce", records.NORM),
    "f32_unit_norm": Kernel("reduce", records.NORM),
    "f32_sparsemax": Kernel("reduce", records.ROWS),
    "f32_group_norm": Kernel("groups", records.GROUP_NORM),
    "f32_dot": Kernel("dot", records.DOT),
    "f32_repeat": Kernel("elementwise", records.REPEAT),
    "f32_halo": Kernel("elementwise", records.HALO),
    **{f"f32_{name}": Kernel("rows", records.PARAMETERS) for name in ROW_FUNCTIONS},
    "fma_peak": Kernel("peak", records.PEAK),
    "run_serial": Kernel("executor", records.RUN),
    "run_whole": Kernel("executor", records.RUN),
    "lead_run": Kernel("executor", records.DOOR),
    "help_runs": Kernel("executor", records.DOOR),
}

_addresses: dict[str, int] = {}
_compiled: list[str] = []
_lock = threading.RLock()


def _renew_lock() -> None:
    """Forget who held the lock: in a forked child that thread does not exist."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def variant(name: str, isa: Isa) -> str:
    """Return the full name of a kernel for one instruction set."""
    tile = f"_{isa.heights[0]}x{isa.tile_columns}" if name == "f32_conv" else ""
    return f"{name}{tile}__{isa.name}"


def address(name: str, isa: Isa) -> int:
    """Return the address of a kernel: linked before, from the disk cache, or compiled now."""
    symbol = variant(name, isa)
    found = _addresses.get(symbol)
    if found is None:
        with _lock:
            found = _addresses.get(symbol)
            if found is None:
                code = cache.load(symbol) or _compile(name, symbol, isa)
                found = _addresses[symbol] = loader.link(symbol, code)
    return found


@functools.cache
def native(name: str, isa: Isa) -> Callable[[int, int, int, int], None]:
    """Return a kernel as a Python callable that releases the GIL."""
    return ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)(address(name, isa))


def bound(name: str, isa: Isa, record: int, keeps_gil: bool = False) -> Callable[[], None]:
    """Return a kernel that reads its record only as a callable: the shortest call there is.

    To give the GIL back for a moment takes longer than the moment.
    """
    # Without declared types ctypes takes the ready C integer as it is.
    prototype = ctypes.PYFUNCTYPE(None) if keeps_gil else ctypes.CFUNCTYPE(None)
    return functools.partial(prototype(address(name, isa)), ctypes.c_int64(record))


def compiled() -> tuple[str, ...]:
    """Return the kernels that this process compiled, as opposed to found in the cache."""
    return tuple(_compiled)


def linked() -> tuple[str, ...]:
    """Return the kernels that this process holds."""
    return tuple(_addresses)


def _compile(name: str, symbol: str, isa: Isa) -> bytes:
    if not _compiled and sys.stderr.isatty():
        print("cnnkern: compiling kernels, once on this machine ...", file=sys.stderr)
    from ..codegen.jit import compile_object

    kernel = KERNELS[name]
    module = importlib.import_module(f".{kernel.module}", __package__)
    code = compile_object(getattr(module, name)(isa), kernel.record, symbol, isa)
    cache.store(symbol, code)
    _compiled.append(symbol)
    return code
