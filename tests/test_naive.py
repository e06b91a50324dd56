"""Plain Python loops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cnnkern import naive
from cnnkern.errors import DTypeError, ShapeError
from cnnkern.graph import Array, as_array
from cnnkern.ops.activation import Activation
from cnnkern.ops.conv import Conv
from cnnkern.ops.layout import Flatten
from cnnkern.ops.merge import Add
from cnnkern.ops.pool import AveragePool, MaxPool
from support import graph_of, images, small_cnn

# A trained model's printed filter and one of its images; its answer is worked out below.
FILTER = as_array(
    [
        [0.1985341, 0.27599618, 0.20717546],
        [-0.41702896, -0.21289168, 0.12980239],
        [-0.14379142, 0.55261314, -0.49706236],
    ]
).reshape(3, 3, 1, 1)
IMAGE = as_array([[1, 2, 3, 3], [2, 3, 4, 5], [4, 5, 6, 7], [1, 3, 4, 6]]) / np.float32(9)


def gaussian(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def test_conv2d_by_hand() -> None:
    x = as_array([[1, 2, 3], [4, 5, 6], [7, 8, 9]]).reshape(1, 3, 3, 1)
    w = as_array([[1, 10], [100, 1000]]).reshape(2, 2, 1, 1)
    y = naive.conv2d(x, w, [0.5])
    assert y[0, :, :, 0].tolist() == [[5421.5, 6532.5], [8754.5, 9865.5]]  # 1 + 20 + 400 + 5000


def test_trained_model_by_hand() -> None:
    features = naive.conv2d(IMAGE.reshape(1, 4, 4, 1), FILTER, [0.04198299])
    expected = [0.00021136, -0.01243627, 0.00040491, -0.0604292]
    np.testing.assert_allclose(features.ravel(), expected, atol=2e-8)
    pooled = naive.max_pool2d(naive.relu(features))
    y = naive.dense(pooled.reshape(1, 1), [[1.5805249]], [-0.28272304], activation="sigmoid")
    assert y[0, 0] == pytest.approx(0.42994316, abs=3e-8)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"strides": 2},
        {"strides": (1, 3)},
        {"dilation_rate": (2, 1)},
        {"groups": 2},
        {"activation": "tanh"},
    ],
    ids=str,
)
def test_conv2d_equals_reference(padding: str, options: dict[str, Any]) -> None:
    x, b = gaussian(2, 6, 5, 4), gaussian(6, seed=1)
    w = gaussian(3, 2, 4 // options.get("groups", 1), 6, seed=2)
    fields = {**options, "strides": pair(options.get("strides", 1))}
    if "activation" in options:
        fields["activation"] = Activation(options["activation"])
    op = Conv(w, b, padding=padding, **fields)
    y = naive.conv2d(x, w, b, padding=padding, **options)
    np.testing.assert_allclose(y, op.reference(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("options", [{}, {"strides": 2}, {"dilation_rate": 2}], ids=str)
def test_im2col_times_filters_is_conv2d(padding: str, options: dict[str, Any]) -> None:
    x, w = gaussian(2, 6, 5, 3), gaussian(2, 3, 3, 4, seed=1)
    rows = naive.im2col(x, (2, 3), padding=padding, **options)
    y = naive.conv2d(x, w, padding=padding, **options)
    assert rows.shape == (y.size // 4, 2 * 3 * 3)
    product = naive.dense(rows, w.reshape(-1, 4))
    np.testing.assert_allclose(product.reshape(y.shape), y, rtol=1e-5, atol=1e-5)


def test_im2col_by_hand() -> None:
    x = as_array([[1, 2], [3, 4]]).reshape(1, 2, 2, 1)
    rows = naive.im2col(x, 2, padding="same")
    assert rows.tolist() == [[1, 2, 3, 4], [2, 0, 4, 0], [3, 4, 0, 0], [4, 0, 0, 0]]


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(("size", "strides"), [(2, None), (3, 1), ((1, 2), (2, 1)), (2, 3)])
def test_pooling_equals_reference(padding: str, size: Any, strides: Any) -> None:
    x = gaussian(2, 5, 6, 3)
    steps = pair(size if strides is None else strides)
    for compute, op in ((naive.max_pool2d, MaxPool), (naive.average_pool2d, AveragePool)):
        y = compute(x, size, strides, padding)
        expected = op(pair(size), steps, padding).reference(x)
        np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-6)


def test_activations_by_hand() -> None:
    x = as_array([[-1, 0, 2]])
    assert naive.relu(x).tolist() == [[0, 0, 2]]
    np.testing.assert_allclose(naive.sigmoid(x), [[0.26894143, 0.5, 0.8807971]], rtol=1e-6)
    np.testing.assert_allclose(naive.tanh(x), [[-0.7615942, 0, 0.9640276]], rtol=1e-6)
    np.testing.assert_allclose(naive.softmax(np.log([[1, 2, 5]])), [[0.125, 0.25, 0.625]], 1e-6)


@pytest.mark.parametrize("name", ["relu", "sigmoid", "tanh"])
def test_special_values_equal_reference(name: str) -> None:
    x = as_array([np.nan, np.inf, -np.inf, -0.0, 0.0, 1e30, -1e30, 100, -100])
    y = getattr(naive, name)(x)
    np.testing.assert_allclose(y, Activation(name).reference(x), rtol=1e-6, atol=1e-7)


def test_max_pool_drops_nan() -> None:
    x = as_array([np.nan, 1, np.nan, np.nan]).reshape(1, 1, 4, 1)
    y = naive.max_pool2d(x, (1, 2))
    assert y.ravel().tolist() == [1, np.finfo(np.float32).min]


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_softmax_along_any_axis(axis: int) -> None:
    y = naive.softmax(gaussian(3, 4, 5), axis)
    np.testing.assert_allclose(y.sum(axis=axis), 1, rtol=1e-6)


def test_run_follows_the_graph() -> None:
    graph = graph_of(
        {"a": (None, 2), "b": (None, 2)},
        [("sum", Add(), ("a", "b")), ("relu", Activation("relu"), ("sum",))],
        "relu",
        "sum",
    )
    a, b = as_array([[1, -5]]), as_array([[2, 3]])
    relu, total = naive.run(graph, [a, b])
    assert relu.tolist() == [[3, 0]]
    assert total.tolist() == [[3, -2]]
    assert sorted(naive.trace(graph, [a, b])) == ["a", "b", "relu", "sum"]


def test_run_takes_what_becomes_float32() -> None:
    graph = graph_of({"x": (None, 1, 2)}, [("y", Flatten(), ("x",))])
    (y,) = naive.run(graph, [[[[1, 2]], [[3, 4]]]])
    assert y.dtype == np.float32
    assert y.tolist() == [[1, 2], [3, 4]]


def test_run_on_an_empty_batch() -> None:
    (y,) = naive.run(small_cnn(), [images(0)])
    assert y.shape == (0, 10)


X, W = gaussian(1, 4, 4, 2), gaussian(3, 3, 2, 4)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: naive.conv2d(X[0], W),
            ShapeError,
            r"x: expected \[N, H, W, C\], got \(4, 4, 2",
        ),
        (lambda: naive.conv2d(X, W[0]), ShapeError, r"w: expected \[KH, KW, C/groups, OC\]"),
        (lambda: naive.conv2d(X, W, groups=2), ShapeError, "groups=2 needs 4 input channels"),
        (lambda: naive.conv2d(X, W, b=[1, 2]), ShapeError, r"b: expected \(4,\), got \(2,\)"),
        (lambda: naive.conv2d(X, ["a"]), DTypeError, "w: expected real numbers"),
        (
            lambda: naive.conv2d(X * 1j, W),
            DTypeError,
            "x: expected real numbers, got complex64",
        ),
        (lambda: naive.conv2d(X, W, padding="full"), ValueError, "padding='full' must be"),
        (lambda: naive.conv2d(X, W, strides=0), ValueError, "strides=0 must be an int of at"),
        (lambda: naive.conv2d(X, W, activation="x"), ValueError, "activation='x' is unknown"),
        (lambda: naive.max_pool2d(X, (2, 2, 2)), ValueError, "pool_size"),
        (lambda: naive.dense(X, W), ShapeError, r"x: expected \[N, C\]"),
        (lambda: naive.dense([[1, 2]], [[1]]), ShapeError, "dense: "),
        (lambda: naive.softmax([1, 2], axis=1), ShapeError, "axis 1 does not exist"),
        (lambda: naive.run(small_cnn(), []), ShapeError, "expected 1 inputs, got 0"),
        (
            lambda: naive.run(small_cnn(), [X]),
            ShapeError,
            r"input 'x': expected \(None, 12, 12",
        ),
    ],
)
def test_arguments_that_do_not_fit(
    call: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call()
