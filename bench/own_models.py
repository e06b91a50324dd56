"""Models of sizes that people train themselves; Keras makes their weights.

All take pixels of 0..255 and give numbers without a last activation, so that the outputs of
random weights differ.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import layers

from cnnkern.demo.seed import PUBLISHED


def seed() -> Any:
    """Return the network of 12 weights."""
    model = keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            layers.Conv2D(1, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(1, activation="sigmoid"),
        ]
    )
    filters, *others = PUBLISHED
    model.set_weights([filters / 255, *others])
    return model


def lenet() -> Any:
    """Return the digit classifier of LeNet's size: 61,706 weights on 28x28 pixels."""
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(6, 5, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(16, 5, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(120, activation="relu"),
            layers.Dense(84, activation="relu"),
            layers.Dense(10),
        ]
    )


def autoencoder() -> Any:
    """Return an autoencoder of 28x28 pixels with 32 channels inside."""
    options = {"padding": "same", "activation": "relu"}
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(32, 3, **options),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, **options),
            layers.MaxPooling2D(),
            layers.Conv2DTranspose(32, 3, strides=2, **options),
            layers.Conv2DTranspose(32, 3, strides=2, **options),
            layers.Conv2D(1, 3, padding="same"),
        ]
    )


def resnet20() -> Any:
    """Return the residual network of 20 layers for 32x32 pixels (He et al., 2015)."""

    def unit(x: Any, filters: int, strides: int = 1, is_last: bool = False) -> Any:
        x = layers.Conv2D(filters, 3, strides, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization()(x)
        return x if is_last else layers.ReLU()(x)

    image = keras.Input((32, 32, 3))
    x = unit(layers.Rescaling(1 / 255)(image), 16)
    for filters in (16, 32, 64):
        for block in range(3):
            strides = 2 if filters > 16 and block == 0 else 1
            y = unit(unit(x, filters, strides), filters, is_last=True)
            if strides > 1:
                x = layers.Conv2D(filters, 1, strides)(x)
            x = layers.ReLU()(layers.Add()([x, y]))
    return keras.Model(image, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


def unet() -> Any:
    """Return a U-Net of 128x128 pixels, 16 to 256 channels (Ronneberger et al., 2015)."""

    def block(x: Any, filters: int) -> Any:
        for _ in "12":
            x = layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
        return x

    image = keras.Input((128, 128, 3))
    x, passed_on = layers.Rescaling(1 / 255)(image), []
    for filters in (16, 32, 64, 128):
        passed_on.append(block(x, filters))
        x = layers.MaxPooling2D()(passed_on[-1])
    x = block(x, 256)
    for filters in (128, 64, 32, 16):
        x = layers.Conv2DTranspose(filters, 2, strides=2)(x)
        x = block(layers.Concatenate()([x, passed_on.pop()]), filters)
    return keras.Model(image, layers.Conv2D(1, 1)(x))


def c3d() -> Any:
    """Return a classifier of clips, 16 frames of 56x56 pixels (Tran et al., 2015)."""
    clip = keras.Input((16, 56, 56, 3))
    x = layers.Rescaling(1 / 255)(clip)
    for filters in (32, 64, 128):
        x = layers.Conv3D(filters, 3, padding="same", activation="relu")(x)
        x = layers.MaxPooling3D()(x)
    x = layers.Dense(256, activation="relu")(layers.Flatten()(x))
    return keras.Model(clip, layers.Dense(10)(x))


def mobilefacenet() -> Any:
    """Return a face descriptor like MobileFaceNet (Chen et al., 2018): learned slopes."""

    def unit(layer: Any, x: Any, has_slopes: bool = True) -> Any:
        x = layers.BatchNormalization()(layer(x))
        slopes = layers.PReLU(shared_axes=[1, 2], alpha_initializer="random_uniform")
        return slopes(x) if has_slopes else x

    def pointwise(filters: int) -> Any:
        return layers.Conv2D(filters, 1, use_bias=False, kernel_initializer="he_normal")

    def depthwise(strides: int, size: int = 3, padding: str = "same") -> Any:
        scale = keras.initializers.RandomNormal(stddev=1.4 / size)  # keeps activations alive
        return layers.DepthwiseConv2D(
            size, strides, padding, use_bias=False, depthwise_initializer=scale
        )

    def bottleneck(x: Any, expanded: int, filters: int, strides: int = 1) -> Any:
        y = unit(depthwise(strides), unit(pointwise(expanded), x))
        y = unit(pointwise(filters), y, has_slopes=False)
        return layers.Add()([x, y]) if strides == 1 else y

    face = keras.Input((112, 112, 3))
    x = layers.Rescaling(1 / 127.5, -1)(face)
    x = unit(layers.Conv2D(64, 3, 2, padding="same", use_bias=False), x)
    x = unit(depthwise(1), x)
    for expanded, filters, count in ((128, 64, 5), (256, 128, 7), (256, 128, 3)):
        x = bottleneck(x, expanded, filters, 2)
        for _ in range(count - 1):
            x = bottleneck(x, expanded, filters)
    x = unit(depthwise(1, 7, "valid"), unit(pointwise(512), x))
    return keras.Model(face, layers.Flatten()(unit(pointwise(128), x, has_slopes=False)))


def splice_ai() -> Any:
    """Return the 32 layers of SpliceAI for 101 of 10,101 bases (Jaganathan et al., 2019)."""

    def unit(x: Any, taps: int, rate: int) -> Any:
        y = x
        for _ in "12":
            y = layers.ReLU()(layers.BatchNormalization()(y))
            y = layers.Conv1D(32, taps, padding="same", dilation_rate=rate)(y)
        return layers.Add()([x, y])

    bases = keras.Input((10_101, 4))
    x = layers.Conv1D(32, 1)(layers.Rescaling(1 / 255)(bases))
    passed_on = [x]
    for taps, rate in ((11, 1), (11, 4), (21, 10), (41, 25)):
        for _ in range(4):
            x = unit(x, taps, rate)
        passed_on.append(x)
    x = layers.Add()([layers.Conv1D(32, 1)(each) for each in passed_on])
    return keras.Model(bases, layers.Conv1D(3, 1)(layers.Cropping1D(5000)(x)))


OWN: dict[str, Callable[[], Any]] = {
    "seed": seed, "LeNet": lenet, "autoencoder": autoencoder, "ResNet20": resnet20,
    "UNet": unet, "C3D": c3d, "SpliceAI": splice_ai, "MobileFaceNet": mobilefacenet,
}  # fmt: skip
