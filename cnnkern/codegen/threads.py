"""What threads need and Numba lacks: atomics, a polite spin, the floating-point mode."""

import platform
import sys

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .vector import I32, I64, VOID, external

_IS_LINUX = sys.platform == "linux"
_IS_X86 = platform.machine() in ("x86_64", "AMD64")
_FLUSH_DENORMALS = 0x8040  # FTZ | DAZ, Intel SDM vol. 1, 10.2.3; TensorFlow sets both


@intrinsic
def atomic_add(typing, address, value):
    """Add to the int64 at `address`; return what stood there before."""

    def emit(context, builder, signature, args):
        pointer = builder.inttoptr(args[0], I64.as_pointer())
        return builder.atomic_rmw("add", pointer, args[1], "seq_cst")

    return types.int64(types.int64, types.int64), emit


@intrinsic
def atomic_load(typing, address):
    """Return the int64 at `address`; later reads see what its writer wrote before."""

    def emit(context, builder, signature, args):
        pointer = builder.inttoptr(args[0], I64.as_pointer())
        return builder.load_atomic(pointer, "acquire", 8)

    return types.int64(types.int64), emit


@intrinsic
def pause(typing):
    """Tell the core that this is a spin loop."""

    def emit(context, builder, signature, args):
        if _IS_X86:
            builder.call(external(builder, "llvm.x86.sse2.pause", VOID, []), [])
        return context.get_dummy_value()

    return types.void(), emit


@intrinsic
def yield_processor(typing):
    """Let another runnable thread have this core (POSIX sched_yield)."""

    def emit(context, builder, signature, args):
        builder.call(external(builder, "sched_yield", I32, []), [])
        return context.get_dummy_value()

    return types.void(), emit


@intrinsic
def current_cpu(typing):
    """Return the number of the CPU that this thread runs on (Linux sched_getcpu)."""

    def emit(context, builder, signature, args):
        if not _IS_LINUX:
            return ir.Constant(I64, -1)
        return builder.sext(builder.call(external(builder, "sched_getcpu", I32, []), []), I64)

    return types.int64(), emit


@intrinsic
def flush_denormals(typing):
    """Treat denormals as zero from here on; return the mode that was set before."""

    def emit(context, builder, signature, args):
        if not _IS_X86:
            return ir.Constant(I64, 0)
        before = _read_mode(builder)
        _write_mode(builder, builder.or_(before, ir.Constant(I32, _FLUSH_DENORMALS)))
        return builder.zext(before, I64)

    return types.int64(), emit


@intrinsic
def restore_mode(typing, mode):
    """Set the floating-point mode that `flush_denormals` returned."""

    def emit(context, builder, signature, args):
        if _IS_X86:
            _write_mode(builder, builder.trunc(args[0], I32))
        return context.get_dummy_value()

    return types.void(types.int64), emit


def _read_mode(builder: ir.IRBuilder) -> ir.Value:
    slot = builder.alloca(I32)
    builder.call(external(builder, "llvm.x86.sse.stmxcsr", VOID, [I32.as_pointer()]), [slot])
    return builder.load(slot)


def _write_mode(builder: ir.IRBuilder, mode: ir.Value) -> None:
    slot = builder.alloca(I32)
    builder.store(mode, slot)
    builder.call(external(builder, "llvm.x86.sse.ldmxcsr", VOID, [I32.as_pointer()]), [slot])
