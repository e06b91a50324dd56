"""The kernels on plain arrays: which plans are kept. What they compute is in test_naive.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

import cnnkern
from cnnkern import functional
from cnnkern.graph import Array


@pytest.fixture(autouse=True)
def _no_plans() -> Iterator[None]:
    functional._kept_model.cache_clear()
    yield
    functional._kept_model.cache_clear()


def kept() -> int:
    return functional._kept_model.cache_info().currsize


def test_an_op_without_weights_is_planned_once_per_shape() -> None:
    x = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
    for _ in range(3):
        np.testing.assert_array_equal(cnnkern.relu(x), np.maximum(x, 0))
        x -= 0.25  # the plan holds no values
    assert kept() == 1
    cnnkern.relu(x[:2])
    cnnkern.tanh(x)
    assert kept() == 3


def test_equal_options_share_a_plan() -> None:
    x = np.arange(32, dtype=np.float32).reshape(1, 4, 4, 2)
    cnnkern.max_pool2d(x, 2)
    cnnkern.max_pool2d(x, (2, 2), strides=2)
    assert kept() == 1
    cnnkern.max_pool2d(x, 2, strides=1)
    cnnkern.average_pool2d(x, 2)
    assert kept() == 3


@pytest.mark.parametrize(
    "call",
    [
        lambda w: cnnkern.dense(np.ones((1, 2), np.float32), w),
        lambda w: cnnkern.conv2d(np.ones((1, 3, 3, 2), np.float32), w[None, None]),
    ],
)
def test_weights_are_not_kept(call: Callable[[Array], Array]) -> None:
    w = np.ones((2, 3), np.float32)
    assert call(w).max() == 2
    w *= 5
    assert call(w).max() == 10
    assert kept() == 0


def test_memory_of_large_arrays_is_not_kept() -> None:
    x = np.ones(functional.KEPT_NBYTES // 4 + 1, np.float32)
    np.testing.assert_array_equal(cnnkern.relu(x), x)
    assert kept() == 0
