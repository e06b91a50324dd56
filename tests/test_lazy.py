"""Lazy arrays behave like the array that they stand for."""

import pickle

import numpy as np
import pytest

from cnnkern.lazy import LazyArray, Scaled
from cnnkern.ops.conv import Conv
from cnnkern.ops.dense import Dense
from cnnkern.ops.transpose import ConvTranspose

W = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
LAST, MIDDLE = np.float32([1, 2, 3, -1]), np.float32([[2], [3], [5]])
FIRST = np.float32([[[1]], [[-2]]])


def test_scaled_by_hand() -> None:
    scaled = Scaled(np.float32([[1, 2], [3, 4]]), np.float32([10, 100]))
    assert np.asarray(scaled).tolist() == [[10, 200], [30, 400]]
    assert (scaled.shape, scaled.ndim, scaled.size) == ((2, 2), 2, 4)
    assert scaled.dtype == np.float32


@pytest.mark.parametrize("factor", [LAST, MIDDLE, FIRST], ids=["last", "middle", "first"])
@pytest.mark.parametrize("depth", [1, 2])
def test_elements_slices_and_shapes(factor: np.ndarray, depth: int) -> None:
    lazy: LazyArray = Scaled(W.copy(), factor)
    expected = W * factor
    if depth == 2:
        lazy, expected = Scaled(lazy, LAST), expected * LAST
    for _ in range(2):  # nothing is scaled twice
        np.testing.assert_array_equal(lazy.read(), expected)
        np.testing.assert_array_equal(lazy[1:2], expected[1:2])
        np.testing.assert_array_equal(lazy[0:9], expected)
    for shape in ((-1, 4), (6, 4), (1, 2, 3, 4), (2, 12), (24,)):
        np.testing.assert_array_equal(lazy.reshape(*shape), expected.reshape(shape))


def test_a_matrix_of_the_last_axis_stays_lazy() -> None:
    assert isinstance(Scaled(W, LAST).reshape(-1, 4), LazyArray)


def test_a_pickle_holds_the_array() -> None:
    restored = pickle.loads(pickle.dumps(Scaled(W, LAST)))
    assert type(restored) is np.ndarray
    np.testing.assert_array_equal(restored, W * LAST)


def test_elements_cannot_be_shared() -> None:
    assert np.asarray(Scaled(W, LAST), dtype=np.float64).dtype == np.float64
    with pytest.raises(ValueError, match="no elements in memory"):
        Scaled(W, LAST).__array__(copy=False)


@pytest.mark.parametrize(
    "op",
    [
        Conv(W.reshape(1, 2, 3, 4)),
        ConvTranspose(W.reshape(1, 2, 4, 3)),
        Dense(W.reshape(6, 4)),
    ],
    ids=lambda op: type(op).__name__,
)
def test_ops_take_them(op: Conv | ConvTranspose | Dense) -> None:
    scaled = op.scaled(LAST, np.float32([1, 0, 0, 2]))
    x = np.ones((1, 6) if isinstance(op, Dense) else (1, 4, 4, 3), np.float32)
    expected = op.reference(x) * LAST + np.float32([1, 0, 0, 2])
    np.testing.assert_allclose(scaled.reference(x), expected)
    assert scaled.n_params == op.n_params + 4
