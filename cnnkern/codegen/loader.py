"""Machine code in this process: links object files and finds their functions.

Loaded code is never freed; every kernel is shape-generic and loaded once.
"""

from functools import cache

import llvmlite.binding as llvm


@cache
def _linker() -> llvm.ExecutionEngine:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(
        codemodel="jitdefault", jit=True
    )
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)


def link(symbol: str, code: bytes) -> int:
    """Load an object file and return the address of its function; one thread at a time."""
    linker = _linker()
    linker.add_object_file(llvm.ObjectFileRef.from_data(code))
    linker.finalize_object()
    return int(linker.get_function_address(symbol))
