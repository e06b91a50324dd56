"""Memory between pages that must not be touched: a kernel that leaves its buffer is killed."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterable

import numpy as np

import cnnkern.plan
import support
from cnnkern.engine import workspace
from cnnkern.kernels import memory
from cnnkern.plan.layout import Lifetime

PAGE = mmap.PAGESIZE
PROT_NONE = 0
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


class Guard:
    """Puts every storage between two guard pages, at the end or the begin of its pages."""

    def __init__(self, at_end: bool) -> None:
        self.at_end = at_end
        self.arena_nbytes = 0
        self.inside_arena: list[int] = []  # offsets of the guard pages between storages

    def install(self) -> None:
        """Guard storages, scratch memory, tables and packed weights from here on."""
        cnnkern.plan.place = self.place
        workspace.side_by_side = lambda *sizes: [self.empty(nbytes) for nbytes in sizes]
        memory.Slabs.empty = lambda slabs, nbytes: self.empty(nbytes)
        support.poison = lambda arena: None  # `empty` did, and guard pages cannot be written

    def place(self, lifetimes: Iterable[Lifetime]) -> tuple[dict[str, int], int]:
        """Return offsets like plan.layout.place, for an arena that shares no memory."""
        offsets, start, self.inside_arena = {}, 0, []
        for item in lifetimes:
            offsets[item.storage] = start + self._first(item.nbytes)
            self.inside_arena.append(start + pages(item.nbytes))
            start += pages(item.nbytes) + PAGE
        self.arena_nbytes = start
        return offsets, start

    def empty(self, nbytes: int) -> np.ndarray:
        """Return NaN bytes that end, or begin, where a guard page begins or ends."""
        is_arena = nbytes == self.arena_nbytes > 0
        mapped = np.frombuffer(mmap.mmap(-1, pages(nbytes) + 2 * PAGE), np.uint8)
        mapped[:] = 0xFF
        first = PAGE + self._first(nbytes)
        guards = [0, PAGE + pages(nbytes)]
        guards += [first + offset for offset in self.inside_arena if is_arena]
        for guard in guards:
            if _libc.mprotect(mapped.ctypes.data + guard, PAGE, PROT_NONE):
                raise OSError(ctypes.get_errno(), "mprotect")
        return mapped[first : first + nbytes]

    def _first(self, nbytes: int) -> int:
        return pages(nbytes) - nbytes if self.at_end else 0


def pages(nbytes: int) -> int:
    """Return the bytes of the pages that hold `nbytes`."""
    return -(-nbytes // PAGE) * PAGE
