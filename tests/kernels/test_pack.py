"""Packed panels, written out."""

from collections.abc import Callable

import numpy as np
import pytest

from cnnkern.codegen.isa import GENERIC
from cnnkern.kernels.pack import (
    BLOCK_NBYTES,
    pack_int24,
    pack_panels,
    packed_floats,
    panel_floats,
)


def test_one_narrow_panel_by_hand() -> None:
    w = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
    b = np.array([7, 8, 9], np.float32)
    packed = pack_panels(w, b, GENERIC)  # lanes of 4: one vector is enough for 3 columns
    assert packed.ravel().tolist() == [7, 8, 9, 0, 1, 2, 3, 0, 4, 5, 6, 0]


def test_a_full_panel_and_a_rest_by_hand() -> None:
    w = np.arange(10, dtype=np.float32).reshape(1, 10)  # K = 1, N = 10, NR = 8
    packed = pack_panels(w, None, GENERIC).ravel().tolist()
    full = [0] * 8 + [0, 1, 2, 3, 4, 5, 6, 7]
    assert packed == [*full, 0, 0, 0, 0, 8, 9, 0, 0]


def test_a_panel_of_24_bits_by_hand() -> None:
    """Three quarters of 8 columns stand in the upper bytes, the last one in the low bytes."""
    w = np.full((2, 8), 1 << 22, np.float32)
    w[0, :7] = 1, 2, 3, 4, 5, -6, 7
    w[:, 7] = 0x123456, -1  # below 1 << 21: counted in quarters
    b = np.arange(8, dtype=np.float32)
    packed = pack_int24(w, b, GENERIC)
    panel, scales = packed[: 4 * (8 + 2 * 6)].view(np.int32), packed[-32:].view(np.float32)
    assert (256 * scales).tolist() == [1] * 7 + [0.25]
    assert (panel[:8].view(np.float32) * scales).tolist() == b.tolist()
    words = panel[8:14].reshape(3, 2)
    assert (words >> 8).ravel().tolist() == [1, 2, 3, 4, 5, -6]
    assert (words & 255).tolist() == [
        [number >> bits & 255 for number in (7, 4 * 0x123456)] for bits in (0, 8, 16)
    ]


@pytest.mark.parametrize("N", [1, 3, 4, 5, 7, 8, 9, 12, 13, 16, 19])
def test_sizes(N: int) -> None:
    w = np.ones((3, N), np.float32)
    packed = pack_panels(w, np.ones(N, np.float32), GENERIC)
    assert packed.dtype == np.float32
    assert packed.size == packed_floats(3, N, GENERIC)
    assert packed.sum() == 4 * N
    assert panel_floats(3, GENERIC) == packed_floats(3, GENERIC.tile_columns, GENERIC)


class Rows:
    """A matrix that can only be read in slices of rows."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.shape = values, values.shape
        self.longest = 0

    def __getitem__(self, rows: slice) -> np.ndarray:
        self.longest = max(self.longest, rows.stop - rows.start)
        return self.values[rows]


@pytest.mark.parametrize("N", [8, 19])
@pytest.mark.parametrize("pack", [pack_panels, pack_int24])
def test_a_matrix_is_read_in_blocks(
    monkeypatch: pytest.MonkeyPatch, pack: Callable[..., np.ndarray], N: int
) -> None:
    w = np.random.default_rng(0).standard_normal((11, N), np.float32)
    b = np.arange(N, dtype=np.float32)
    whole = pack(w, b, GENERIC)
    assert w.nbytes < BLOCK_NBYTES
    monkeypatch.setattr("cnnkern.kernels.pack.BLOCK_NBYTES", 4 * 4 * N)
    rows = Rows(w)
    np.testing.assert_array_equal(pack(rows, b, GENERIC), whole)
    assert rows.longest == 4
