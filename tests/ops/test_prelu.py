"""PReLU."""

from __future__ import annotations

import numpy as np
import pytest

from cnnkern.errors import ShapeError, UnsupportedLayerError
from cnnkern.graph import as_array
from cnnkern.ops.config import LayerConfig
from cnnkern.ops.prelu import PReLU

from .case import Case, ListWeights, check, layer_case

CASES = [
    layer_case("PReLU", (2, 5)),
    layer_case("PReLU", (2, 4, 5, 3)),
    layer_case("PReLU", (2, 4, 5, 3), shared_axes=[1, 2]),
    layer_case("PReLU", (2, 4, 5, 3), shared_axes=[1]),
    layer_case("PReLU", (2, 4, 5, 3), shared_axes=[1, 2, 3]),
]


def test_prelu_by_hand() -> None:
    y = PReLU(as_array([0.5, 10])).reference(as_array([[-2, -2], [3, 4]]))
    assert y.tolist() == [[-1, -20], [3, 4]]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_prelu_equals_keras(keras, case: Case) -> None:
    check(keras, case)


def test_special_values_equal_keras(keras) -> None:
    x = as_array([[np.nan, np.inf, -np.inf, -0.0]])
    y = PReLU(as_array([0, 0, 0, 0])).reference(x)
    np.testing.assert_array_equal(y, np.asarray(keras.layers.PReLU()(x)))
    assert not np.signbit(y[0, 3])


def test_refused_options_name_the_layer() -> None:
    config = LayerConfig("act", "PReLU", {"shared_axes": [-1]})
    message = r"PReLU 'act': shared_axes=\[-1\] is not supported; accepted: axes 1 to 2"
    with pytest.raises(UnsupportedLayerError, match=message):
        PReLU.from_keras(config, ListWeights([]), [(None, 4, 3)])


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(ShapeError, match=r"PReLU: \(3,\) does not broadcast"):
        PReLU(as_array([1, 2, 3])).infer_shape((1, 4))
