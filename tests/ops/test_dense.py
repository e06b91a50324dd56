"""Fully connected layers."""

from __future__ import annotations

import numpy as np
import pytest

from cnnkern.errors import ModelFileError, ShapeError, UnsupportedLayerError
from cnnkern.graph import as_array
from cnnkern.ops.activation import Activation
from cnnkern.ops.config import LayerConfig
from cnnkern.ops.dense import Dense

from .case import Case, ListWeights, check, layer_case

CASES = [
    layer_case("Dense", (3, 5), units=4),
    layer_case("Dense", (3, 5), units=1, activation="sigmoid"),
    layer_case("Dense", (3, 5), units=4, use_bias=False, activation="softmax"),
    layer_case("Dense", (2, 3, 4, 5), units=6, activation="gelu"),
    layer_case("Dense", (2, 3, 5), units=6),
]


def test_dense_by_hand() -> None:
    op = Dense(as_array([[1, 2], [10, 20]]), as_array([0.5, -100]), Activation("relu"))
    assert op.reference(as_array([[3, 4]])).tolist() == [[43.5, 0]]  # 3*1 + 4*10, 3*2 + 4*20


@pytest.mark.parametrize("case", CASES, ids=str)
def test_dense_equals_keras(keras, case: Case) -> None:
    check(keras, case)


def test_layer_as_activation(keras) -> None:
    """Keras serialises a layer given as activation with its configuration."""
    activation = keras.layers.LeakyReLU(negative_slope=0.25)
    case = Case("keras.layers>Dense", {"units": 4, "activation": activation}, ((3, 5),))
    check(keras, case)


def test_residual_is_added_before_the_activation() -> None:
    op = Dense(as_array([[1], [1]]), None, Activation("relu"), adds_residual=True)
    y = op.reference(as_array([[1, 2], [3, 4]]), as_array([[-5], [1]]))
    assert y.tolist() == [[0], [8]]
    with pytest.raises(ShapeError, match=r"Dense: expected a residual of shape \(1, 1\)"):
        op.infer_shape((1, 2), (1, 2))


def test_flops() -> None:
    assert Dense(np.zeros((5, 6), np.float32)).flops((2, 3, 5)) == 2 * 2 * 3 * 5 * 6


def test_shapes_that_do_not_fit() -> None:
    op = Dense(np.zeros((5, 6), np.float32))
    with pytest.raises(ShapeError, match=r"Dense: expected \[N, ..., 5\], got \(None, 4\)"):
        op.infer_shape((None, 4))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"units": 0}, ModelFileError, "units=0 must be an int of at least 1"),
        ({"units": 2, "quantization_mode": "int8"}, UnsupportedLayerError, "quantization_mode"),
        ({}, ModelFileError, "option 'units' is missing"),
    ],
)
def test_refused_options_name_the_layer(
    options: dict[str, object], error: type[Exception], message: str
) -> None:
    config = LayerConfig("head", "Dense", {"use_bias": False, **options})
    with pytest.raises(error, match=f"Dense 'head': {message}"):
        Dense.from_keras(config, ListWeights([np.zeros((5, 2), np.float32)]), [(None, 5)])


def test_weights_of_another_shape_are_refused() -> None:
    config = LayerConfig("head", "Dense", {"units": 3})
    with pytest.raises(ModelFileError, match=r"'kernel' of shape \(5, 3\)"):
        Dense.from_keras(config, ListWeights([np.zeros((3, 5), np.float32)]), [(None, 5)])
