"""Memory that begins on a cache line, which is also the widest vector.

Large memory is in huge pages where the system has any: a core knows few pages at a time, and
its prefetch ends with each.
"""

import mmap
from collections import deque
from collections.abc import Callable
from contextlib import suppress

import numpy as np

from ..codegen.isa import LINE

Empty = Callable[[int], np.ndarray]  # returns as many uninitialised bytes

ALIGNMENT = LINE
HUGE_PAGE = 2 << 20
SLAB_NBYTES = 256 << 20  # of addresses: pages that nobody writes take no memory
# Smaller arrays are their own, and so are larger ones, which fill many pages.
LEAST_NBYTES, MOST_NBYTES = 64 << 10, 16 << 20


def whole_lines(nbytes: int) -> int:
    """Return `nbytes` rounded up to a multiple of ALIGNMENT."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def aligned_empty(nbytes: int) -> np.ndarray:
    """Return uninitialised bytes that begin at a multiple of ALIGNMENT."""
    if nbytes >= HUGE_PAGE and hasattr(mmap, "MADV_HUGEPAGE"):
        return _in_huge_pages(nbytes)
    raw = np.empty(nbytes + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + nbytes]


def _in_huge_pages(nbytes: int) -> np.ndarray:
    """Return bytes in huge pages but for the last ones, which do not fill one."""
    try:
        memory = mmap.mmap(-1, nbytes + HUGE_PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"{nbytes} bytes") from error
    raw = np.frombuffer(memory, np.uint8)
    start = -raw.ctypes.data % HUGE_PAGE
    with suppress(OSError):  # a system without huge pages
        memory.madvise(mmap.MADV_HUGEPAGE, start, nbytes // HUGE_PAGE * HUGE_PAGE)
    return raw[start : start + nbytes]


def side_by_side(*sizes: int) -> list[np.ndarray]:
    """Return uninitialised bytes of these sizes in one piece of memory, each like the above."""
    ends = np.cumsum([whole_lines(nbytes) for nbytes in sizes])
    pieces = np.split(aligned_empty(int(ends[-1])), ends[:-1])
    return [piece[:nbytes] for piece, nbytes in zip(pieces, sizes, strict=True)]


class Slabs:
    """Memory for arrays that live and die together, side by side in huge pages."""

    def __init__(self) -> None:
        self._rests: deque[np.ndarray] = deque()  # of slabs, the oldest first
        self._n_asked = 0  # bytes so far

    def empty(self, nbytes: int) -> np.ndarray:
        """Return uninitialised bytes that begin at a multiple of ALIGNMENT."""
        if not LEAST_NBYTES <= nbytes <= MOST_NBYTES or self._is_early(nbytes):
            return aligned_empty(nbytes)
        rest = self._take_rest(nbytes)
        self._rests.append(rest[whole_lines(nbytes) :])
        return rest[:nbytes]

    def _is_early(self, nbytes: int) -> bool:
        """Tell whether all arrays so far fill no huge page: one takes longer to clear."""
        self._n_asked += nbytes
        return self._n_asked <= HUGE_PAGE

    def _take_rest(self, nbytes: int) -> np.ndarray:
        """Return a slab, or what is left of one, that no other thread gets meanwhile."""
        too_small: list[np.ndarray] = []
        while True:
            try:
                rest = self._rests.popleft()
            except IndexError:
                rest = aligned_empty(SLAB_NBYTES)
            if rest.nbytes >= nbytes:
                self._rests.extendleft(reversed(too_small))
                return rest
            too_small.append(rest)


def aligned(array: np.ndarray) -> np.ndarray:
    """Return the elements of `array`, flat and aligned: itself where it is so, else a copy."""
    if array.flags.c_contiguous and array.ctypes.data % ALIGNMENT == 0:
        return array.reshape(-1)
    copy = aligned_empty(array.nbytes).view(array.dtype)
    copy.reshape(array.shape)[...] = array
    return copy
