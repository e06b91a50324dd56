"""Depthwise and separable convolutions."""

from __future__ import annotations

import numpy as np
import pytest

from cnnkern.errors import ModelFileError, ShapeError
from cnnkern.graph import as_array
from cnnkern.ops.activation import Activation
from cnnkern.ops.config import LayerConfig
from cnnkern.ops.conv import Conv
from cnnkern.ops.depthwise import DepthwiseConv

from .case import Case, ListWeights, chain_of, check, layer_case, make_layer

IMAGE, LINE = (2, 8, 9, 3), (2, 9, 3)
CASES = [
    *(
        layer_case("DepthwiseConv2D", IMAGE, kernel_size=3, padding=p, **options)
        for p in ("valid", "same")
        for options in (
            {},
            {"strides": 2},
            {"strides": (2, 1)},
            {"depth_multiplier": 2, "activation": "relu6"},
            {"dilation_rate": (2, 3)},
            {"strides": 2, "dilation_rate": 2},
            {"use_bias": False},
        )
    ),
    layer_case("DepthwiseConv2D", IMAGE, kernel_size=5, strides=2, padding="same"),
    layer_case("DepthwiseConv1D", LINE, kernel_size=3, depth_multiplier=2, strides=2),
    layer_case("DepthwiseConv1D", LINE, kernel_size=3, padding="same", dilation_rate=2),
    *(
        layer_case("SeparableConv2D", IMAGE, filters=5, kernel_size=3, **options)
        for options in (
            {"padding": "same"},
            {"strides": 2, "padding": "same", "activation": "relu"},
            {"dilation_rate": 2, "depth_multiplier": 2},
            {"use_bias": False, "activation": "softmax"},
        )
    ),
    layer_case("SeparableConv1D", LINE, filters=5, kernel_size=3, padding="same"),
    layer_case("SeparableConv1D", LINE, filters=5, kernel_size=3, strides=2),
]


def test_depthwise_by_hand() -> None:
    x = as_array([[1, 2], [3, 4]]).reshape(1, 2, 2)  # two positions of two channels
    w = as_array([[[1, 10], [100, 1000]]])  # one tap, two channels, two multiples each
    op = DepthwiseConv(w, as_array([0.5, 0, 0, 0]), (1,), "valid", (1,))
    y = op.reference(x)[0]
    assert y.tolist() == [[1.5, 10, 200, 2000], [3.5, 30, 400, 4000]]  # channel c*CM + m


@pytest.mark.parametrize("case", CASES, ids=str)
def test_depthwise_equals_keras(keras, case: Case) -> None:
    check(keras, case)


def test_separable_is_a_chain(keras) -> None:
    case = layer_case("SeparableConv2D", IMAGE, filters=5, kernel_size=3, activation="relu")
    layer = make_layer(keras, case)
    layer.build(IMAGE)
    depthwise, pointwise, activation = chain_of(layer, case)
    assert isinstance(depthwise, DepthwiseConv)
    assert depthwise.bias is None
    assert isinstance(pointwise, Conv)
    assert pointwise.sizes == (1, 1)
    assert activation == Activation("relu")


def test_options_that_keras_2_writes() -> None:
    legacy = {"groups": 1, "kernel_initializer": {"class_name": "Zeros"}, "use_bias": False}
    config = LayerConfig("dw", "DepthwiseConv2D", {"kernel_size": [3, 3], **legacy})
    weights = ListWeights([np.ones((3, 3, 3, 1), np.float32)])
    (op,) = DepthwiseConv.from_keras(config, weights, [IMAGE])
    assert op.infer_shape(IMAGE) == (2, 6, 7, 3)


def test_flops() -> None:
    op = DepthwiseConv(np.zeros((3, 3, 4, 2), np.float32), padding="same")
    assert op.flops((2, 5, 5, 4)) == 2 * 9 * 2 * 5 * 5 * 4 * 2


def test_refused_options_name_the_layer() -> None:
    config = LayerConfig("dw", "DepthwiseConv2D", {"kernel_size": 3, "depth_multiplier": 0})
    with pytest.raises(ModelFileError, match="DepthwiseConv2D 'dw': depth_multiplier=0"):
        DepthwiseConv.from_keras(config, ListWeights([]), [IMAGE])


def test_shapes_that_do_not_fit() -> None:
    op = DepthwiseConv(np.zeros((3, 3, 4, 2), np.float32))
    with pytest.raises(ShapeError, match=r"DepthwiseConv: expected \[N, H, W, 4\]"):
        op.infer_shape((1, 5, 5, 3))
