"""Ops that scale and shift by stored numbers, batch normalization among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..errors import ShapeError
from ..graph import Array, Axes, Op, as_array
from ..shapes import Shape, product
from .activation import Activation
from .common import (
    axis_length,
    expect_axis,
    from_end,
    permuted_axis,
    permuted_constant,
    take_array,
    take_axes,
)
from .config import LayerConfig, Weights

if TYPE_CHECKING:
    from ..plan import Buffer, Lowering


@dataclass(frozen=True, eq=False)
class BatchNorm(Op):
    """Normalize with stored statistics:
    ``y = (x - mean) / sqrt(variance + epsilon) * gamma + beta``.

    Parameters
    ----------
    gamma, beta : float32[C] or None
    mean, variance : float32[C]
    epsilon : float
    axis : the axis of C, counted from the end
    activation : applied last, or None

    References
    ----------
    https://keras.io/api/layers/normalization_layers/batch_normalization
    """

    keras_classes: ClassVar = ("keras.layers>BatchNormalization",)
    in_place: ClassVar = True

    gamma: Array | None
    beta: Array | None
    mean: Array
    variance: Array
    epsilon: float = 1e-3
    axis: int = -1
    activation: Activation | None = None

    @classmethod
    def from_keras(cls, config: LayerConfig, weights: Weights, shapes: Sequence[Shape]) -> Op:
        rank = len(shapes[0])
        value = config.take("axis", -1)
        if isinstance(value, (list, tuple)) and len(value) == 1:  # Keras 2 writes a list
            (value,) = value
        axis = from_end(config, "axis", value, rank)
        C = (axis_length(config, shapes[0], axis),)
        epsilon = config.number("epsilon", 1e-3)
        config.ignore("momentum", "synchronized", "renorm_momentum", "virtual_batch_size")
        config.ignore_training("gamma", "beta", "moving_mean", "moving_variance")
        gamma = weights.take("gamma", C) if config.flag("scale", True) else None
        beta = weights.take("beta", C) if config.flag("center", True) else None
        mean = weights.take("moving_mean", C)
        variance = weights.take("moving_variance", C)
        config.finish()
        return cls(gamma, beta, mean, variance, epsilon, axis)

    def scale_and_shift(self) -> tuple[Array, Array]:
        """Return float32[C] scale and shift with ``y = x * scale + shift``."""
        with np.errstate(all="ignore"):
            scale = 1 / np.sqrt(self.variance + np.float32(self.epsilon))
            if self.gamma is not None:
                scale = scale * self.gamma
            shift = -self.mean * scale
            if self.beta is not None:
                shift = shift + self.beta
        return scale.astype(np.float32), shift.astype(np.float32)

    def per_channel(self, C: int) -> tuple[Array, Array] | None:
        """Return float32[C] scale and shift of the last axis; None where it has none."""
        return self.scale_and_shift() if self.axis == -1 else None

    def infer_shape(self, *shapes: Shape) -> Shape:
        (x,) = shapes
        (C,) = self.mean.shape
        expect_axis("BatchNorm", x, self.axis, C)
        return x

    @np.errstate(all="ignore")
    def reference(self, *inputs: Array) -> Array:
        (x,) = inputs
        self.infer_shape(x.shape)
        scale, shift = self._broadcastable()
        return activated(x * scale + shift, self.activation)

    def lower(self, lowering: Lowering, inputs: Sequence[Buffer], output: Buffer) -> None:
        lowering.affine(self, inputs[0], output, *self._broadcastable(), self.activation)

    def _broadcastable(self) -> tuple[Array, Array]:
        trailing = (1,) * (-self.axis - 1)
        scale, shift = (v.reshape(-1, *trailing) for v in self.scale_and_shift())
        return scale, shift

    def permuted(self, order: Axes) -> Op:
        return replace(self, axis=permuted_axis(self.axis, order))

    def flops(self, *shapes: tuple[int, ...]) -> int:
        return 2 * product(shapes[0])


def activated(y: Array, activation: Activation | None) -> Array:
    """Return ``activation(y)``."""
    return y if activation is None else activation.reference(y)


def expect_trailing(name: str, x: Shape, constant: Shape) -> None:
    """Raise ShapeError unless an array of shape `constant` broadcasts to each sample of `x`."""
    trailing = zip(x[::-1], constant[::-1], strict=False)
    if len(constant) >= len(x) or any(c not in (1, n) for n, c in trailing if n is not None):
        raise ShapeError(f"{name}: {constant} does not broadcast to the samples of {x}")


@dataclass(frozen=True, eq=False)
class Affine(Op):
    """Scale and shift: ``y = x * scale + shift``.

    Parameters
    ----------
    scale, shift : float32 arrays that broadcast to a sample, most often [] or [C]
    activation : applied last, or None

    References
    ----------
    https://keras.io/api/layers/preprocessing_layers/image_preprocessing/rescaling
    """

    keras_classes: ClassVar = (
        "keras.layers>Rescaling",
        "keras.applications.convnext>LayerScale",
        "keras.layers>LayerScale",  # files of Keras 2 name no module
    )
    in_place: ClassVar = True

    scale: Array
    shift: Array
    activation: Activation | None = None

    @classmethod
    def from_keras(cls, config: LayerConfig, weights: Weights, shapes: Sequence[Shape]) -> Op:
        if config.class_name == "LayerScale":
            config.ignore("init_values")
            scale = weights.take("gamma", (config.integer("projection_dim"),))
            op = cls(scale, as_array(0).reshape(()))
        else:
            op = cls(take_array(config, "scale"), take_array(config, "offset", 0.0))
            if config.in_channels_first_model and 1 <= op.scale.ndim <= 2:
                # Keras puts it along the axis that its own settings call the channels'.
                config.unsupported("scale", op.scale.tolist(), "a number beside channels_first")
        config.finish()
        expect_trailing(config.title, shapes[0], op.scale.shape)
        expect_trailing(config.title, shapes[0], op.shift.shape)
        return op

    def scale_and_shift(self) -> tuple[Array, Array]:
        """Return both, as they broadcast to a sample."""
        return self.scale, self.shift

    def per_channel(self, C: int) -> tuple[Array, Array] | None:
        """Return float32[C] scale and shift; None where they vary along other axes."""
        if any(v.size != (v.shape or (1,))[-1] for v in (self.scale, self.shift)):
            return None
        scale, shift = (np.broadcast_to(v.ravel(), C) for v in (self.scale, self.shift))
        return scale, shift

    def infer_shape(self, *shapes: Shape) -> Shape:
        (x,) = shapes
        expect_trailing("Affine", x, self.scale.shape)
        expect_trailing("Affine", x, self.shift.shape)
        return x

    @np.errstate(all="ignore")
    def reference(self, *inputs: Array) -> Array:
        (x,) = inputs
        self.infer_shape(x.shape)
        return activated(x * self.scale + self.shift, self.activation)

    def lower(self, lowering: Lowering, inputs: Sequence[Buffer], output: Buffer) -> None:
        lowering.affine(self, inputs[0], output, self.scale, self.shift, self.activation)

    def permuted(self, order: Axes) -> Op:
        scale, shift = (permuted_constant(v, order) for v in (self.scale, self.shift))
        return replace(self, scale=scale, shift=shift)

    def flops(self, *shapes: tuple[int, ...]) -> int:
        return 2 * product(shapes[0])


@dataclass(frozen=True, eq=False)
class Normalization(Op):
    """Standardize with stored statistics: ``y = (x - mean) / max(sqrt(variance), 1e-7)``.

    Inverted, ``y = mean + x * max(sqrt(variance), 1e-7)``.

    Parameters
    ----------
    mean, variance : float32 arrays that broadcast to a sample, most often [C]
    invert : whether to undo the standardization

    References
    ----------
    https://keras.io/api/layers/preprocessing_layers/numerical/normalization
    """

    keras_classes: ClassVar = ("keras.layers>Normalization",)
    in_place: ClassVar = True

    mean: Array
    variance: Array
    invert: bool = False

    @classmethod
    def from_keras(cls, config: LayerConfig, weights: Weights, shapes: Sequence[Shape]) -> Op:
        (x,) = shapes
        axes = take_axes(config, len(x), least=0)
        lengths = tuple(axis_length(config, x, axis) for axis in axes)
        if config.options.get("mean") is None:
            config.ignore("mean")
            mean, variance = weights.take("mean", lengths), weights.take("variance", lengths)
            weights.skip("count")
        else:
            mean, variance = take_array(config, "mean"), take_array(config, "variance")
        op = cls(
            _along(config, "mean", mean, axes, lengths),
            _along(config, "variance", variance, axes, lengths),
            config.flag("invert", False),
        )
        config.finish()
        return op

    @property
    def deviation(self) -> Array:
        """What the input is divided by."""
        return np.maximum(np.sqrt(self.variance), np.float32(1e-7))

    def scale_and_shift(self) -> tuple[Array, Array]:
        """Return scale and shift with ``y = x * scale + shift``, rounded once more."""
        if self.invert:
            return self.deviation, self.mean
        return as_array(1 / self.deviation), as_array(-self.mean / self.deviation)

    def infer_shape(self, *shapes: Shape) -> Shape:
        (x,) = shapes
        expect_trailing("Normalization", x, self.mean.shape)
        return x

    @np.errstate(all="ignore")
    def reference(self, *inputs: Array) -> Array:
        (x,) = inputs
        self.infer_shape(x.shape)
        if self.invert:
            return self.mean + x * self.deviation
        return (x - self.mean) / self.deviation

    def lower(self, lowering: Lowering, inputs: Sequence[Buffer], output: Buffer) -> None:
        if self.invert:
            lowering.affine(self, inputs[0], output, self.deviation, self.mean)
        else:
            lowering.standardize(self, inputs[0], output, self.mean, self.deviation)

    def permuted(self, order: Axes) -> Op:
        mean, variance = (permuted_constant(v, order) for v in (self.mean, self.variance))
        return replace(self, mean=mean, variance=variance)

    def flops(self, *shapes: tuple[int, ...]) -> int:
        return 2 * product(shapes[0])


def _along(
    config: LayerConfig, key: str, values: Array, axes: Sequence[int], lengths: Sequence[int]
) -> Array:
    """Return one value per position of `axes` as an array that broadcasts to a sample."""
    try:
        values = np.broadcast_to(values, lengths)
    except ValueError:
        config.malformed(key, values.tolist(), f"numbers that broadcast to {lengths}")
    return as_array(values).reshape(trailing_shape(axes, lengths))


def trailing_shape(axes: Sequence[int], lengths: Sequence[int]) -> tuple[int, ...]:
    """Return the shortest shape with `lengths` along `axes`, counted from the end."""
    shape = [1] * max((-axis for axis in axes), default=0)
    for axis, length in zip(axes, lengths, strict=True):
        shape[axis] = length
    return tuple(shape)
