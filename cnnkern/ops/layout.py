"""Ops that move elements and compute nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..errors import ShapeError
from ..graph import Array, Halo, Op
from ..shapes import Pair, Shape, product
from .common import by_rank, channels_last, expect_rank, known, spatial_rank, take_pairs
from .config import MAX_INT, LayerConfig, Weights
from .window import halo

if TYPE_CHECKING:
    from ..plan import Buffer, Lowering


@dataclass(frozen=True)
class Input(Op):
    """A graph input; `shape` includes the batch axis, None marks an unknown length."""

    keras_classes: ClassVar = ("keras.layers>InputLayer",)

    shape: Shape

    @classmethod
    def from_keras(cls, config: LayerConfig, weights: Weights, shapes: Sequence[Shape]) -> Op:
        legacy = config.take("batch_input_shape", None)  # the key's name before Keras 3
        shape = config.take("batch_shape", legacy)
        if not isinstance(shape, (list, tuple)) or len(shape) < 2 or not _lengths(shape):
            config.malformed("batch_shape", shape, "a list of at least 2 lengths or nulls")
        config.ignore("optional")
        config.finish()
        return cls(tuple(shape))

    def infer_shape(self, *shapes: Shape) -> Shape:
        return self.shape

    def reference(self, *inputs: Array) -> Array:
        (x,) = inputs
        return x


def _lengths(shape: Sequence[object]) -> bool:
    return all(n is None or (type(n) is int and 1 <= n <= MAX_INT) for n in shape)


# RandomCrop is missing: at inference it cuts the centre out, or resizes.
_IDENTITIES = (
    "ActivityRegularization", "AlphaDropout", "AugMix", "CutMix", "Dropout", "GaussianDropout",
    "GaussianNoise", "Identity", "MixUp", "RandAugment", "RandomBrightness",
    "RandomColorDegeneration", "RandomColorJitter", "RandomContrast", "RandomElasticTransform",
    "RandomErasing", "RandomFlip", "RandomGaussianBlur", "RandomGrayscale", "RandomHue",
    "RandomInvert", "RandomPerspective", "RandomPosterization", "RandomRotation",
    "RandomSaturation", "RandomSharpness", "RandomShear", "RandomTranslation", "RandomZoom",
)  # fmt: skip


@dataclass(frozen=True)
class Identity(Op):
    """Return the input: layers that drop, disturb or augment do nothing at inference."""

    keras_classes: ClassVar = (
        *(f"keras.layers>{name}" for name in _IDENTITIES),
        "keras.layers>StochasticDepth",  # of Keras 2's ConvNeXt
        "keras.applications.convnext>StochasticDepth",
        *by_rank("SpatialDropout{}D"),
    )
    is_view: ClassVar = True

    @classmethod
    def from_keras(cls, config: LayerConfig, weights: Weights, shapes: Sequence[Shape]) -> Op:
        config.options.clear()  # whatever they say, it is about training
        return cls()

    def infer_shape(self, *shapes: Shape) -> Shape:
        (x,) = shapes
        return x

    def reference(self, *inputs: Array) -> Array:
        (x,) = inputs
        return x


@dataclass(frozen=True)
class Flatten(Op):
    """Join all axes but the batch: ``float32[N, ...] -> float32[N, F]``."""

    keras_classes: ClassVar = ("keras.layers>Flatten",)
    is_view: ClassVar = True

    @classmethod
    def from_keras(cls, config: LayerConfig, weights: Weights, shapes: Sequence[Shape]) -> Op:
        channels_last(config)
        config.finish()
        return cls()

    def infer_shape(self, *shapes: Shape) -> Shape:
        (x,) = shapes
        return (x[0], _product(x[1:]))

    def reference(self, *inputs: Array) -> Array:
        (x,) = inputs
        return x.reshape(x.shape[0], product(x.shape[1:]))


def _product(lengths: Shape) -> int | None:
    known = [n for n in lengths if n is not None]
    return product(tuple(known)) if len(known) == len(lengths) else None


@dataclass(frozen=True)
class Reshape(Op):
    """Give the axes behind the batch new lengths; one may be -1, which takes what is left."""

    keras_classes: ClassVar = ("keras.layers>Reshape",)
    is_view: ClassVar = True

    target_shape: tuple[int, ...]

    @classmethod
    def from_keras(cls, config: LayerConfig, weights: Weights, shapes: Sequence[Shape]) -> Op:
        target = config.take("target_shape")
        lengths = target if isinstance(target, (list, tuple)) else [None]
        fixed = [n for n in lengths if type(n) is not int or n != -1]
        if None in fixed or not _lengths(fixed) or len(lengths) - len(fixed) > 1:
            config.malformed("target_shape", target, "lengths, of which one may be -1")
        config.finish()
        return cls(tuple(target))

    def infer_shape(self, *shapes: Shape) -> Shape:
        (x,) = shapes
        total = _product(x[1:])
        fixed = product(tuple(n for n in self.target_shape if n != -1))
        if -1 not in self.target_shape:
            fits, left = total in (None, fixed), None
        elif total is None:
            fits, left = True, None
        else:
            fits, left = total % fixed == 0, total // fixed
        if not fits:
            raise ShapeError(f"Reshape: {x} does not fit into {(x[0], *self.target_shape)}")
        return (x[0], *(left if n == -1 else n for n in self.target_shape))

    def reference(self, *inputs: Array) -> Array:
        (x,) = inputs
        return x.reshape(known(self.infer_shape(x.shape)))


@dataclass(frozen=True)
class Permute(Op):
    """Reorder the axes behind the batch: output axis i is input axis ``dims[i]``."""

    keras_classes: ClassVar = ("keras.layers>Permute",)

    dims: tuple[int, ...]

    @classmethod
    def from_keras(cls, config: LayerConfig, weights: Weights, shapes: Sequence[Shape]) -> Op:
        dims = config.ints("dims", len(shapes[0]) - 1)
        if sorted(dims) != list(range(1, len(dims) + 1)):
            config.malformed("dims", dims, f"the numbers 1 to {len(dims)} in any order")
        config.finish()
        return cls(dims)

    def infer_shape(self, *shapes: Shape) -> Shape:
        (x,) = shapes
        if len(x) != len(self.dims) + 1:
            raise ShapeError(f"Permute: expected {len(self.dims) + 1} axes, got {x}")
        return (x[0], *(x[d] for d in self.dims))

    def reference(self, *inputs: Array) -> Array:
        (x,) = inputs
        self.infer_shape(x.shape)
        return np.ascontiguousarray(x.transpose(0, *self.dims))

    def lower(self, lowering: Lowering, inputs: Sequence[Buffer], output: Buffer) -> None:
        lowering.permute(inputs[0], output, (0, *self.dims))


@dataclass(frozen=True)
class RepeatVector(Op):
    """Repeat a vector `n` times: ``float32[N, F] -> float32[N, n, F]``."""

    keras_classes: ClassVar = ("keras.layers>RepeatVector",)

    n: int

    @classmethod
    def from_keras(cls, config: LayerConfig, weights: Weights, shapes: Sequence[Shape]) -> Op:
        n = config.integer("n")
        config.finish()
        return cls(n)

    def infer_shape(self, *shapes: Shape) -> Shape:
        (x,) = shapes
        if len(x) != 2:
            raise ShapeError(f"RepeatVector: expected [N, F], got {x}")
        return (x[0], self.n, x[1])

    def reference(self, *inputs: Array) -> Array:
        (x,) = inputs
        self.infer_shape(x.shape)
        return np.repeat(x[:, None, :], self.n, axis=1)

    def lower(self, lowering: Lowering, inputs: Sequence[Buffer], output: Buffer) -> None:
        batch, channel = inputs[0].axis_strides
        lowering.move(inputs[0], output, (batch, 0, channel))


@dataclass(frozen=True)
class ZeroPadding(Op):
    """Put zeros around the spatial axes.

    Parameters
    ----------
    padding : (before, after) per spatial axis
    """

    keras_classes: ClassVar = by_rank("ZeroPadding{}D")

    padding: tuple[Pair, ...]

    @classmethod
    def from_keras(cls, config: LayerConfig, weights: Weights, shapes: Sequence[Shape]) -> Op:
        channels_last(config)
        op = cls(take_pairs(config, "padding", spatial_rank(config.class_name)))
        config.finish()
        return op

    def infer_shape(self, *shapes: Shape) -> Shape:
        (x,) = shapes
        expect_rank("ZeroPadding", x, len(self.padding))
        lengths = zip(x[1:-1], self.padding, strict=True)
        return (x[0], *(None if n is None else n + sum(p) for n, p in lengths), x[-1])

    def reference(self, *inputs: Array) -> Array:
        (x,) = inputs
        self.infer_shape(x.shape)
        return np.pad(x, ((0, 0), *self.padding, (0, 0)))

    def input_halo(self, *shapes: tuple[int, ...]) -> Halo:
        return halo(self.padding)

    def view(self, x: Buffer, shape: tuple[int, ...]) -> Buffer | None:
        return x.with_border(shape, halo(self.padding))

    def lower(self, lowering: Lowering, inputs: Sequence[Buffer], output: Buffer) -> None:
        inner = output
        for axis, (before, after) in enumerate(self.padding, -len(self.padding) - 1):
            inner = inner.slice(axis, before, inner.shape[axis] - before - after)
        lowering.clear_border(inner, halo(self.padding))
        lowering.copy(inputs[0], inner)


@dataclass(frozen=True)
class Cropping(Op):
    """Cut the ends of the spatial axes off.

    Parameters
    ----------
    cropping : (before, after) per spatial axis
    """

    keras_classes: ClassVar = by_rank("Cropping{}D")

    cropping: tuple[Pair, ...]

    @classmethod
    def from_keras(cls, config: LayerConfig, weights: Weights, shapes: Sequence[Shape]) -> Op:
        channels_last(config)
        op = cls(take_pairs(config, "cropping", spatial_rank(config.class_name)))
        config.finish()
        return op

    def infer_shape(self, *shapes: Shape) -> Shape:
        (x,) = shapes
        expect_rank("Cropping", x, len(self.cropping))
        axes = list(zip(x[1:-1], self.cropping, strict=True))
        if any(n is not None and n <= sum(pair) for n, pair in axes):
            raise ShapeError(f"Cropping: {self.cropping} leaves nothing of {x}")
        return (x[0], *(None if n is None else n - sum(pair) for n, pair in axes), x[-1])

    def reference(self, *inputs: Array) -> Array:
        (x,) = inputs
        self.infer_shape(x.shape)
        axes = zip(x.shape[1:-1], self.cropping, strict=True)
        kept = [slice(before, n - after) for n, (before, after) in axes]
        return np.ascontiguousarray(x[(slice(None), *kept)])

    def lower(self, lowering: Lowering, inputs: Sequence[Buffer], output: Buffer) -> None:
        inner = inputs[0]
        for axis, (before, after) in enumerate(self.cropping, -len(self.cropping) - 1):
            inner = inner.slice(axis, before, inner.shape[axis] - before - after)
        lowering.copy(inner, output)
