"""Pooling to a fixed output size."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..errors import ShapeError
from ..graph import Array, Op
from ..shapes import Shape, product
from .common import by_rank, channels_last, expect_rank, known, spatial_rank
from .config import LayerConfig, Weights
from .pool import LOWEST
from .window import Slices, Window

if TYPE_CHECKING:
    from ..plan import Buffer, Lowering


@dataclass(frozen=True)
class AdaptivePool(Op):
    """What the adaptive poolings share.

    Output o of an axis of n inputs reads inputs ``floor(o*n/out) .. ceil((o+1)*n/out)``, the
    end excluded; neighbouring windows may overlap.

    Parameters
    ----------
    output_size : one int per spatial axis
    """

    kernel: ClassVar[str]

    output_size: tuple[int, ...] = (1, 1)

    @classmethod
    def from_keras(cls, config: LayerConfig, weights: Weights, shapes: Sequence[Shape]) -> Op:
        channels_last(config)
        op = cls(config.ints("output_size", spatial_rank(config.class_name)))
        config.finish()
        return op

    def windows(self, lengths: Sequence[int]) -> Iterator[tuple[Slices, Slices]]:
        """Yield each output position, as slices of length 1, and the inputs that it reads."""
        for position in np.ndindex(*self.output_size):
            axes = zip(position, lengths, self.output_size, strict=True)
            yield (
                tuple(slice(o, o + 1) for o in position),
                tuple(slice(o * n // n_out, -(-(o + 1) * n // n_out)) for o, n, n_out in axes),
            )

    def infer_shape(self, *shapes: Shape) -> Shape:
        (x,) = shapes
        expect_rank(type(self).__name__, x, len(self.output_size))
        if 0 in x[1:-1]:
            raise ShapeError(f"{type(self).__name__}: nothing to pool in {x}")
        return (x[0], *self.output_size, x[-1])

    @abstractmethod
    def reduce(self, x: Array) -> Array:
        """Reduce axis 1: ``float32[N, P, C] -> float32[N, C]``, P positions."""

    @np.errstate(all="ignore")
    def reference(self, *inputs: Array) -> Array:
        (x,) = inputs
        y = np.empty(known(self.infer_shape(x.shape)), np.float32)
        for position, window in self.windows(x.shape[1:-1]):
            region, target = x[(slice(None), *window)], y[(slice(None), *position)]
            pixels = region.reshape(x.shape[0], product(region.shape[1:-1]), x.shape[-1])
            target[...] = self.reduce(pixels).reshape(target.shape)
        return y

    def lower(self, lowering: Lowering, inputs: Sequence[Buffer], output: Buffer) -> None:
        sizes = (1,) * len(self.output_size)
        lowering.pool(self.kernel, inputs[0], output, sizes, Window())

    def flops(self, *shapes: tuple[int, ...]) -> int:
        (x,) = shapes
        per_channel = sum(
            product(tuple(s.stop - s.start for s in window))
            for _, window in self.windows(x[1:-1])
        )
        return x[0] * x[-1] * per_channel


@dataclass(frozen=True)
class AdaptiveMaxPool(AdaptivePool):
    """Take the largest number of each window; NaN does not take part, as in MaxPool."""

    keras_classes: ClassVar = by_rank("AdaptiveMaxPooling{}D")
    kernel: ClassVar = "f32_adaptive_max_pool"

    def reduce(self, x: Array) -> Array:
        y: Array = np.fmax.reduce(x, axis=1, initial=LOWEST)
        return y


@dataclass(frozen=True)
class AdaptiveAveragePool(AdaptivePool):
    """Take the mean of each window."""

    keras_classes: ClassVar = by_rank("AdaptiveAveragePooling{}D")
    kernel: ClassVar = "f32_adaptive_average_pool"

    def reduce(self, x: Array) -> Array:
        y: Array = x.mean(axis=1)
        return y
