"""Normalizations that take their statistics from the sample itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..errors import ShapeError
from ..graph import Array, Axes, Op, as_array
from ..shapes import Shape, product
from .common import (
    axis_length,
    expect_axis,
    from_end,
    permuted_axes,
    permuted_axis,
    permuted_constant,
    take_axes,
)
from .config import LayerConfig, Weights
from .norm import trailing_shape

if TYPE_CHECKING:
    from ..plan import Buffer, Lowering

LONGEST = 1e12  # factor of UnitNorm: a vector that is shorter than its inverse is not unit


def take_per_axis(
    config: LayerConfig, weights: Weights, names: Sequence[str], shape: Shape
) -> tuple[tuple[int, ...], list[Array]]:
    """Take `axis` and one array per name; return axes and arrays that broadcast to a sample.

    Keras sorts the axes as they are written and reshapes the array to the sample's order, so
    that axis=[-1, 1] reads float32[C, H] as if it were float32[H, C].
    """
    value = config.options.get("axis", -1)
    axes = take_axes(config, len(shape))
    written = sorted(value) if isinstance(value, (list, tuple)) else [value]
    lengths = tuple(axis_length(config, shape, axis) for axis in written)
    trailing = trailing_shape(axes, tuple(axis_length(config, shape, a) for a in axes))
    return axes, [weights.take(name, lengths).reshape(trailing) for name in names]


@dataclass(frozen=True, eq=False)
class SampleNorm(Op):
    """What the normalizations over axes of one sample share.

    Parameters
    ----------
    axes : the axes over which the statistics are taken, counted from the end
    epsilon : added to the variance or the mean square
    gamma, beta : float32 arrays that broadcast to a sample, most often [C], or None
    """

    in_place: ClassVar = True
    kernel: ClassVar[str]

    axes: tuple[int, ...] = (-1,)
    epsilon: float = 1e-3
    gamma: Array | None = None
    beta: Array | None = None

    def infer_shape(self, *shapes: Shape) -> Shape:
        (x,) = shapes
        name = type(self).__name__
        if len(x) <= -self.axes[0]:
            raise ShapeError(f"{name}: expected axes {self.axes} behind the batch, got {x}")
        for axis in self.axes:
            if self.gamma is not None:
                expect_axis(name, x, axis, self.gamma.shape[axis])
        return x

    def lower(self, lowering: Lowering, inputs: Sequence[Buffer], output: Buffer) -> None:
        lowering.norm(
            self.kernel, self, inputs[0], output, self.axes, self.gamma, self.beta,
            epsilon=self.epsilon,
        )  # fmt: skip

    def permuted(self, order: Axes) -> Op:
        gamma, beta = (
            None if v is None else permuted_constant(v, order) for v in (self.gamma, self.beta)
        )
        return replace(self, axes=permuted_axes(self.axes, order), gamma=gamma, beta=beta)

    def flops(self, *shapes: tuple[int, ...]) -> int:
        return 8 * product(shapes[0])


@dataclass(frozen=True, eq=False)
class LayerNorm(SampleNorm):
    """Normalize each sample: ``y = (x - mean) / sqrt(variance + epsilon) * gamma + beta``.

    References
    ----------
    Ba et al. 2016, https://arxiv.org/abs/1607.06450
    """

    keras_classes: ClassVar = ("keras.layers>LayerNormalization",)
    kernel: ClassVar = "f32_layer_norm"

    @classmethod
    def from_keras(cls, config: LayerConfig, weights: Weights, shapes: Sequence[Shape]) -> Op:
        config.choice("rms_scaling", (False,), False)
        config.ignore_training("gamma", "beta")
        given = {"gamma": config.flag("scale", True), "beta": config.flag("center", True)}
        names = [name for name, is_given in given.items() if is_given]
        axes, arrays = take_per_axis(config, weights, names, shapes[0])
        op = cls(axes, config.number("epsilon", 1e-3), **dict(zip(names, arrays, strict=True)))
        config.finish()
        return op

    @np.errstate(all="ignore")
    def reference(self, *inputs: Array) -> Array:
        (x,) = inputs
        self.infer_shape(x.shape)
        return standardize(x, self.axes, self.epsilon, self.gamma, self.beta)


@dataclass(frozen=True, eq=False)
class RMSNorm(SampleNorm):
    """Divide by the root mean square: ``y = x / sqrt(mean(x * x) + epsilon) * gamma``.

    References
    ----------
    Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467
    """

    keras_classes: ClassVar = ("keras.layers>RMSNormalization",)
    kernel: ClassVar = "f32_rms_norm"

    @classmethod
    def from_keras(cls, config: LayerConfig, weights: Weights, shapes: Sequence[Shape]) -> Op:
        axes, (gamma,) = take_per_axis(config, weights, ("scale",), shapes[0])
        if axes != tuple(range(-len(axes), 0)):
            # Keras does not reshape the scale, which then stands along other axes.
            config.unsupported("axis", axes, "the last axes")
        op = cls(axes, config.number("epsilon", 1e-6), gamma)
        config.finish()
        return op

    @np.errstate(all="ignore")
    def reference(self, *inputs: Array) -> Array:
        (x,) = inputs
        self.infer_shape(x.shape)
        x64 = x.astype(np.float64)
        mean_square = (x64 * x64).mean(axis=self.axes, keepdims=True)
        y = x64 / np.sqrt(mean_square + self.epsilon)
        return as_array(y if self.gamma is None else y * self.gamma)


@dataclass(frozen=True)
class UnitNorm(Op):
    """Scale to unit length: ``y = x * min(1 / sqrt(sum(x * x)), 1e12)`` over `axes`.

    References
    ----------
    https://keras.io/api/layers/normalization_layers/unit_normalization
    """

    keras_classes: ClassVar = ("keras.layers>UnitNormalization",)
    in_place: ClassVar = True

    axes: tuple[int, ...] = (-1,)

    @classmethod
    def from_keras(cls, config: LayerConfig, weights: Weights, shapes: Sequence[Shape]) -> Op:
        op = cls(take_axes(config, len(shapes[0])))
        config.finish()
        return op

    def infer_shape(self, *shapes: Shape) -> Shape:
        (x,) = shapes
        if len(x) <= -self.axes[0]:
            raise ShapeError(f"UnitNorm: expected axes {self.axes} behind the batch, got {x}")
        return x

    @np.errstate(all="ignore")
    def reference(self, *inputs: Array) -> Array:
        (x,) = inputs
        self.infer_shape(x.shape)
        square_sum = (x * x).sum(axis=self.axes, keepdims=True)
        y: Array = x * np.minimum(1 / np.sqrt(square_sum), np.float32(LONGEST))
        return y

    def lower(self, lowering: Lowering, inputs: Sequence[Buffer], output: Buffer) -> None:
        lowering.rows("f32_unit_norm", inputs[0], output, self.axes, limit=LONGEST)

    def permuted(self, order: Axes) -> Op:
        return replace(self, axes=permuted_axes(self.axes, order))

    def flops(self, *shapes: tuple[int, ...]) -> int:
        return 3 * product(shapes[0])


@dataclass(frozen=True, eq=False)
class GroupNorm(Op):
    """Normalize groups of channels of each sample:
    ``y = (x - mean) / sqrt(variance + epsilon) * gamma + beta``, statistics per group.

    Parameters
    ----------
    groups : number of groups into which the C channels are cut
    axis : the axis of C, counted from the end
    epsilon : float
    gamma, beta : float32[C] or None

    References
    ----------
    Wu and He 2018, https://arxiv.org/abs/1803.08494
    """

    keras_classes: ClassVar = ("keras.layers>GroupNormalization",)
    in_place: ClassVar = True

    groups: int
    axis: int = -1
    epsilon: float = 1e-3
    gamma: Array | None = None
    beta: Array | None = None

    @classmethod
    def from_keras(cls, config: LayerConfig, weights: Weights, shapes: Sequence[Shape]) -> Op:
        axis = from_end(config, "axis", config.take("axis", -1), len(shapes[0]))
        C = axis_length(config, shapes[0], axis)
        groups = config.integer("groups", 32, least=-1)
        groups = C if groups == -1 else groups
        if groups < 1 or C % groups:
            config.malformed("groups", groups, f"-1 or a divisor of {C} channels")
        config.ignore_training("gamma", "beta")
        gamma = weights.take("gamma", (C,)) if config.flag("scale", True) else None
        beta = weights.take("beta", (C,)) if config.flag("center", True) else None
        op = cls(groups, axis, config.number("epsilon", 1e-3), gamma, beta)
        config.finish()
        return op

    def infer_shape(self, *shapes: Shape) -> Shape:
        (x,) = shapes
        C = None if len(x) <= -self.axis else x[self.axis]
        if len(x) <= -self.axis or (C is not None and C % self.groups):
            expected = f"a multiple of {self.groups} along axis {self.axis}"
            raise ShapeError(f"GroupNorm: expected {expected}, got {x}")
        if self.gamma is not None:
            expect_axis("GroupNorm", x, self.axis, self.gamma.size)
        return x

    @np.errstate(all="ignore")
    def reference(self, *inputs: Array) -> Array:
        (x,) = inputs
        self.infer_shape(x.shape)
        last = np.moveaxis(x, self.axis, -1)
        N, *space, C = last.shape
        grouped = last.reshape(N, product(tuple(space)), self.groups, C // self.groups)
        y = standardize(grouped, (1, 3), self.epsilon, None, None).reshape(last.shape)
        y = y if self.gamma is None else y * self.gamma
        y = y if self.beta is None else y + self.beta
        return np.ascontiguousarray(np.moveaxis(y, -1, self.axis))

    def lower(self, lowering: Lowering, inputs: Sequence[Buffer], output: Buffer) -> None:
        lowering.group_norm(
            self, inputs[0], output, self.groups, self.axis, self.gamma, self.beta, self.epsilon
        )

    def permuted(self, order: Axes) -> Op:
        return replace(self, axis=permuted_axis(self.axis, order))

    def flops(self, *shapes: tuple[int, ...]) -> int:
        return 8 * product(shapes[0])


def standardize(
    x: Array, axes: tuple[int, ...], epsilon: float, gamma: Array | None, beta: Array | None
) -> Array:
    """Return ``(x - mean) / sqrt(variance + epsilon) * gamma + beta`` over `axes`."""
    x64 = x.astype(np.float64)
    centred = x64 - x64.mean(axis=axes, keepdims=True)
    variance = (centred * centred).mean(axis=axes, keepdims=True)
    y = centred / np.sqrt(variance + epsilon)
    y = y if gamma is None else y * gamma
    y = y if beta is None else y + beta
    return as_array(y)
