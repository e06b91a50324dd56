"""channels_first layers and models against predict and their channels-last twins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cnnkern
from cnnkern import naive
from cnnkern.errors import UnsupportedLayerError
from cnnkern.ops.layout import Permute
from random_models import randomise

pytestmark = pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")

FIRST = {"data_format": "channels_first"}
BOUND = 2e-5
# Class, arguments, spatial rank. TensorFlow adds the bias of a channels_first convolution
# along the width where that is as long as the channels: no case has such lengths.
LAYERS: list[tuple[str, dict[str, Any], int]] = [
    *((f"Conv{rank}D", {"filters": 5, "kernel_size": 3, "strides": 2}, rank)
      for rank in (1, 2, 3)),
    ("Conv2D", {"filters": 8, "kernel_size": (3, 2), "groups": 2, "padding": "same"}, 2),
    ("Conv2D", {"filters": 5, "kernel_size": 1, "activation": "softmax"}, 2),
    ("Conv2D", {"filters": 5, "kernel_size": 1, "activation": "gelu"}, 2),
    ("DepthwiseConv1D", {"kernel_size": 3, "depth_multiplier": 2}, 1),
    ("DepthwiseConv2D", {"kernel_size": (2, 3), "depth_multiplier": 2}, 2),
    ("SeparableConv1D", {"filters": 6, "kernel_size": 3, "activation": "relu"}, 1),
    ("SeparableConv2D", {"filters": 5, "kernel_size": 3, "activation": "log_softmax"}, 2),
    *((f"Conv{rank}DTranspose", {"filters": 5, "kernel_size": 3, "strides": 2}, rank)
      for rank in (1, 2, 3)),
    *((f"{kind}Pooling{rank}D", {"pool_size": 2, "padding": "same"}, rank)
      for kind in ("Max", "Average") for rank in (1, 2, 3)),
    *((f"Global{kind}Pooling{rank}D", {"keepdims": keepdims}, rank)
      for kind in ("Max", "Average") for rank in (1, 2, 3) for keepdims in (True, False)),
    *((f"AdaptiveAveragePooling{rank}D", {"output_size": 2}, rank) for rank in (1, 2, 3)),
    ("AdaptiveMaxPooling2D", {"output_size": (2, 3)}, 2),
    *((f"UpSampling{rank}D", {"size": 2}, rank) for rank in (2, 3)),
    ("UpSampling2D", {"size": (2, 3), "interpolation": "bilinear"}, 2),
    ("Resizing", {"height": 4, "width": 9}, 2),
    ("ZeroPadding1D", {"padding": (1, 2)}, 1),
    ("ZeroPadding2D", {"padding": ((1, 0), (2, 1))}, 2),
    ("ZeroPadding3D", {"padding": 1}, 3),
    ("Cropping2D", {"cropping": ((1, 0), (2, 1))}, 2),
    ("Cropping3D", {"cropping": 1}, 3),
    ("SpatialDropout2D", {"rate": 0.5}, 2),
    ("RandomFlip", {}, 2),
    *(("Flatten", {}, rank) for rank in (0, 1, 2, 3)),
]  # fmt: skip


def assert_matches(model: Any, x: Any, folder: Path) -> cnnkern.Model:
    """Assert parity with predict and naive, and the same bits from the files."""
    expected = model.predict(x, verbose=0)
    assert np.std(expected) > 1e-3 * np.abs(expected).max(), "outputs do not vary"
    compiled = cnnkern.from_keras(model)
    y = compiled.predict(x)
    bound = BOUND * np.abs(expected).max()
    np.testing.assert_allclose(y, expected, atol=bound, rtol=0)
    np.testing.assert_allclose(naive.run(compiled.graph, [x])[0], expected, atol=bound, rtol=0)
    for suffix in (".keras", ".h5"):
        model.save(folder / f"model{suffix}")
        np.testing.assert_array_equal(cnnkern.load(folder / f"model{suffix}").predict(x), y)
    return compiled


def n_permutes(model: cnnkern.Model) -> int:
    return sum(isinstance(node.op, Permute) for node in model._optimised.nodes)


@pytest.mark.parametrize(("name", "options", "rank"), LAYERS, ids=str)
def test_layer(name: str, options: dict[str, Any], rank: int, tmp_path: Path) -> None:
    import keras

    rng = np.random.default_rng(0)
    inputs = keras.Input((4, 7, 6, 5)[: rank + 1])
    model = keras.Model(inputs, getattr(keras.layers, name)(**options, **FIRST)(inputs))
    randomise(model, rng)
    assert_matches(model, rng.standard_normal((3, *inputs.shape[1:]), np.float32), tmp_path)


def residual_net(data_format: str) -> Any:
    """Return a network of every layer whose axes move with the data format."""
    import keras
    from keras import layers

    is_first = data_format == "channels_first"
    axis = 1 if is_first else -1
    spatial = [2, 3] if is_first else [1, 2]
    options = {"data_format": data_format}
    inputs = keras.Input((3, 12, 10) if is_first else (12, 10, 3))
    x = layers.ZeroPadding2D(1, **options)(inputs)
    x = layers.Conv2D(16, 3, use_bias=False, **options)(x)
    x = layers.BatchNormalization(axis=axis)(x)
    x = shortcut = layers.PReLU(shared_axes=spatial)(x)
    x = layers.DepthwiseConv2D(3, padding="same", **options)(x)
    x = layers.LayerNormalization(axis=axis)(x)
    gate = layers.GlobalAveragePooling2D(keepdims=True, **options)(x)
    gate = layers.Conv2D(16, 1, activation="sigmoid", **options)(gate)
    x = layers.Multiply()([x, gate])
    x = layers.Add()([x, shortcut])
    x = layers.Activation("gelu")(x)
    pooled = layers.MaxPooling2D(2, **options)(x)
    x = layers.UpSampling2D(2, interpolation="bilinear", **options)(pooled)
    x = layers.Concatenate(axis=axis)([x, shortcut])
    x = layers.GroupNormalization(4, axis=axis)(x)
    x = layers.Softmax(axis=axis)(x)
    x = layers.UnitNormalization(axis=axis)(x)
    x = layers.Conv2DTranspose(4, 3, strides=2, **options)(x)
    return keras.Model(inputs, layers.Dropout(0.5)(x))


def test_a_network_is_transposed_at_its_ends_only(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    first, last = residual_net("channels_first"), residual_net("channels_last")
    randomise(first, rng)
    for weight, value in zip(last.weights, first.get_weights(), strict=True):
        weight.assign(value.reshape(weight.shape))
    x = rng.standard_normal((3, 12, 10, 3), np.float32)
    compiled = assert_matches(first, np.ascontiguousarray(x.transpose(0, 3, 1, 2)), tmp_path)
    assert n_permutes(compiled) == 2
    twin = cnnkern.from_keras(last)
    y = compiled.predict(x.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(y, twin.predict(x).transpose(0, 3, 1, 2))
    assert len(compiled.plan((1, 3, 12, 10)).steps) == len(twin.plan((1, 12, 10, 3)).steps) + 2


@pytest.mark.parametrize("head", ["flatten", "reshape", "dense", "global"])
def test_heads(head: str, tmp_path: Path) -> None:
    import keras
    from keras import layers

    inputs = keras.Input((3, 8, 6))
    x = layers.Conv2D(4, 3, activation="relu", **FIRST)(inputs)
    x = layers.AveragePooling2D(2, **FIRST)(x)
    if head == "flatten":
        x = layers.Flatten(**FIRST)(x)
    elif head == "reshape":
        x = layers.Flatten()(layers.Reshape((12, 2))(layers.Permute((2, 1, 3))(x)))
    elif head == "dense":  # along the width, as Keras does
        x = layers.Flatten()(layers.Dense(5, activation="tanh")(x))
    else:
        x = layers.GlobalMaxPooling2D(**FIRST)(x)
    model = keras.Model(inputs, layers.Dense(3)(x))
    rng = np.random.default_rng(2)
    randomise(model, rng)
    compiled = assert_matches(model, rng.standard_normal((4, 3, 8, 6), np.float32), tmp_path)
    assert n_permutes(compiled) == (1 if head in ("flatten", "global") else 2)


def test_formats_may_be_mixed(tmp_path: Path) -> None:
    import keras
    from keras import layers

    inputs = keras.Input((6, 8, 7))
    x = layers.Conv2D(5, 3, padding="same", **FIRST)(inputs)
    y = layers.Conv2D(7, 3, padding="same")(inputs)
    model = keras.Model(inputs, layers.Concatenate(axis=1)([x, y]))
    rng = np.random.default_rng(3)
    randomise(model, rng)
    assert_matches(model, rng.standard_normal((2, 6, 8, 7), np.float32), tmp_path)


def test_sizes_may_be_unknown() -> None:
    import keras
    from keras import layers

    inputs = keras.Input((3, None, None))
    x = layers.Conv2D(6, 3, **FIRST)(inputs)
    model = keras.Model(inputs, layers.MaxPooling2D(2, **FIRST)(layers.ReLU()(x)))
    compiled = cnnkern.from_keras(model)
    for H, W in ((8, 9), (13, 6)):
        x = np.random.default_rng(4).standard_normal((2, 3, H, W), np.float32)
        np.testing.assert_allclose(
            compiled.predict(x), model.predict(x, verbose=0), atol=1e-5, rtol=1e-4
        )


def test_a_scale_per_channel_is_refused_where_its_axis_is_not_known() -> None:
    """Rescaling follows the data format of the machine that runs it; no file tells it."""
    import keras
    from keras import layers

    inputs = keras.Input((3, 8, 6))
    x = layers.Rescaling([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], name="scale")(inputs)
    model = keras.Model(inputs, layers.Conv2D(4, 3, **FIRST)(x))
    with pytest.raises(UnsupportedLayerError, match="Rescaling 'scale': scale"):
        cnnkern.from_keras(model)
    x = layers.Rescaling(0.5, offset=-1)(inputs)
    cnnkern.from_keras(keras.Model(inputs, layers.Conv2D(4, 3, **FIRST)(x)))
