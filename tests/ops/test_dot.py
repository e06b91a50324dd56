"""Products along one axis of two tensors."""

from __future__ import annotations

import numpy as np
import pytest

from cnnkern.errors import ModelFileError, ShapeError, UnsupportedLayerError
from cnnkern.graph import as_array
from cnnkern.ops.config import LayerConfig
from cnnkern.ops.dot import Dot

from .case import Case, ListWeights, check, layer_case

CASES = [
    layer_case("Dot", (2, 5), (2, 5), axes=1),
    layer_case("Dot", (2, 5), (2, 5), axes=-1, normalize=True),
    layer_case("Dot", (2, 3, 5), (2, 4, 5), axes=2),
    layer_case("Dot", (2, 3, 5), (2, 5, 4), axes=(2, 1)),
    layer_case("Dot", (2, 5, 3), (2, 5, 4), axes=1, normalize=True),
    layer_case("Dot", (2, 3, 5), (2, 5), axes=(2, 1)),
    layer_case("Dot", (2, 5), (2, 5, 4), axes=(1, 1)),
    layer_case("Dot", (2, 3, 4, 5), (2, 5, 6), axes=(3, 1)),
]


def test_dot_by_hand() -> None:
    x, y = as_array([[1, 2], [3, 4]]), as_array([[10, 100], [10, 100]])
    assert Dot((-1, -1)).reference(x, y).tolist() == [[210], [430]]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_dot_equals_keras(keras, case: Case) -> None:
    check(keras, case)


def test_zero_vectors_are_not_scaled_to_nan() -> None:
    zero = np.zeros((1, 2), np.float32)
    assert Dot((-1, -1), normalize=True).reference(zero, zero).tolist() == [[0]]


def test_shapes_that_do_not_fit() -> None:
    assert Dot((-1, -2)).infer_shape((None, 3, None), (None, 4, 5)) == (None, 3, 5)
    with pytest.raises(ShapeError, match=r"Dot: .* differ along axes \(-1, -1\)"):
        Dot((-1, -1)).infer_shape((1, 2), (1, 3))
    with pytest.raises(ShapeError, match="Dot: expected an axis -2 behind the batch"):
        Dot((-2, -1)).infer_shape((1, 2), (1, 2))
    with pytest.raises(ShapeError, match="Dot: expected 2 inputs, got 1"):
        Dot((-1, -1)).infer_shape((1, 2))


@pytest.mark.parametrize(
    ("axes", "error", "message"),
    [
        ([1], ModelFileError, "one axis or two"),
        ([1, 5], ModelFileError, "axes=5"),
        (0, UnsupportedLayerError, "axes behind the batch axis"),
    ],
)
def test_refused_options_name_the_layer(
    axes: object, error: type[Exception], message: str
) -> None:
    config = LayerConfig("dot1", "Dot", {"axes": axes})
    with pytest.raises(error, match=f"Dot 'dot1': .*{message}"):
        Dot.from_keras(config, ListWeights([]), [(None, 4), (None, 4)])
