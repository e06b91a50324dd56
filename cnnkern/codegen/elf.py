"""Machine code in this process without LLVM: puts an x86-64 ELF object into memory.

LLVM's libraries take longer to load and more memory than all kernels together. The objects
need little of it: they are made for the large code model, so that only addresses of 64 bits
are left to fill in (System V ABI, AMD64 supplement, 4.4.1). What needs more is refused.
"""

import ctypes
import mmap
import struct
from collections.abc import Iterator, Mapping
from functools import cache
from typing import NamedTuple

_MAGIC = b"\x7fELF\x02\x01\x01"  # 64 bits, little-endian, version 1
_HEADER = struct.Struct("<16s2HI3QI6H")
_SECTION = struct.Struct("<2I4Q2I2Q")
_SYMBOL = struct.Struct("<I2BH2Q")
_RELOCATION = struct.Struct("<2Qq")
_RELOCATABLE, _X86_64 = 1, 62  # e_type, e_machine
_PROGBITS, _SYMTAB, _RELA, _NOBITS = 1, 2, 4, 8  # sh_type
_WRITE, _ALLOC, _EXECUTE = 1, 2, 4  # sh_flags
_UNDEFINED = 0  # st_shndx
_R_X86_64_64 = 1


class Unsupported(Exception):
    """The object needs what this module does not do."""


class _Section(NamedTuple):
    name: int
    kind: int
    flags: int
    address: int
    offset: int
    nbytes: int
    link: int
    info: int
    alignment: int
    entry_nbytes: int


class _Symbol(NamedTuple):
    name: str
    section: int
    value: int


def place(symbol: str, code: bytes) -> int:
    """Put an object into memory for good and return the address of a function in it.

    Raises
    ------
    Unsupported
        It is no x86-64 ELF object, has variables, relocations of other kinds, or calls
        functions that are not in the C library.
    """
    try:
        sections = _sections(code)
        offsets, executable_nbytes, nbytes = _layout(sections)
        symbols = _symbols(code, sections)
        (entry,) = (s for s in symbols if s.name == symbol and s.section != _UNDEFINED)
        base = _map(nbytes)
        image = bytearray(nbytes)
        for index, at in offsets.items():
            image[at : at + sections[index].nbytes] = _content(code, sections[index])
        for at, target, addend in _relocations(code, sections, offsets):
            value = _address(symbols[target], base, offsets) + addend
            struct.pack_into("<Q", image, at, value & (1 << 64) - 1)
        ctypes.memmove(base, bytes(image), nbytes)
        _protect(base, executable_nbytes, mmap.PROT_READ | mmap.PROT_EXEC)
        _protect(base + executable_nbytes, nbytes - executable_nbytes, mmap.PROT_READ)
        return _address(entry, base, offsets)
    except (struct.error, LookupError, AttributeError, OSError, ValueError) as error:
        raise Unsupported(f"{symbol}: {error}") from error


def _sections(code: bytes) -> list[_Section]:
    identity, kind, machine, *_, at, _, _, _, _, entry_nbytes, count, _ = _HEADER.unpack_from(
        code
    )
    if not identity.startswith(_MAGIC) or (kind, machine) != (_RELOCATABLE, _X86_64):
        raise ValueError("not a relocatable x86-64 object")
    return [_Section(*_SECTION.unpack_from(code, at + i * entry_nbytes)) for i in range(count)]


def _layout(sections: list[_Section]) -> tuple[dict[int, int], int, int]:
    """Return each loaded section's place, the bytes of code, and the bytes of all.

    Code stands in front, constants on pages of their own.
    """
    loaded = [i for i, s in enumerate(sections) if s.flags & _ALLOC and s.nbytes]
    if any(sections[i].flags & _WRITE or sections[i].kind == _NOBITS for i in loaded):
        raise ValueError("the object has variables")
    # Other kinds describe the stack to debuggers and exception handlers.
    loaded = [i for i in loaded if sections[i].kind == _PROGBITS]
    offsets: dict[int, int] = {}
    end = executable_nbytes = 0
    for is_code in (True, False):
        for i in loaded:
            if bool(sections[i].flags & _EXECUTE) == is_code:
                offsets[i] = _round_up(end, sections[i].alignment)
                end = offsets[i] + sections[i].nbytes
        end = _round_up(end, mmap.PAGESIZE)
        executable_nbytes = end if is_code else executable_nbytes
    return offsets, executable_nbytes, end


def _symbols(code: bytes, sections: list[_Section]) -> list[_Symbol]:
    (table,) = (s for s in sections if s.kind == _SYMTAB)
    names = _content(code, sections[table.link])
    symbols = []
    for name, _, _, section, value, _ in _SYMBOL.iter_unpack(_content(code, table)):
        text = names[name : names.index(b"\0", name)].decode()
        symbols.append(_Symbol(text, section, value))
    return symbols


def _relocations(
    code: bytes, sections: list[_Section], offsets: Mapping[int, int]
) -> Iterator[tuple[int, int, int]]:
    """Yield where an address must be written, the number of its symbol, and what to add."""
    for section in sections:
        if section.kind == _RELA and section.info in offsets:
            for at, info, addend in _RELOCATION.iter_unpack(_content(code, section)):
                if info & 0xFFFFFFFF != _R_X86_64_64:
                    raise ValueError(f"relocation of kind {info & 0xFFFFFFFF}")
                yield offsets[section.info] + at, info >> 32, addend


def _address(symbol: _Symbol, base: int, offsets: Mapping[int, int]) -> int:
    if symbol.section == _UNDEFINED:
        function = ctypes.cast(getattr(_c_library(), symbol.name), ctypes.c_void_p)
        return int(function.value or 0)
    return base + offsets[symbol.section] + symbol.value


def _content(code: bytes, section: _Section) -> bytes:
    content = code[section.offset : section.offset + section.nbytes]
    if len(content) < section.nbytes:
        raise ValueError("the object is truncated")
    return content


def _round_up(offset: int, alignment: int) -> int:
    return -(-offset // max(alignment, 1)) * max(alignment, 1)


@cache
def _c_library() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _map(nbytes: int) -> int:
    """Return the address of new pages; unlike `mmap.mmap` they outlive the interpreter."""
    function = _c_library().mmap
    function.restype = ctypes.c_void_p
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
    access, kind = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    base = function(None, nbytes, access, kind, -1, 0)
    if base is None or base == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "no memory for machine code")
    return int(base)


def _protect(base: int, nbytes: int, access: int) -> None:
    function = _c_library().mprotect
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    if nbytes and function(base, nbytes, access):
        raise OSError(ctypes.get_errno(), "pages cannot be made executable")
