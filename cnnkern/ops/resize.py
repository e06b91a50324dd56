"""Ops that resample the spatial axes.

Every method is separable: along one axis, output o is a weighted sum of a few inputs.
`axis_taps` gives their indices and weights, as TensorFlow's kernels compute them.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..graph import Array, Op
from ..shapes import Shape, product
from .common import by_rank, channels_last, expect_rank, known, spatial_rank
from .config import LayerConfig, Weights

if TYPE_CHECKING:
    from ..plan import Buffer, Lowering

Taps = tuple[NDArray[np.int64], Array]  # indices and weights, [OUT, T] each

F32 = np.float32
CUBIC_STEPS = 1024  # TensorFlow's bicubic kernel reads its weights from a table of this size


def _nearest(n_in: int, n_out: int) -> Taps:
    centres = (np.arange(n_out, dtype=F32) + F32(0.5)) * (F32(n_in) / F32(n_out))
    indices = np.minimum(np.floor(centres).astype(np.int64), n_in - 1)
    return indices[:, None], np.ones((n_out, 1), F32)


def _positions(n_in: int, n_out: int) -> Array:
    """Return where each output stands between the inputs, pixel centres at integers."""
    scale = F32(n_in) / F32(n_out)
    positions: Array = (np.arange(n_out, dtype=F32) + F32(0.5)) * scale - F32(0.5)
    return positions


def _bilinear(n_in: int, n_out: int) -> Taps:
    positions = _positions(n_in, n_out)
    low = np.floor(positions)
    share = positions - low
    indices = np.stack([np.maximum(low, 0), np.minimum(np.ceil(positions), n_in - 1)], axis=1)
    return indices.astype(np.int64), np.stack([1 - share, share], axis=1)


def _bicubic(n_in: int, n_out: int) -> Taps:
    """Keys 1981, a = -0.5; taps outside the image get weight 0, the rest is rescaled."""
    positions = _positions(n_in, n_out)
    low = np.floor(positions)
    share = (np.rint((positions - low) * F32(CUBIC_STEPS)) / CUBIC_STEPS)[:, None]
    indices = low.astype(np.int64)[:, None] + np.arange(-1, 3)
    weights = _keys(np.abs(share - np.arange(-1, 3)))
    return _inside(indices, weights, n_in)


def _keys(x: NDArray[np.float64]) -> NDArray[np.float64]:
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def _lanczos(radius: int) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    def weight(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(x <= radius, np.sinc(x) * np.sinc(x / radius), 0.0)

    return weight


def _triangle(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(1 - x, 0)


def _inside(indices: NDArray[np.int64], weights: NDArray[np.float64], n_in: int) -> Taps:
    """Clip indices to the image, drop the weights of those outside, make the rest sum to 1."""
    weights = np.where((indices >= 0) & (indices < n_in), weights, 0.0)
    total = weights.sum(axis=1, keepdims=True)
    return np.clip(indices, 0, n_in - 1), (weights / total).astype(F32)


# What resampling with a filter of any width uses: radius, weight at a distance.
_FILTERS = {
    "bilinear": (1, _triangle),
    "bicubic": (2, _keys),
    "lanczos3": (3, _lanczos(3)),
    "lanczos5": (5, _lanczos(5)),
}


def _filtered(method: str, n_in: int, n_out: int, antialias: bool) -> Taps:
    radius, weight = _FILTERS[method]
    scale = n_in / n_out
    widening = max(scale, 1.0) if antialias else 1.0
    reach = radius * widening
    centres = (np.arange(n_out) + 0.5)[:, None] * scale
    first = np.ceil(centres - reach - 0.5).astype(np.int64)
    indices = first + np.arange(2 * math.ceil(reach) + 1)
    weights = weight(np.abs(indices + 0.5 - centres) / widening)
    return _inside(indices, weights, n_in)


def _area(n_in: int, n_out: int) -> Taps:
    """Weigh each input by the length that it shares with the output's interval."""
    edges = np.arange(n_out + 1, dtype=F32) * (F32(n_in) / F32(n_out))
    start, end = edges[:-1, None].astype(np.float64), edges[1:, None].astype(np.float64)
    indices = np.floor(start).astype(np.int64) + np.arange(math.ceil(n_in / n_out) + 1)
    weights = np.maximum(np.minimum(indices + 1, end) - np.maximum(indices, start), 0)
    return _inside(indices, weights, n_in)


_EXACT = {"nearest": _nearest, "bilinear": _bilinear, "bicubic": _bicubic, "area": _area}
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos3", "lanczos5", "area")


def axis_taps(method: str, n_in: int, n_out: int, antialias: bool = False) -> Taps:
    """Return which inputs each output of one axis reads, and their weights.

    Parameters
    ----------
    method : one of INTERPOLATIONS
    antialias : widen the filter when shrinking; nearest and area know nothing of it

    Returns
    -------
    indices : int64[n_out, T]
    weights : float32[n_out, T]

    References
    ----------
    tensorflow/core/kernels/image: resize_bilinear_op.cc, resize_bicubic_op.cc,
    resize_area_op.cc, scale_and_translate_op.cc
    """
    is_filtered = method.startswith("lanczos") or (antialias and method in _FILTERS)
    if n_in == n_out:
        return _nearest(n_in, n_out)
    if is_filtered:
        return _filtered(method, n_in, n_out, antialias)
    return _EXACT[method](n_in, n_out)


def resample(x: Array, axis: int, taps: Taps) -> Array:
    """Return ``y[o] = sum over t of weights[o, t] * x[indices[o, t]]`` along one axis."""
    indices, weights = taps
    trailing = (1,) * (x.ndim - axis - 1)
    parts = [
        np.take(x, index, axis=axis) * weight.reshape(-1, *trailing)
        for index, weight in zip(indices.T, weights.T, strict=True)
    ]
    y: Array = np.sum(parts, axis=0, dtype=np.float32)
    return y


class Resample(Op):
    """What the ops that give the spatial axes new lengths share."""

    @property
    @abstractmethod
    def rank(self) -> int:
        """Number of spatial axes."""

    @abstractmethod
    def new_lengths(self, lengths: Shape) -> Shape:
        """Return the length of every spatial axis of the output."""

    @abstractmethod
    def taps(self, lengths: Sequence[int]) -> tuple[Taps, ...]:
        """Return the taps of every spatial axis for an input of these lengths."""

    def infer_shape(self, *shapes: Shape) -> Shape:
        (x,) = shapes
        expect_rank(type(self).__name__, x, self.rank)
        return (x[0], *self.new_lengths(x[1:-1]), x[-1])

    @np.errstate(all="ignore")
    def reference(self, *inputs: Array) -> Array:
        (x,) = inputs
        self.infer_shape(x.shape)
        for axis, taps in enumerate(self.taps(x.shape[1:-1]), 1):
            x = resample(x, axis, taps)
        return x

    def lower(self, lowering: Lowering, inputs: Sequence[Buffer], output: Buffer) -> None:
        lowering.resample(inputs[0], output, self.taps(inputs[0].shape[1:-1]))

    def flops(self, *shapes: tuple[int, ...]) -> int:
        (x,) = shapes
        n_taps = sum(indices.shape[1] for indices, _ in self.taps(x[1:-1]))
        return 2 * int(n_taps) * product(known(self.infer_shape(x)))


@dataclass(frozen=True)
class UpSampling(Resample):
    """Lengthen each spatial axis by a whole factor.

    Parameters
    ----------
    factors : one int per spatial axis
    interpolation : one of INTERPOLATIONS

    References
    ----------
    https://keras.io/api/layers/reshaping_layers
    """

    keras_classes: ClassVar = by_rank("UpSampling{}D")

    factors: tuple[int, ...] = (2, 2)
    interpolation: str = "nearest"

    @classmethod
    def from_keras(cls, config: LayerConfig, weights: Weights, shapes: Sequence[Shape]) -> Op:
        rank = spatial_rank(config.class_name)
        channels_last(config)
        methods = INTERPOLATIONS if rank == 2 else ("nearest",)
        factors = (config.integer("size", 2),) if rank == 1 else config.ints("size", rank, 2)
        op = cls(factors, config.choice("interpolation", methods, "nearest"))
        config.finish()
        return op

    @property
    def rank(self) -> int:
        return len(self.factors)

    def new_lengths(self, lengths: Shape) -> Shape:
        axes = zip(lengths, self.factors, strict=True)
        return tuple(None if n is None else n * factor for n, factor in axes)

    def taps(self, lengths: Sequence[int]) -> tuple[Taps, ...]:
        axes = zip(lengths, self.factors, strict=True)
        return tuple(axis_taps(self.interpolation, n, n * factor) for n, factor in axes)

    def lower(self, lowering: Lowering, inputs: Sequence[Buffer], output: Buffer) -> None:
        if self.interpolation == "nearest":
            lowering.repeat(inputs[0], output, self.factors)
        else:
            super().lower(lowering, inputs, output)


@dataclass(frozen=True)
class Resizing(Resample):
    """Bring images to a fixed size.

    Parameters
    ----------
    size : (OH, OW)
    interpolation : one of INTERPOLATIONS
    antialias : widen the filter when shrinking

    References
    ----------
    https://keras.io/api/layers/preprocessing_layers/image_preprocessing/resizing
    """

    keras_classes: ClassVar = ("keras.layers>Resizing",)
    rank: ClassVar = 2

    size: tuple[int, int]
    interpolation: str = "bilinear"
    antialias: bool = False

    @classmethod
    def from_keras(cls, config: LayerConfig, weights: Weights, shapes: Sequence[Shape]) -> Op:
        channels_last(config)
        config.choice("crop_to_aspect_ratio", (False,), False)
        config.choice("pad_to_aspect_ratio", (False,), False)
        config.ignore("fill_mode", "fill_value")  # of the padding to an aspect ratio
        OH, OW = config.integer("height"), config.integer("width")
        interpolation = config.choice("interpolation", INTERPOLATIONS, "bilinear")
        op = cls((OH, OW), interpolation, config.flag("antialias", False))
        config.finish()
        return op

    def new_lengths(self, lengths: Shape) -> Shape:
        return self.size

    def taps(self, lengths: Sequence[int]) -> tuple[Taps, ...]:
        axes = zip(lengths, self.size, strict=True)
        return tuple(axis_taps(self.interpolation, *axis, self.antialias) for axis in axes)
