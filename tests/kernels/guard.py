"""Memory between two pages that must not be touched: a kernel that leaves it is killed."""

from __future__ import annotations

import ctypes
import mmap

import numpy as np

from cnnkern.engine import workspace
from cnnkern.plan import lowering

PAGE = mmap.PAGESIZE
PROT_NONE = 0
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def guarded_empty(nbytes: int, at_end: bool) -> np.ndarray:
    """Return NaN bytes that end, or begin, where a guard page begins or ends."""
    room = -(-nbytes // PAGE) * PAGE
    memory = np.frombuffer(mmap.mmap(-1, room + 2 * PAGE), np.uint8)
    start = memory.ctypes.data
    for guard in (start, start + PAGE + room):
        if _libc.mprotect(guard, PAGE, PROT_NONE):
            raise OSError(ctypes.get_errno(), "mprotect")
    first = PAGE + (room - nbytes if at_end else 0)
    inside = memory[first : first + nbytes]
    inside[:] = 0xFF
    return inside


def install(at_end: bool) -> None:
    """Let arenas, scratch memory, tables and packed weights stand between guard pages."""
    for module in (lowering, workspace):
        module.aligned_empty = lambda nbytes: guarded_empty(nbytes, at_end)
