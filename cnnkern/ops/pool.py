"""Pooling over windows and over whole feature maps."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..errors import ShapeError
from ..graph import Array, Op
from ..shapes import Pair, Shape, product
from .common import by_rank, channels_last, expect_rank, known, spatial_rank
from .config import LayerConfig, Weights
from .window import Padding, RowWindow, Window, output_lengths, paddings, take_padding, taps

if TYPE_CHECKING:
    from ..plan import Buffer, Lowering

LOWEST = np.finfo(np.float32).min  # what a window without any number returns


@dataclass(frozen=True)
class Pool(Op):
    """What the windowed poolings share.

    Parameters
    ----------
    pool_size, strides : one int per spatial axis
    padding : "valid", "same", or (before, after) per spatial axis
    """

    kernel: ClassVar[str]

    pool_size: tuple[int, ...] = (2, 2)
    strides: tuple[int, ...] = (2, 2)
    padding: Padding = "valid"

    @classmethod
    def from_keras(cls, config: LayerConfig, weights: Weights, shapes: Sequence[Shape]) -> Op:
        rank = spatial_rank(config.class_name)
        channels_last(config)
        pool_size = config.ints("pool_size", rank, 2)
        if config.options.get("strides", None) is None:
            config.ignore("strides")
        strides = config.ints("strides", rank, pool_size)
        op = cls(pool_size, strides, take_padding(config))
        config.finish()
        return op

    @property
    def window(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], Padding]:
        """Sizes, strides, dilations and padding, in the order that ops.window takes."""
        return self.pool_size, self.strides, (1,) * len(self.pool_size), self.padding

    def paddings(self, lengths: Sequence[int]) -> tuple[Pair, ...]:
        """Return (before, after) of every spatial axis for an input of these lengths."""
        return paddings(lengths, *self.window)

    def rows(self, shape: tuple[int, ...]) -> RowWindow:
        """Return the window along H on an image of this shape."""
        before, _ = self.paddings(shape[1:-1])[-2]
        return RowWindow(self.pool_size[-2], self.strides[-2], before)

    def infer_shape(self, *shapes: Shape) -> Shape:
        (x,) = shapes
        expect_rank(type(self).__name__, x, len(self.pool_size))
        return (x[0], *output_lengths(x[1:-1], *self.window), x[-1])

    def lower(self, lowering: Lowering, inputs: Sequence[Buffer], output: Buffer) -> None:
        (x,) = inputs
        window = Window.along(self.strides, (), self.paddings(x.shape[1:-1]))
        lowering.pool(self.kernel, x, output, self.pool_size, window)

    def flops(self, *shapes: tuple[int, ...]) -> int:
        return product(self.pool_size) * product(known(self.infer_shape(*shapes)))


@dataclass(frozen=True)
class MaxPool(Pool):
    """Take the largest number of each window; padding and NaN do not take part.

    A window of NaN or -inf alone gives -3.4028235e38, as TensorFlow does.

    References
    ----------
    https://keras.io/api/layers/pooling_layers
    """

    keras_classes: ClassVar = by_rank("MaxPooling{}D")
    kernel: ClassVar = "f32_max_pool"

    def reference(self, *inputs: Array) -> Array:
        (x,) = inputs
        y = np.full(known(self.infer_shape(x.shape)), LOWEST, np.float32)
        for _, outputs, reads in taps(x.shape[1:-1], *self.window):
            y[outputs] = np.where(x[reads] > y[outputs], x[reads], y[outputs])
        return y


@dataclass(frozen=True)
class AveragePool(Pool):
    """Take the mean of each window; padding does not count.

    References
    ----------
    https://keras.io/api/layers/pooling_layers
    """

    keras_classes: ClassVar = by_rank("AveragePooling{}D")
    kernel: ClassVar = "f32_average_pool"

    @np.errstate(all="ignore")
    def reference(self, *inputs: Array) -> Array:
        (x,) = inputs
        total = np.zeros(known(self.infer_shape(x.shape)), np.float32)
        count = np.zeros((*total.shape[:-1], 1), np.float32)
        for _, outputs, reads in taps(x.shape[1:-1], *self.window):
            total[outputs] += x[reads]
            count[outputs] += 1
        return total / count


@dataclass(frozen=True)
class GlobalPool(Op):
    """What the poolings over a whole feature map share.

    Parameters
    ----------
    rank : number of spatial axes
    keepdims : keep the spatial axes with length 1
    """

    kernel: ClassVar[str]

    rank: int = 2
    keepdims: bool = False

    @classmethod
    def from_keras(cls, config: LayerConfig, weights: Weights, shapes: Sequence[Shape]) -> Op:
        channels_last(config)
        op = cls(spatial_rank(config.class_name), config.flag("keepdims", False))
        config.finish()
        return op

    def infer_shape(self, *shapes: Shape) -> Shape:
        (x,) = shapes
        expect_rank(type(self).__name__, x, self.rank)
        if 0 in x[1:-1]:
            raise ShapeError(f"{type(self).__name__}: nothing to pool in {x}")
        return (x[0], *((1,) * self.rank if self.keepdims else ()), x[-1])

    @abstractmethod
    def reduce(self, x: Array) -> Array:
        """Reduce axis 1: ``float32[N, P, C] -> float32[N, C]``, P positions."""

    @np.errstate(all="ignore")
    def reference(self, *inputs: Array) -> Array:
        (x,) = inputs
        N, *_, C = x.shape
        positions = x.reshape(N, product(x.shape[1:-1]), C)
        return self.reduce(positions).reshape(known(self.infer_shape(x.shape)))

    def lower(self, lowering: Lowering, inputs: Sequence[Buffer], output: Buffer) -> None:
        lowering.global_pool(self.kernel, inputs[0], output)

    def flops(self, *shapes: tuple[int, ...]) -> int:
        return product(shapes[0])


@dataclass(frozen=True)
class GlobalMaxPool(GlobalPool):
    """Take each channel's largest number."""

    keras_classes: ClassVar = by_rank("GlobalMaxPooling{}D")
    kernel: ClassVar = "f32_global_max"

    def reduce(self, x: Array) -> Array:
        y: Array = x.max(axis=1)
        return y


@dataclass(frozen=True)
class GlobalAveragePool(GlobalPool):
    """Take each channel's mean."""

    keras_classes: ClassVar = by_rank("GlobalAveragePooling{}D")
    kernel: ClassVar = "f32_global_average"

    def reduce(self, x: Array) -> Array:
        y: Array = x.mean(axis=1)
        return y
