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


OWN: dict[str, Callable[[], Any]] = {
    "seed": seed, "LeNet": lenet, "autoencoder": autoencoder, "ResNet20": resnet20,
    "UNet": unet,
}  # fmt: skip
