"""Receptive fields as the rows of a matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..graph import Array, Op
from ..shapes import Shape, product
from .common import expect_rank
from .config import LayerConfig, Weights
from .window import Padding, Window, output_lengths, paddings, taps

if TYPE_CHECKING:
    from ..plan import Buffer, Lowering


@dataclass(frozen=True)
class Im2col(Op):
    """Copy each receptive field: ``float32[N, H, W, C] -> float32[N, OH, OW, KH*KW*C]``.

    Multiplied by the filters as a matrix ``[KH*KW*C, OC]`` it is the convolution
    (Chellapilla et al., "High performance convolutional neural networks", 2006).

    Parameters
    ----------
    sizes, strides, dilation_rate : (int, int)
    padding : "valid", "same", or (before, after) per spatial axis
    """

    sizes: tuple[int, ...]
    strides: tuple[int, ...] = (1, 1)
    padding: Padding = "valid"
    dilation_rate: tuple[int, ...] = (1, 1)

    @classmethod
    def from_keras(cls, config: LayerConfig, weights: Weights, shapes: Sequence[Shape]) -> Op:
        config.unsupported("class_name", config.class_name, "layers that Keras has")

    def infer_shape(self, *shapes: Shape) -> Shape:
        (x,) = shapes
        expect_rank("Im2col", x, 2)
        N, H, W, C = x
        lengths = output_lengths((H, W), *self._window)
        return (N, *lengths, None if C is None else C * product(self.sizes))

    def reference(self, *inputs: Array) -> Array:
        (x,) = inputs
        C = x.shape[-1]
        y = np.zeros(tuple(n or 0 for n in self.infer_shape(x.shape)), np.float32)
        for index, (_, outputs, reads) in enumerate(taps(x.shape[1:-1], *self._window)):
            y[(*outputs, slice(index * C, (index + 1) * C))] = x[reads]
        return y

    def lower(self, lowering: Lowering, inputs: Sequence[Buffer], output: Buffer) -> None:
        (x,) = inputs
        padding = paddings(x.shape[1:-1], *self._window)
        window = Window.along(self.strides, self.dilation_rate, padding)
        lowering.unfold(x, output, self.sizes, window)

    @property
    def _window(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], Padding]:
        return self.sizes, self.strides, self.dilation_rate, self.padding
