"""Memory that begins on a cache line, which is also the widest vector."""

import numpy as np

from ..codegen.isa import LINE

ALIGNMENT = LINE


def whole_lines(nbytes: int) -> int:
    """Return `nbytes` rounded up to a multiple of ALIGNMENT."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def aligned_empty(nbytes: int) -> np.ndarray:
    """Return uninitialised bytes that begin at a multiple of ALIGNMENT."""
    raw = np.empty(nbytes + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + nbytes]


def aligned_floats(count: int) -> np.ndarray:
    """Return uninitialised float32 that begin at a multiple of ALIGNMENT."""
    return aligned_empty(4 * count).view(np.float32)


def aligned(array: np.ndarray) -> np.ndarray:
    """Return the elements of `array`, flat and aligned: itself where it is so, else a copy."""
    if array.flags.c_contiguous and array.ctypes.data % ALIGNMENT == 0:
        return array.reshape(-1)
    copy = aligned_empty(array.nbytes).view(array.dtype)
    copy.reshape(array.shape)[...] = array
    return copy
