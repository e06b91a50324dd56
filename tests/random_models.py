"""Random Keras models whose activations keep a spread at every depth.

`weights=None` gives identity BatchNorm statistics and near-uniform outputs, where any two
programs agree; `randomise` draws every weight so that a difference would show.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def randomise(model: Any, rng: np.random.Generator) -> None:
    """Draw all weights: He-scaled filters, BatchNorm statistics away from the identity."""
    for weight in model.weights:
        shape, role = tuple(weight.shape), weight.path.rsplit("/", 1)[-1]
        if role in ("moving_variance", "variance", "gamma"):
            value = rng.uniform(0.5, 1.5, shape)
        elif role in ("moving_mean", "mean", "beta", "bias"):
            value = rng.normal(0, 0.2, shape)
        else:
            fan_in = max(int(np.prod(shape[:-1])), 1)
            value = rng.normal(0, np.sqrt(2 / fan_in), shape)
        weight.assign(value.astype(np.float32))
    for layer in model.layers:
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()  # it computes with copies of its weights


class Builder:
    """Draws one functional model from the layers of the first coverage list."""

    def __init__(self, rng: np.random.Generator) -> None:
        from keras import layers

        self.rng, self.layers = rng, layers

    def pick(self, *options: Any) -> Any:
        return options[self.rng.integers(len(options))]

    def build(self) -> Any:
        """Return a model that ends in logits."""
        import keras

        size = (int(self.rng.integers(6, 20)), int(self.rng.integers(6, 20)))
        inputs = keras.Input((*size, self.pick(1, 2, 3, 4)))
        x = inputs
        for _ in range(self.rng.integers(2, 6)):
            x = self.block(x)
        x = self.head(x)
        x = self.layers.Dense(int(self.rng.integers(2, 20)))(x)
        model = keras.Model(inputs, x)
        randomise(model, self.rng)
        return model

    def block(self, x: Any) -> Any:
        """Append a random block that keeps the spatial axes at 2 or more."""
        names = (
            "conv",
            "conv",
            "conv_norm",
            "residual",
            "branches",
            "pad",
            "activation",
            "norm",
        )
        if min(x.shape[1:3]) >= 4:
            names += ("pool", "pool")
        return getattr(self, self.pick(*names))(x)

    def conv(self, x: Any, **options: Any) -> Any:
        groups = self.pick(1, 1, 1, *([x.shape[-1]] if x.shape[-1] in (2, 3, 4, 8) else []))
        filters = int(groups * self.rng.integers(1, 5 if groups > 1 else 40))
        strided = self.pick(True, False) and min(x.shape[1:3]) >= 6
        window = (
            {"strides": self.pick(1, 2, (2, 1))}
            if strided
            else {"dilation_rate": self.pick(1, 2)}
        )
        chosen = {
            "filters": filters, "kernel_size": self.pick(1, 2, 3, (1, 3), (3, 2)),
            "padding": "same" if min(x.shape[1:3]) < 6 else self.pick("same", "valid"),
            "use_bias": self.pick(True, False), "groups": groups,
            "activation": self.pick(None, "relu", "tanh", "sigmoid", "linear"),
        }  # fmt: skip
        return self.layers.Conv2D(**{**chosen, **window, **options})(x)

    def conv_norm(self, x: Any) -> Any:
        x = self.conv(x, activation=None)
        x = self.norm(x)
        return self.layers.ReLU()(x)

    def norm(self, x: Any) -> Any:
        options = {"scale": self.pick(True, False), "center": self.pick(True, False)}
        return self.layers.BatchNormalization(epsilon=self.pick(1e-3, 1e-5), **options)(x)

    def residual(self, x: Any) -> Any:
        C = x.shape[-1]
        y = self.conv(x, filters=C, groups=1, strides=1, dilation_rate=1, padding="same")
        y = self.norm(y) if self.pick(True, False) else y
        return self.layers.Activation(self.pick("relu", "tanh", "linear"))(
            self.layers.Add()([x, y])
        )

    def branches(self, x: Any) -> Any:
        options = {"strides": 1, "padding": "same"}
        parts = [self.conv(x, **options) for _ in range(self.rng.integers(2, 4))]
        return self.layers.Concatenate()([*parts, x])

    def pool(self, x: Any) -> Any:
        pool = self.pick(self.layers.MaxPooling2D, self.layers.AveragePooling2D)
        options = {"strides": self.pick(None, 1, 2), "padding": self.pick("same", "valid")}
        return pool(self.pick(2, 3, (2, 1)), **options)(x)

    def pad(self, x: Any) -> Any:
        x = self.layers.ZeroPadding2D(self.pick(1, (0, 2), ((1, 0), (2, 1))))(x)
        return self.conv(x, padding="valid") if self.pick(True, False) else x

    def activation(self, x: Any) -> Any:
        layers = self.layers
        choices = [
            layers.ReLU(), layers.ReLU(max_value=6.0), layers.Activation("sigmoid"),
            layers.Dropout(0.5),
        ]  # fmt: skip
        if x.shape[-1] > 1:  # Keras warns of a softmax over one element
            choices.append(layers.Softmax())
        return self.pick(*choices)(x)

    def head(self, x: Any) -> Any:
        layers = self.layers
        kind = self.pick("flatten", "average", "max", "reshape")
        if kind == "flatten":
            return layers.Flatten()(x)
        if kind == "reshape":
            H, W, C = x.shape[1:]
            return layers.Flatten()(layers.Reshape((H * W, C))(x))
        pool = layers.GlobalAveragePooling2D if kind == "average" else layers.GlobalMaxPooling2D
        x = pool(keepdims=True)(x)
        return layers.Flatten()(x)
