"""The one jit wrapper: a Python loop over a record becomes a relocatable object.

Every kernel has one signature, ``kernel(args, scratch, begin, end) -> None``, four
int64: the address of its record, the address of the calling thread's scratch memory,
and the range of tiles to do. It holds no GIL, allocates nothing and raises nothing, so
its object file needs no runtime and a later process loads it without importing Numba.
"""

from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numba
import numpy as np

from ..errors import PlanError
from .isa import Isa, target_machine
from .vector import record_at

# Explicit because fastmath=True would also fold isnan away: contraction, reassociation
# and the assumption of finite values would each change results.
FASTMATH: set[str] = set()

# What a kernel's object may leave to the linker: the C library only.
ALLOWED_SYMBOLS = frozenset(
    {"memcpy", "memset", "memmove", "sched_yield", "sched_getcpu"}
    | {"fmaf", "floorf", "ceilf", "rintf", "expf", "logf", "truncf"}
)

inline = numba.njit(nogil=True, error_model="numpy", boundscheck=False, fastmath=FASTMATH)
# For the additions of a sum only: LLVM keeps a partial sum per lane. Their order is fixed
# by the instruction set and the length.
inline_sum = numba.njit(
    nogil=True, error_model="numpy", boundscheck=False, fastmath={"reassoc"}
)


def compile_object(
    body: Callable[[Any, int, int, int], None], record: np.dtype, symbol: str, isa: Isa
) -> bytes:
    """Compile `body` to an object file that exports `symbol`.

    Parameters
    ----------
    body : callable
        ``body(p, scratch, begin, end)`` in Numba's language; `p` has the fields of `record`.
    record : numpy.dtype
        Aligned structured dtype of the kernel's arguments.
    symbol : str
        Name of the exported C function.
    isa : Isa
        Instruction set to generate code for.

    Raises
    ------
    PlanError
        The loop allocates or raises, which the contract of kernels forbids.
    """
    numba_module = _numba_module(body, record)
    # Numba keeps the arguments of an exception in a constant of this name.
    if any("picklebuf" in value.name for value in numba_module[0].global_variables):
        raise PlanError(f"kernel {symbol} may raise an exception")
    module = _link_entry(numba_module, symbol)
    undefined = {
        f.name for f in module.functions if f.is_declaration and not f.name.startswith("llvm.")
    }
    if not undefined <= ALLOWED_SYMBOLS:
        raise PlanError(f"kernel {symbol} needs {sorted(undefined - ALLOWED_SYMBOLS)}")
    return bytes(target_machine(isa).emit_object(module))


def _numba_module(body: Callable[..., None], record: np.dtype) -> tuple[llvm.ModuleRef, str]:
    """Return the optimised module of `body` and the name of its entry in Numba's convention."""
    compiled_body = inline(body)

    def entry(args, scratch, begin, end):
        compiled_body(record_at(args, record), scratch, begin, end)

    signature = numba.void(numba.int64, numba.int64, numba.int64, numba.int64)
    dispatcher = inline(entry)
    dispatcher.compile(signature)
    (overload,) = dispatcher.overloads.values()
    module = llvm.parse_assembly(overload.library.get_llvm_str())
    return module, overload.fndesc.llvm_func_name


def _link_entry(numba_module: tuple[llvm.ModuleRef, str], symbol: str) -> llvm.ModuleRef:
    """Export the entry under the C convention and drop what it does not reach."""
    module, entry = numba_module
    wrapper = f"""
        declare i32 @"{entry}"(ptr, ptr, i64, i64, i64, i64)
        define void @"{symbol}"(i64 %args, i64 %scratch, i64 %begin, i64 %end) {{
            %result = alloca ptr
            %error = alloca ptr
            call i32 @"{entry}"(ptr %result, ptr %error,
                                i64 %args, i64 %scratch, i64 %begin, i64 %end)
            ret void
        }}"""
    module.link_in(llvm.parse_assembly(wrapper))
    for value in (*module.functions, *module.global_variables):
        if not value.is_declaration and value.name != symbol:
            value.linkage = llvm.Linkage.internal
    builder = llvm.create_pass_builder(
        llvm.Target.from_default_triple().create_target_machine(),
        llvm.create_pipeline_tuning_options(speed_level=1),
    )
    passes = builder.getModulePassManager()
    passes.run(module, builder)
    module.verify()
    return module
