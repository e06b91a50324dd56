"""Convolutions."""

from __future__ import annotations

import numpy as np
import pytest

from cnnkern.errors import ModelFileError, ShapeError, UnsupportedLayerError
from cnnkern.graph import as_array
from cnnkern.ops.activation import Activation
from cnnkern.ops.config import LayerConfig
from cnnkern.ops.conv import Conv

from .case import Case, ListWeights, check, layer_case

IMAGE, LINE, VOLUME = (2, 7, 6, 4), (2, 9, 4), (2, 4, 5, 3, 2)
CASES = [
    *(
        layer_case("Conv2D", IMAGE, filters=6, kernel_size=k, strides=s, padding=p)
        for k in (1, 2, 3, (1, 3), (4, 2))
        for s in (1, 2, (3, 1))
        for p in ("valid", "same")
    ),
    *(
        layer_case("Conv2D", IMAGE, filters=4, kernel_size=3, dilation_rate=d, padding=p)
        for d, p in ((2, "valid"), (2, "same"), ((1, 3), "same"))
    ),
    layer_case("Conv2D", IMAGE, filters=6, kernel_size=3, groups=2, padding="same"),
    layer_case("Conv2D", IMAGE, filters=8, kernel_size=3, groups=4, strides=2),
    layer_case("Conv2D", IMAGE, filters=5, kernel_size=3, use_bias=False, activation="relu"),
    layer_case("Conv2D", IMAGE, filters=5, kernel_size=3, activation="softmax"),
    *(
        layer_case("Conv1D", LINE, filters=3, kernel_size=3, **options)
        for options in (
            {"padding": "causal"},
            {"padding": "causal", "dilation_rate": 2},
            {"padding": "causal", "strides": 2},
            {"padding": "same", "strides": 2},
            {"groups": 1, "activation": "swish"},
        )
    ),
    *(
        layer_case("Conv3D", VOLUME, filters=3, kernel_size=2, strides=s, padding=p)
        for s in (1, 2)
        for p in ("valid", "same")
    ),
]


def test_conv_by_hand() -> None:
    x = as_array([[1, 2, 3], [4, 5, 6], [7, 8, 9]]).reshape(1, 3, 3, 1)
    w = as_array([[1, 10], [100, 1000]]).reshape(2, 2, 1, 1)
    op = Conv(w, as_array([0.5]))
    y = op.reference(x)[0, :, :, 0]
    assert y.tolist() == [[5421.5, 6532.5], [8754.5, 9865.5]]  # 1 + 2*10 + 4*100 + 5*1000


@pytest.mark.parametrize("case", CASES, ids=str)
def test_conv_equals_keras(keras, case: Case) -> None:
    check(keras, case)


def test_explicit_padding_equals_padded_input() -> None:
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((1, 4, 5, 2)), rng.standard_normal((3, 2, 2, 3))
    padding = ((0, 2), (1, 0))
    op = Conv(as_array(w), strides=(2, 1), padding=padding)
    padded = np.pad(as_array(x), ((0, 0), *padding, (0, 0)))
    expected = Conv(as_array(w), strides=(2, 1)).reference(padded)
    np.testing.assert_allclose(op.reference(as_array(x)), expected, rtol=1e-6)
    assert op.infer_shape((None, 4, None, 2)) == (None, 2, None, 3)
    assert op.infer_shape((1, 4, 5, 2)) == expected.shape


def test_epilogue_adds_bias_residual_then_activates() -> None:
    x, w = as_array([[1, -2]]).reshape(1, 2, 1), as_array([[[10]]])
    op = Conv(w, as_array([1]), (1,), "valid", (1,), Activation("relu"), adds_residual=True)
    y = op.reference(x, as_array([[100, 5]]).reshape(1, 2, 1))
    assert y.ravel().tolist() == [111, 0]
    with pytest.raises(ShapeError, match=r"Conv: expected a residual of shape \(1, 2, 1\)"):
        op.infer_shape((1, 2, 1), (1, 1, 1))
    with pytest.raises(ShapeError, match="Conv: expected 2 inputs, got 1"):
        op.infer_shape((1, 2, 1))


def test_infinity_reaches_its_receptive_field_and_padding_adds_nothing() -> None:
    x = np.zeros((1, 5, 5, 1), np.float32)
    x[0, 2, 2] = np.inf
    zero_weights = Conv(np.zeros((3, 3, 1, 1), np.float32), padding="same")
    is_nan = np.isnan(zero_weights.reference(x)[0, :, :, 0])
    assert is_nan.sum() == 9
    assert is_nan[1:4, 1:4].all()
    infinite_weights = Conv(np.full((3, 3, 1, 1), np.inf, np.float32), padding="same")
    assert (infinite_weights.reference(np.ones_like(x)) == np.inf).all()


def test_window_larger_than_input_gives_nothing() -> None:
    op = Conv(np.zeros((3, 3, 1, 2), np.float32))
    assert op.infer_shape((1, 2, 5, 1)) == (1, 0, 3, 2)
    assert op.reference(np.zeros((1, 2, 5, 1), np.float32)).shape == (1, 0, 3, 2)


def test_flops() -> None:
    op = Conv(np.zeros((3, 3, 2, 8), np.float32), groups=2)
    assert op.flops((5, 4, 4, 4)) == 2 * 9 * 2 * 8 * 5 * 2 * 2


def options(**changes: object) -> LayerConfig:
    base = {"filters": 2, "kernel_size": [3, 3], "activation": "linear", "use_bias": False}
    return LayerConfig("block1", "Conv2D", {**base, **changes})


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        (options(data_format="channels_first"), UnsupportedLayerError, "data_format="),
        (options(padding="causal"), UnsupportedLayerError, "padding='causal' is not supported"),
        (options(strides=2, dilation_rate=2), ModelFileError, "dilation_rate=.* must be"),
        (options(groups=3), ModelFileError, "groups=3 must be a divisor of 4 inputs"),
        (options(kernel_size=[3, 3, 3]), ModelFileError, "kernel_size"),
        (options(kernel_size=0), ModelFileError, "kernel_size"),
        (options(filters=True), ModelFileError, "filters"),
        (options(activation="nonsense"), UnsupportedLayerError, "activation='nonsense'"),
        (options(lora_rank=4), UnsupportedLayerError, "lora_rank=4"),
        (options(use_bias=1), ModelFileError, "use_bias=1 must be true or false"),
    ],
)
def test_refused_options_name_the_layer(
    config: LayerConfig, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"Conv2D 'block1': {message}"):
        Conv.from_keras(config, ListWeights([np.zeros((3, 3, 4, 2))]), [(None, 5, 5, 4)])


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((None, 5, 4), r"Conv2D 'block1': expected \[N, H, W, C\], got \(None, 5, 4\)"),
        ((None, 5, 5, None), "Conv2D 'block1': axis -1 of the input must be known"),
    ],
)
def test_refused_input_names_the_layer(shape: tuple[int | None, ...], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        Conv.from_keras(options(), ListWeights([]), [shape])


def test_shapes_that_do_not_fit() -> None:
    op = Conv(np.zeros((3, 3, 4, 2), np.float32))
    with pytest.raises(ShapeError, match=r"expected \[N, H, W, 4\], got \(1, 5, 5, 3\)"):
        op.infer_shape((1, 5, 5, 3))
    with pytest.raises(ShapeError, match=r"expected \[N, H, W, 4\], got \(1, 5, 4\)"):
        op.infer_shape((1, 5, 4))
