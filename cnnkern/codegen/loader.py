"""Machine code in this process: links object files and finds their functions.

Loaded code is never freed; every kernel is shape-generic and loaded once.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from . import elf

if TYPE_CHECKING:
    import llvmlite.binding as llvm


def link(symbol: str, code: bytes) -> int:
    """Load an object file and return the address of its function; one thread at a time."""
    try:
        return elf.place(symbol, code)
    except elf.Unsupported:
        return link_by_llvm(symbol, code)


def link_by_llvm(symbol: str, code: bytes) -> int:
    """Load an object file of any platform with LLVM's linker."""
    import llvmlite.binding as llvm

    linker = _linker()
    linker.add_object_file(llvm.ObjectFileRef.from_data(code))
    linker.finalize_object()
    return int(linker.get_function_address(symbol))


@cache
def _linker() -> llvm.ExecutionEngine:
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(
        codemodel="jitdefault", jit=True
    )
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
