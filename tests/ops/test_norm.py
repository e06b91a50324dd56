"""Ops that scale and shift by stored numbers."""

from __future__ import annotations

import numpy as np
import pytest

from cnnkern.errors import ModelFileError, ShapeError, UnsupportedLayerError
from cnnkern.graph import Op, as_array
from cnnkern.ops.config import LayerConfig
from cnnkern.ops.norm import Affine, BatchNorm, Normalization

from .case import Case, ListWeights, check, layer_case

IMAGE = (2, 4, 5, 3)
CASES = [
    layer_case("BatchNormalization", IMAGE),
    layer_case("BatchNormalization", (3, 5)),
    layer_case("BatchNormalization", IMAGE, scale=False, epsilon=1.001e-5),
    layer_case("BatchNormalization", IMAGE, center=False),
    layer_case("BatchNormalization", IMAGE, scale=False, center=False),
    *(layer_case("BatchNormalization", IMAGE, axis=axis) for axis in (1, 2, 3)),
    layer_case("Rescaling", IMAGE, scale=1 / 127.5, offset=-1),
    layer_case("Rescaling", IMAGE, scale=[1.0, 2.0, 3.0], offset=[0.5, 0.0, -1.0]),
    layer_case("Rescaling", IMAGE, scale=np.array([1.0, 2.0, 3.0])),
    *(
        Case(f"keras.{module}>LayerScale", {"init_values": 1e-6, "projection_dim": 3}, (IMAGE,))
        for module in ("applications.convnext", "layers")
    ),
    layer_case("Normalization", IMAGE),
    layer_case("Normalization", IMAGE, invert=True),
    layer_case("Normalization", IMAGE, axis=(1, 3)),
    layer_case("Normalization", IMAGE, axis=2),
    layer_case("Normalization", IMAGE, axis=None),
    layer_case("Normalization", IMAGE, mean=2.0, variance=4.0),
    layer_case("Normalization", IMAGE, mean=[1.0, 2.0, 3.0], variance=[4.0, 0.0, 1.0]),
    layer_case("Normalization", IMAGE, axis=None, mean=2.0, variance=4.0),
]


def test_norms_by_hand() -> None:
    x = as_array([[10, 20]])
    two, three = as_array([2, 2]), as_array([3, 4])
    op = BatchNorm(two, three, mean=as_array([8, 16]), variance=as_array([3, 15]), epsilon=1)
    assert op.reference(x).tolist() == [[5, 6]]  # (10-8)/2*2+3, (20-16)/4*2+4
    assert Affine(two, three).reference(x).tolist() == [[23, 44]]
    assert Normalization(three, as_array([4, 16])).reference(x).tolist() == [[3.5, 4]]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_norm_equals_keras(keras, case: Case) -> None:
    check(keras, case)


def test_legacy_axis_is_a_list() -> None:
    config = LayerConfig("bn", "BatchNormalization", {"axis": [3], "scale": False})
    weights = ListWeights([np.ones(3, np.float32)] * 3)
    op = BatchNorm.from_keras(config, weights, [(None, 4, 4, 3)])
    assert isinstance(op, BatchNorm)
    assert op.axis == -1
    assert op.gamma is None


def test_scale_and_shift_of_a_negative_variance_is_not_finite() -> None:
    op = BatchNorm(None, None, as_array([0]), as_array([-1]))
    assert np.isnan(op.scale_and_shift()[0]).all()


@pytest.mark.parametrize("invert", [False, True])
def test_scale_and_shift_of_normalization(invert: bool) -> None:
    op = Normalization(as_array([1, 2]), as_array([4, 0]), invert)
    x = as_array([[3, 2], [-1, 2]])
    scale, shift = op.scale_and_shift()
    np.testing.assert_allclose(x * scale + shift, op.reference(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("op", "class_name", "options", "error", "message"),
    [
        (BatchNorm, "BatchNormalization", {"axis": [1, 2]}, ModelFileError, "axis="),
        (BatchNorm, "BatchNormalization", {"axis": 0}, UnsupportedLayerError, "axis=0"),
        (BatchNorm, "BatchNormalization", {"renorm": True}, UnsupportedLayerError, "renorm"),
        (BatchNorm, "BatchNormalization", {"epsilon": "0"}, ModelFileError, "epsilon='0'"),
        (Affine, "Rescaling", {"scale": "2"}, ModelFileError, "scale='2'"),
        (Affine, "Rescaling", {"scale": [[1, 2], [3]]}, ModelFileError, "scale"),
        (Affine, "Rescaling", {"scale": float("inf")}, ModelFileError, "scale=inf"),
        (Affine, "Rescaling", {"scale": {"class_name": "Lambda"}}, ModelFileError, "scale"),
        (Affine, "Rescaling", {"scale": [1, 2]}, ShapeError, r"\(2,\) does not broadcast"),
        (Normalization, "Normalization", {"mean": [1, 2], "variance": 1}, ModelFileError,
         r"mean=\[1.0, 2.0\] must be numbers that broadcast to \(3,\)"),
        (Normalization, "Normalization", {"mean": 1.0}, ModelFileError, "variance=None"),
        (Normalization, "Normalization", {"axis": "a"}, ModelFileError, "axis='a'"),
    ],
)  # fmt: skip
def test_refused_options_name_the_layer(
    op: type[Op], class_name: str, options: dict[str, object], error: type[Exception],
    message: str,
) -> None:  # fmt: skip
    config = LayerConfig("norm1", class_name, options)
    weights = ListWeights([np.ones(3, np.float32)] * 4)
    with pytest.raises(error, match=f"{class_name} 'norm1': .*{message}"):
        op.from_keras(config, weights, [(None, 4, 4, 3)])


def test_shapes_that_do_not_fit() -> None:
    ones = as_array([1, 1])
    with pytest.raises(ShapeError, match=r"BatchNorm: expected 2 along axis -1, got \(1, 3\)"):
        BatchNorm(ones, ones, ones, ones).infer_shape((1, 3))
    with pytest.raises(ShapeError, match=r"Affine: \(2,\) does not broadcast"):
        Affine(ones, ones).infer_shape((1, 3))
    with pytest.raises(ShapeError, match=r"Normalization: \(2,\) does not broadcast"):
        Normalization(ones, ones).infer_shape((2,))
