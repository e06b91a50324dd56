"""Depthwise convolutions, and separable ones as a chain of depthwise and pointwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..graph import Array, Halo, Op
from ..shapes import Shape, product
from .activation import with_activation
from .common import by_rank, input_channels, spatial_rank
from .config import LayerConfig, Weights
from .conv import Conv
from .sliding import SlidingFilter, take_window
from .window import RowWindow, halo

if TYPE_CHECKING:
    from ..plan import Buffer, Lowering


@dataclass(frozen=True, eq=False)
class DepthwiseConv(SlidingFilter):
    """Filter each channel by itself:
    ``y[n, o, c*CM + m] = b[c*CM + m] + sum over k of x[n, o*S + k*D - P, c] * w[k, c, m]``.

    Parameters
    ----------
    filter : float32[*K, C, CM]

    References
    ----------
    https://keras.io/api/layers/convolution_layers/depthwise_convolution2d
    """

    keras_classes: ClassVar = by_rank("DepthwiseConv{}D", "SeparableConv{}D", ranks=(1, 2))

    @classmethod
    def from_keras(
        cls, config: LayerConfig, weights: Weights, shapes: Sequence[Shape]
    ) -> Op | tuple[Op, ...]:
        rank = spatial_rank(config.class_name)
        C = input_channels(config, shapes[0], rank)
        CM = config.integer("depth_multiplier", 1)
        options = take_window(config, rank)
        filter_shape = (*config.ints("kernel_size", rank), C, CM)
        config.choice("groups", (1,), 1)  # Keras 2 writes this and the options of "kernel"
        config.ignore_training("depthwise", "pointwise", "bias", "kernel")
        if config.class_name.startswith("Separable"):
            filter = weights.take("depthwise_kernel", filter_shape)
            pointwise = _pointwise(config, weights, C * CM)
            return with_activation(config, cls(filter, **options), pointwise)
        filter = weights.take("kernel", filter_shape)
        bias = weights.take("bias", (C * CM,)) if config.flag("use_bias", True) else None
        return with_activation(config, cls(filter, bias, **options))

    @property
    def in_channels(self) -> int:
        return int(self.filter.shape[-2])

    @property
    def out_channels(self) -> int:
        return product(self.filter.shape[-2:])

    def rows(self, shape: tuple[int, ...]) -> RowWindow:
        """Return the window along H, which is dense, on an image of this shape."""
        return RowWindow(self.sizes[-2], self.strides[-2], self.paddings(shape[1:-1])[-2][0])

    def input_halo(self, *shapes: tuple[int, ...]) -> Halo:
        """Return the padding along W; rows outside of the image are left out."""
        *outer, along_w = self.paddings(shapes[0][1:-1])
        return halo([*((0, 0) for _ in outer), along_w])

    def multiply(self, x: Array, w: Array) -> Array:
        products = x[..., None] * w
        return products.reshape(*x.shape[:-1], self.out_channels)

    @property
    def takes_residual(self) -> bool:
        return False

    def scaled(self, scale: Array, shift: Array) -> DepthwiseConv:
        """Return the op whose result is ``y * scale + shift``, float32[C*CM] each."""
        bias = shift if self.bias is None else self.bias * scale + shift
        scales = scale.reshape(self.filter.shape[-2:])
        return replace(self, filter=np.asarray(self.filter) * scales, bias=bias)

    def lower(self, lowering: Lowering, inputs: Sequence[Buffer], output: Buffer) -> None:
        (x,) = inputs
        window, filters = self.window_on(x.shape[1:-1]), np.asarray(self.filter)
        lowering.depthwise(self, x, output, filters, self.bias, window, self.activation)

    def flops(self, *shapes: tuple[int, ...]) -> int:
        return super().flops(*shapes) // self.in_channels


def _pointwise(config: LayerConfig, weights: Weights, C: int) -> Conv:
    ones = (1,) * spatial_rank(config.class_name)
    OC = config.integer("filters")
    filter = weights.defer("pointwise_kernel", (*ones, C, OC))
    bias = weights.take("bias", (OC,)) if config.flag("use_bias", True) else None
    return Conv(filter, bias, strides=ones, dilation_rate=ones)
