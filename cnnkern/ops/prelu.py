"""Leaky rectifier with learned slopes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..graph import Array, Axes, Op
from ..shapes import Shape, product
from .activation import Activation
from .common import axis_length, permuted_constant
from .config import LayerConfig, Weights
from .norm import expect_trailing

if TYPE_CHECKING:
    from ..plan import Buffer, Lowering


@dataclass(frozen=True, eq=False)
class PReLU(Op):
    """Scale negative elements by learned slopes: ``y = max(x, 0) - alpha * max(-x, 0)``.

    Parameters
    ----------
    alpha : float32 array that broadcasts to a sample; an axis of length 1 is shared

    References
    ----------
    He et al. 2015, https://arxiv.org/abs/1502.01852
    """

    keras_classes: ClassVar = ("keras.layers>PReLU",)
    in_place: ClassVar = True
    bounds: ClassVar = None  # as of an Activation: it does not clip

    alpha: Array

    @classmethod
    def from_keras(cls, config: LayerConfig, weights: Weights, shapes: Sequence[Shape]) -> Op:
        (x,) = shapes
        value = config.take("shared_axes", None)
        axes = value if isinstance(value, (list, tuple)) else () if value is None else (value,)
        if not all(type(axis) is int and 0 < axis < len(x) for axis in axes):
            config.unsupported("shared_axes", value, f"axes 1 to {len(x) - 1}")
        lengths = [
            1 if axis in axes else axis_length(config, x, axis) for axis in range(1, len(x))
        ]
        config.ignore_training("alpha")
        config.finish()
        return cls(weights.take("alpha", lengths))

    def infer_shape(self, *shapes: Shape) -> Shape:
        (x,) = shapes
        expect_trailing("PReLU", x, self.alpha.shape)
        return x

    @np.errstate(all="ignore")
    def reference(self, *inputs: Array) -> Array:
        (x,) = inputs
        self.infer_shape(x.shape)
        zero = np.float32(0)
        return np.maximum(x, zero) - self.alpha * np.maximum(-x, zero)

    def lower(self, lowering: Lowering, inputs: Sequence[Buffer], output: Buffer) -> None:
        (x,) = inputs
        alpha = lowering.constant_buffer(self, "alpha", self.alpha, len(x.shape))
        lowering.binary("f32_prelu", x, alpha, output)

    def slopes(self, C: int) -> Array | None:
        """Return the factors of what is negative, float32[C], if all pixels have the same."""
        alpha = self.alpha
        is_per_channel = alpha.size == alpha.shape[-1] and alpha.size in (1, C)
        return np.broadcast_to(alpha.ravel(), C) if is_per_channel else None

    def permuted(self, order: Axes) -> Op:
        return replace(self, alpha=permuted_constant(self.alpha, order))

    def flops(self, *shapes: tuple[int, ...]) -> int:
        return 3 * product(shapes[0])


Elementwise = Activation | PReLU  # what an op may apply to its results
