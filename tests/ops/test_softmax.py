"""Activations that mix the elements of an axis."""

from __future__ import annotations

import numpy as np
import pytest

from cnnkern.errors import ModelFileError, ShapeError, UnsupportedLayerError
from cnnkern.graph import as_array
from cnnkern.ops.config import LayerConfig
from cnnkern.ops.softmax import Glu, LogSoftmax, Softmax, Sparsemax

from .case import Case, ListWeights, check, layer_case, op_case

SHAPE = (3, 5, 4, 6)
CASES = [
    *(layer_case("Softmax", SHAPE, axis=axis) for axis in (-1, 1, -2, [1, 2], [-1, 1], [2])),
    *(
        op_case(f"nn>{name}", SHAPE, axis=axis)
        for name in ("Softmax", "LogSoftmax", "Sparsemax")
        for axis in (-1, 1)
    ),
    op_case("nn>Glu", SHAPE),
    op_case("nn>Glu", SHAPE, axis=2),
]


def test_softmax_by_hand() -> None:
    x = np.log(as_array([[1, 2, 5]]))
    np.testing.assert_allclose(Softmax().reference(x), [[0.125, 0.25, 0.625]], rtol=1e-6)
    expected = np.log([[0.125, 0.25, 0.625]])
    np.testing.assert_allclose(LogSoftmax().reference(x), expected, rtol=1e-6)
    assert Sparsemax().reference(as_array([[0, 0.5, 2]])).tolist() == [[0, 0, 1]]
    # k = 2: tau = (1.25 + 1.75 - 1) / 2, where the paper has (1.75 - 1) / 2
    assert Sparsemax().reference(as_array([[0, 0.5, 1.25]])).tolist() == [[0, 0, 0.25]]
    assert Glu().reference(as_array([[8, 6, 0, 1000]])).tolist() == [[4, 6]]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_softmax_equals_keras(keras, case: Case) -> None:
    check(keras, case)


def test_large_elements_do_not_overflow() -> None:
    y = Softmax().reference(as_array([[1000, 1000]]))
    assert y.tolist() == [[0.5, 0.5]]


@pytest.mark.parametrize(
    ("axis", "error", "message"),
    [
        (2, ModelFileError, "axis=2 must be an axis of a tensor of 2 axes"),
        (0, UnsupportedLayerError, "axis=0 is not supported; accepted: axes behind the batch"),
        ([1, -1], ModelFileError, "all different"),
        ("1", ModelFileError, "axis='1'"),
    ],
)
def test_refused_options_name_the_layer(
    axis: object, error: type[Exception], message: str
) -> None:
    config = LayerConfig("probs", "Softmax", {"axis": axis})
    with pytest.raises(error, match=f"Softmax 'probs': .*{message}"):
        Softmax.from_keras(config, ListWeights([]), [(None, 4)])


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(ShapeError, match=r"Softmax: axes \(-3,\) do not exist in \(1, 2\)"):
        Softmax((-3,)).infer_shape((1, 2))
    with pytest.raises(ShapeError, match=r"Glu: expected an even length along axis -1"):
        Glu().infer_shape((1, 3))
