"""Memory for tensors and packed weights: where it begins, and what shares a slab."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest

from cnnkern.kernels.memory import (
    ALIGNMENT,
    HUGE_PAGE,
    LEAST_NBYTES,
    MOST_NBYTES,
    SLAB_NBYTES,
    Slabs,
    aligned,
    aligned_empty,
    side_by_side,
)


def begin(array: np.ndarray) -> int:
    return array.ctypes.data


def end(array: np.ndarray) -> int:
    return array.ctypes.data + array.nbytes


@pytest.mark.parametrize("nbytes", [1, 63, 64, 65, HUGE_PAGE, 2 * HUGE_PAGE + 1])
def test_memory_is_aligned(nbytes: int) -> None:
    memory = aligned_empty(nbytes)
    assert begin(memory) % ALIGNMENT == 0
    assert memory.nbytes == nbytes
    memory[:] = 255  # all of it can be written


def test_large_memory_begins_with_a_huge_page() -> None:
    assert begin(aligned_empty(HUGE_PAGE)) % HUGE_PAGE == 0


def test_an_aligned_copy_is_flat() -> None:
    assert aligned(np.arange(6.0).reshape(2, 3).T).tolist() == [0, 3, 1, 4, 2, 5]


def test_what_is_too_large_is_a_memory_error() -> None:
    with pytest.raises(MemoryError):
        aligned_empty(1 << 60)


def test_pieces_stand_side_by_side() -> None:
    first, none, last = side_by_side(65, 0, 7)
    assert [piece.nbytes for piece in (first, none, last)] == [65, 0, 7]
    assert begin(first) % ALIGNMENT == 0
    assert begin(last) == begin(first) + 128


def slabs_of_a_large_model() -> Slabs:
    slabs = Slabs()
    slabs.empty(HUGE_PAGE)
    return slabs


def test_a_small_model_takes_no_slab() -> None:
    slabs = Slabs()
    early = [slabs.empty(HUGE_PAGE // 4) for _ in range(4)]
    later = slabs.empty(LEAST_NBYTES)
    assert begin(later) % HUGE_PAGE == 0
    assert all(end(a) <= begin(later) or begin(a) >= begin(later) + SLAB_NBYTES for a in early)


def test_arrays_of_a_slab_follow_each_other() -> None:
    slabs = slabs_of_a_large_model()
    first, last = slabs.empty(LEAST_NBYTES + 1), slabs.empty(LEAST_NBYTES)
    assert begin(first) % HUGE_PAGE == 0
    assert begin(last) == begin(first) + LEAST_NBYTES + ALIGNMENT


def test_small_and_very_large_arrays_take_no_part_of_a_slab() -> None:
    slabs = slabs_of_a_large_model()
    first = slabs.empty(LEAST_NBYTES)
    others = [slabs.empty(nbytes) for nbytes in (0, LEAST_NBYTES - 1, MOST_NBYTES + 1)]
    assert begin(slabs.empty(LEAST_NBYTES)) == end(first)
    assert [array.nbytes for array in others] == [0, LEAST_NBYTES - 1, MOST_NBYTES + 1]


def test_what_is_left_of_a_slab_is_filled_later() -> None:
    slabs = Slabs()
    large = [slabs.empty(MOST_NBYTES) for _ in range(SLAB_NBYTES // MOST_NBYTES - 1)]
    slabs.empty(MOST_NBYTES - LEAST_NBYTES)
    other = slabs.empty(MOST_NBYTES)  # finds no room
    assert begin(slabs.empty(LEAST_NBYTES)) == begin(large[0]) + SLAB_NBYTES - LEAST_NBYTES
    assert begin(slabs.empty(LEAST_NBYTES)) == end(other)


def test_threads_share_slabs_and_no_bytes() -> None:
    slabs, count = slabs_of_a_large_model(), 400
    with ThreadPoolExecutor(8) as pool:
        arrays = list(pool.map(slabs.empty, [LEAST_NBYTES + 64 * i for i in range(count)]))
    arrays.sort(key=begin)
    assert all(end(a) <= begin(b) for a, b in pairwise(arrays))
