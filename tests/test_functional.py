"""The kernels on plain arrays: as the loops of the same name, and which plans are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import cnnkern
from cnnkern import functional, naive
from cnnkern.graph import Array


@pytest.fixture(autouse=True)
def _no_plans() -> Iterator[None]:
    functional._kept_model.cache_clear()
    yield
    functional._kept_model.cache_clear()


def kept() -> int:
    return functional._kept_model.cache_info().currsize


RNG = np.random.default_rng(5)
IMAGES = RNG.standard_normal((2, 9, 7, 4), np.float32)
FILTERS = RNG.standard_normal((3, 2, 4, 6), np.float32)
BIAS = RNG.standard_normal(6, np.float32)
CALLS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("conv2d", (IMAGES, FILTERS), {}),
    ("conv2d", (IMAGES, FILTERS, BIAS), {"strides": (2, 1), "padding": "same"}),
    ("conv2d", (IMAGES, FILTERS, BIAS), {"dilation_rate": (1, 2), "activation": "relu"}),
    ("conv2d", (IMAGES, FILTERS[:, :, :2]), {"groups": 2, "activation": "sigmoid"}),
    ("im2col", (IMAGES, 3), {}),
    ("im2col", (IMAGES, (2, 3)), {"strides": 2, "padding": "same", "dilation_rate": 1}),
    ("max_pool2d", (IMAGES,), {}),
    ("max_pool2d", (IMAGES, (3, 2)), {"strides": (1, 2), "padding": "same"}),
    ("average_pool2d", (IMAGES, 3), {"strides": 2, "padding": "same"}),
    ("dense", (IMAGES[0, 0], FILTERS[0, 0]), {}),
    ("dense", (IMAGES[0, 0], FILTERS[0, 0], BIAS), {"activation": "tanh"}),
    ("relu", (IMAGES,), {}),
    ("sigmoid", (IMAGES,), {}),
    ("tanh", (IMAGES,), {}),
    ("softmax", (IMAGES,), {}),
    ("softmax", (IMAGES,), {"axis": 1}),
    ("relu", (np.float32(-1),), {}),
    ("relu", ([1, -2, 3],), {}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "args", "options"), CALLS, ids=[f"{c[0]}-{i}" for i, c in enumerate(CALLS)]
)
def test_as_the_loops(name: str, args: tuple[Any, ...], options: dict[str, Any]) -> None:
    expected = getattr(naive, name)(*args, **options)
    for _ in range(2):  # planned, then as kept
        y = getattr(cnnkern, name)(*args, **options)
        assert y.dtype == np.float32
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


def test_every_function_has_its_loops() -> None:
    functions = {n for n in cnnkern.__all__ if n.islower() and hasattr(naive, n)}
    assert {name for name, _, _ in CALLS} == functions


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
