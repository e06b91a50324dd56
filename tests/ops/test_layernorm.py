"""Normalizations by the statistics of the sample itself."""

from __future__ import annotations

import numpy as np
import pytest

from cnnkern.errors import ModelFileError, ShapeError, UnsupportedLayerError
from cnnkern.graph import Op, as_array
from cnnkern.ops.config import LayerConfig
from cnnkern.ops.layernorm import GroupNorm, LayerNorm, RMSNorm, UnitNorm

from .case import Case, ListWeights, check, layer_case

IMAGE = (2, 3, 5, 4)
CASES = [
    layer_case("LayerNormalization", (3, 5)),
    layer_case("LayerNormalization", IMAGE, epsilon=1e-6),
    layer_case("LayerNormalization", IMAGE, scale=False),
    layer_case("LayerNormalization", IMAGE, center=False),
    *(layer_case("LayerNormalization", IMAGE, axis=a) for a in (1, 2, [1, 2], [1, 2, 3])),
    layer_case("LayerNormalization", (2, 4, 5, 4), axis=[-1, 1]),
    layer_case("LayerNormalization", IMAGE, axis=[-1, 1]),
    layer_case("RMSNormalization", IMAGE),
    layer_case("RMSNormalization", IMAGE, axis=[2, 3], epsilon=0.1),
    *(layer_case("UnitNormalization", IMAGE, axis=axis) for axis in (-1, 1, [1, 2])),
    *(layer_case("GroupNormalization", IMAGE, groups=groups) for groups in (1, 2, 4, -1)),
    layer_case("GroupNormalization", IMAGE, groups=3, axis=1),
    layer_case("GroupNormalization", IMAGE, groups=5, axis=-2),
    layer_case("GroupNormalization", (3, 6), groups=2),
    layer_case("GroupNormalization", IMAGE, groups=2, scale=False, center=False, epsilon=0.5),
]


def test_norms_by_hand() -> None:
    x = as_array([[1, 3, 4, 8]])
    expected = [-1.5, -0.5, 0, 2]  # mean 4, variance 6.5; with epsilon 6.5 + 2.5 = 3 * 3
    y = LayerNorm(epsilon=2.5).reference(x)
    np.testing.assert_allclose(y, [np.array(expected) * 2 / 3], rtol=1e-6, atol=1e-7)
    y = GroupNorm(2, epsilon=3).reference(x)  # means 2 and 6, variances 1 and 4
    np.testing.assert_allclose(y, [[-0.5, 0.5, -2 / 7**0.5, 2 / 7**0.5]], rtol=1e-6)
    y = UnitNorm().reference(as_array([[3, 4]]))
    np.testing.assert_allclose(y, [[0.6, 0.8]], rtol=1e-6)
    y = RMSNorm(epsilon=0.0, gamma=as_array([10, 1])).reference(as_array([[1, 7]]))
    np.testing.assert_allclose(y, [[2, 1.4]], rtol=1e-6)  # root mean square 5


@pytest.mark.parametrize("case", CASES, ids=str)
def test_norm_equals_keras(keras, case: Case) -> None:
    check(keras, case)


def test_zero_stays_zero() -> None:
    zero = np.zeros((1, 4), np.float32)
    assert UnitNorm().reference(zero).tolist() == [[0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("op", "class_name", "options", "error", "message"),
    [
        (LayerNorm, "LayerNormalization", {"rms_scaling": True}, UnsupportedLayerError,
         "rms_scaling=True"),
        (LayerNorm, "LayerNormalization", {"axis": [1, 1]}, ModelFileError, "all different"),
        (GroupNorm, "GroupNormalization", {"groups": 3}, ModelFileError, "groups=3 must be -1"),
        (GroupNorm, "GroupNormalization", {"groups": 0}, ModelFileError, "groups=0 must be -1"),
        (UnitNorm, "UnitNormalization", {"axis": 4}, ModelFileError, "axis=4"),
        (RMSNorm, "RMSNormalization", {"axis": 0}, UnsupportedLayerError, "axis=0"),
        (RMSNorm, "RMSNormalization", {"axis": 2}, UnsupportedLayerError, "the last axes"),
    ],
)  # fmt: skip
def test_refused_options_name_the_layer(
    op: type[Op], class_name: str, options: dict[str, object], error: type[Exception],
    message: str,
) -> None:  # fmt: skip
    config = LayerConfig("norm1", class_name, options)
    with pytest.raises(error, match=f"{class_name} 'norm1': .*{message}"):
        op.from_keras(config, ListWeights([np.ones(4, np.float32)] * 2), [(None, 5, 4, 4)])


def test_unknown_axis_with_weights_is_refused() -> None:
    config = LayerConfig("norm1", "LayerNormalization", {"axis": 1})
    with pytest.raises(ShapeError, match="LayerNormalization 'norm1': axis 1 of the input"):
        LayerNorm.from_keras(config, ListWeights([]), [(None, None, 4)])


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(ShapeError, match="LayerNorm: expected 2 along axis -1"):
        LayerNorm(gamma=as_array([1, 1])).infer_shape((1, 3))
    with pytest.raises(ShapeError, match="UnitNorm: expected axes"):
        UnitNorm((-2, -1)).infer_shape((1, 3))
    with pytest.raises(ShapeError, match="GroupNorm: expected a multiple of 2 along axis -1"):
        GroupNorm(2).infer_shape((1, 3))
