"""Objects in memory without LLVM: the same functions, or a refusal and LLVM's linker."""

import ctypes
import platform
import struct
import sys
from collections.abc import Callable

import numpy as np
import pytest

from cnnkern.codegen import cache, elf, loader
from cnnkern.codegen.isa import GENERIC, best
from cnnkern.codegen.jit import compile_object
from cnnkern.codegen.vector import floats
from cnnkern.kernels import KERNELS, address, variant
from cnnkern.kernels.records import PARAMETERS
from support import run_python

pytestmark = pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"), reason="LLVM links here"
)
SYMBOL = "test_multiply__generic"


def multiply(p, x_row, y_row, n):  # type: ignore[no-untyped-def]
    x, y = floats(x_row), floats(y_row)
    for i in range(n):
        y[i] = p.a * x[i] + np.float32(0.5)


@pytest.fixture(scope="module")
def code() -> bytes:
    return compile_object(multiply, PARAMETERS, SYMBOL, GENERIC)


def run(function_address: int) -> list[float]:
    record = np.zeros(1, PARAMETERS)
    record["a"] = 3
    x, y = np.float32([1, 2, 3, 4, 5]), np.full(6, -1, np.float32)
    function = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)(function_address)
    function(record.ctypes.data, x.ctypes.data, y.ctypes.data, 5)
    return [float(value) for value in y]


@pytest.mark.parametrize("link", [elf.place, loader.link, loader.link_by_llvm])
def test_a_loop_with_a_constant(code: bytes, link: Callable[[str, bytes], int]) -> None:
    assert run(link(SYMBOL, code)) == [3.5, 6.5, 9.5, 12.5, 15.5, -1]


@pytest.mark.parametrize("name", KERNELS)
def test_no_kernel_needs_llvm(name: str) -> None:
    address(name, best())
    object_code = cache.load(variant(name, best()))
    assert object_code is not None
    assert elf.place(variant(name, best()), object_code)


def test_pages_are_never_writable_and_executable(code: bytes) -> None:
    function = elf.place(SYMBOL, code)
    with open("/proc/self/maps") as file:
        for line in file:
            span, access = line.split()[:2]
            begin, end = (int(bound, 16) for bound in span.split("-"))
            if begin <= function < end:
                assert access == "r-xp"


def section_headers(code: bytes) -> range:
    (start,) = struct.unpack_from("<Q", code, 40)
    nbytes, count = struct.unpack_from("<2H", code, 58)
    return range(start, start + nbytes * count, nbytes)


def with_writable_section(code: bytes) -> bytes:
    changed = bytearray(code)
    for at in section_headers(code):
        flags = struct.unpack_from("<Q", code, at + 8)[0]
        struct.pack_into("<Q", changed, at + 8, flags | (flags >> 1 & 1))
    return bytes(changed)


def with_other_relocations(code: bytes) -> bytes:
    changed = bytearray(code)
    for at in section_headers(code):
        (kind,), (offset, nbytes) = (
            struct.unpack_from("<I", code, at + 4), struct.unpack_from("<2Q", code, at + 24)
        )  # fmt: skip
        if kind == 4:  # SHT_RELA
            for entry in range(offset, offset + nbytes, 24):
                struct.pack_into("<I", changed, entry + 8, 2)  # R_X86_64_PC32
    return bytes(changed)


@pytest.mark.parametrize(
    "change",
    [
        lambda code: b"",
        lambda code: b"\xcf\xfa\xed\xfe" + code[4:],
        lambda code: code[:18] + b"\xb7" + code[19:],  # AArch64
        lambda code: code[: len(code) // 2],
        with_writable_section,
        with_other_relocations,
    ],
    ids=["empty", "Mach-O", "AArch64", "truncated", "variables", "relocations"],
)
def test_refuses_what_it_does_not_know(code: bytes, change: Callable[[bytes], bytes]) -> None:
    with pytest.raises(elf.Unsupported):
        elf.place(SYMBOL, change(code))


def test_refuses_a_missing_function(code: bytes) -> None:
    with pytest.raises(elf.Unsupported):
        elf.place("other", code)


def test_llvm_links_what_is_refused(code: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(symbol: str, code: bytes) -> int:
        raise elf.Unsupported(symbol)

    monkeypatch.setattr(elf, "place", refuse)
    assert run(loader.link(SYMBOL, code))[0] == 3.5


WARM = """
import sys
from cnnkern.engine import Model
from support import images, small_cnn
Model(small_cnn())(images(2))
print("llvmlite" in sys.modules)
"""


def test_a_warm_process_does_not_import_llvm() -> None:
    run_python(WARM)
    assert run_python(WARM) == "False"


def test_linux_tells_the_instruction_sets() -> None:
    """LLVM, which takes long to import, finds the same ones."""
    code = """
import sys
from cnnkern.codegen import isa
names = [i.name for i in isa.available()]
assert "llvmlite" not in sys.modules
isa._cpuinfo = dict
for function in (isa.cpu_features, isa.available):
    function.cache_clear()
assert [i.name for i in isa.available()] == names, names
assert "llvmlite" in sys.modules
"""
    run_python(code, NUMBA_CPU_NAME=None)
