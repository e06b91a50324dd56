"""What convolutions of all kinds share: a filter slides over the input."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..graph import Array, Halo
from ..lazy import Weight
from ..shapes import Pair, Shape, product
from .common import channels_last, expect_channels, expect_inputs, known
from .config import LayerConfig
from .prelu import Elementwise
from .residual import Residual, epilogue, expect_residual
from .window import Padding, Window, halo, output_lengths, paddings, take_padding, taps


@dataclass(frozen=True, eq=False)
class SlidingFilter(Residual):
    """What convolution and depthwise convolution share: a filter slides over the input.

    Implicit padding adds nothing, even where a weight is infinite.

    Parameters
    ----------
    filter : float32[*K, ...], one K per spatial axis
    bias : float32[OC] or None
    strides, dilation_rate : one int per spatial axis
    padding : "valid", "same", "causal", or (before, after) per spatial axis
    activation : applied last, or None
    adds_residual : input 1, of the output's shape, is added before the activation
    """

    filter: Weight
    bias: Array | None = None
    strides: tuple[int, ...] = (1, 1)
    padding: Padding = "valid"
    dilation_rate: tuple[int, ...] = (1, 1)
    activation: Elementwise | None = None
    adds_residual: bool = False

    @property
    @abstractmethod
    def in_channels(self) -> int:
        """C of the input."""

    @property
    @abstractmethod
    def out_channels(self) -> int:
        """OC of the output."""

    @abstractmethod
    def multiply(self, x: Array, w: Array) -> Array:
        """Return one tap's share of the output: ``float32[..., C] -> float32[..., OC]``."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Filter taps per spatial axis."""
        return self.filter.shape[:-2]

    @property
    def window(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], Padding]:
        """Sizes, strides, dilations and padding, in the order that ops.window takes."""
        return self.sizes, self.strides, self.dilation_rate, self.padding

    def paddings(self, lengths: Sequence[int]) -> tuple[Pair, ...]:
        """Return (before, after) of every spatial axis for an input of these lengths."""
        return paddings(lengths, *self.window)

    def window_on(self, lengths: Sequence[int]) -> Window:
        """Return how the filter slides over an input of these lengths."""
        return Window.along(self.strides, self.dilation_rate, self.paddings(lengths))

    def infer_shape(self, *shapes: Shape) -> Shape:
        name = type(self).__name__
        expect_inputs(name, shapes, 2 if self.adds_residual else 1)
        x, *residual = shapes
        expect_channels(name, x, len(self.sizes), self.in_channels)
        y = (x[0], *output_lengths(x[1:-1], *self.window), self.out_channels)
        expect_residual(name, residual, y)
        return y

    @np.errstate(all="ignore")
    def reference(self, *inputs: Array) -> Array:
        x, *residual = inputs
        y = np.zeros(known(self.infer_shape(*(i.shape for i in inputs))), np.float32)
        w = np.asarray(self.filter)
        for tap, outputs, reads in taps(x.shape[1:-1], *self.window):
            y[outputs] += self.multiply(x[reads], w[tap])
        return epilogue(y, self.bias, residual, self.activation)

    def input_halo(self, *shapes: tuple[int, ...]) -> Halo:
        return halo(self.paddings(shapes[0][1:-1]))

    def flops(self, *shapes: tuple[int, ...]) -> int:
        depth = product(self.filter.shape[:-1])
        return 2 * depth * product(known(self.infer_shape(*shapes)))


def take_window(config: LayerConfig, rank: int, *more_modes: str) -> dict[str, Any]:
    """Take strides, padding and dilation_rate as keyword arguments of a SlidingFilter."""
    channels_last(config)
    return {
        "strides": config.ints("strides", rank, 1),
        "padding": take_padding(config, *more_modes),
        "dilation_rate": config.ints("dilation_rate", rank, 1),
    }


def check_strides(config: LayerConfig, options: dict[str, Any]) -> None:
    """Refuse strides and dilation together, as the Keras layer does."""
    strides, dilation_rate = options["strides"], options["dilation_rate"]
    if max(strides) > 1 and max(dilation_rate) > 1:
        expected = f"{(1,) * len(strides)} with strides={strides}"
        config.malformed("dilation_rate", dilation_rate, expected)
