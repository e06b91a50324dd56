"""Fully connected layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..errors import ShapeError
from ..graph import Array, Op
from ..lazy import Scaled, Weight
from ..shapes import Shape, product
from .activation import with_activation
from .common import axis_length, expect_inputs
from .config import LayerConfig, Weights
from .conv import matrix_kernels
from .prelu import Elementwise
from .residual import Residual, epilogue, expect_residual

if TYPE_CHECKING:
    from ..plan import Buffer, Lowering


@dataclass(frozen=True, eq=False)
class Dense(Residual):
    """Multiply the last axis by a matrix:
    ``y[..., o] = b[o] + sum over c of x[..., c] * w[c, o]``.

    Parameters
    ----------
    weight : float32[C, units]
    bias : float32[units] or None
    activation : applied last, or None
    adds_residual : input 1 is added before the activation
    may_transform : Strassen's algorithm, which rounds less well, may be used
    may_round : for a few rows per sample, the weight may be rounded to 24 bits

    References
    ----------
    https://keras.io/api/layers/core_layers/dense
    """

    keras_classes: ClassVar = ("keras.layers>Dense",)

    weight: Weight
    bias: Array | None = None
    activation: Elementwise | None = None
    adds_residual: bool = False
    may_transform: bool = False
    may_round: bool = False

    @classmethod
    def from_keras(
        cls, config: LayerConfig, weights: Weights, shapes: Sequence[Shape]
    ) -> Op | tuple[Op, ...]:
        C = axis_length(config, shapes[0], -1)
        units = config.integer("units")
        config.ignore_training("kernel", "bias")
        weight = weights.defer("kernel", (C, units))
        bias = weights.take("bias", (units,)) if config.flag("use_bias", True) else None
        return with_activation(config, cls(weight, bias))

    @property
    def out_channels(self) -> int:
        return int(self.weight.shape[1])

    @property
    def size_kernels(self) -> tuple[str, ...]:
        return matrix_kernels(self.may_transform, self.may_round)

    def scaled(self, scale: Array, shift: Array) -> Dense:
        """Return the op whose result is ``y * scale + shift``, float32[units] each."""
        bias = shift if self.bias is None else self.bias * scale + shift
        return replace(self, weight=Scaled(self.weight, scale), bias=bias)

    def infer_shape(self, *shapes: Shape) -> Shape:
        expect_inputs("Dense", shapes, 2 if self.adds_residual else 1)
        x, *residual = shapes
        C, units = self.weight.shape
        if len(x) < 2 or x[-1] not in (None, C):
            raise ShapeError(f"Dense: expected [N, ..., {C}], got {x}")
        y = (*x[:-1], units)
        expect_residual("Dense", residual, y)
        return y

    @np.errstate(all="ignore")
    def reference(self, *inputs: Array) -> Array:
        self.infer_shape(*(i.shape for i in inputs))
        x, *residual = inputs
        return epilogue(x @ np.asarray(self.weight), self.bias, residual, self.activation)

    def lower(self, lowering: Lowering, inputs: Sequence[Buffer], output: Buffer) -> None:
        x, *residual = inputs
        lowering.conv(
            self, x, output, self.weight, self.bias, activation=self.activation,
            residual=residual, may_halve=self.may_transform, may_round=self.may_round,
        )  # fmt: skip

    def flops(self, *shapes: tuple[int, ...]) -> int:
        return 2 * product(shapes[0]) * int(self.weight.shape[1])
