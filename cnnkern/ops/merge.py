"""Ops that combine several tensors."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..errors import ShapeError
from ..graph import Array, Axes, Op, as_array
from ..shapes import Shape, product
from .common import expect_inputs, from_end, known, permuted_axis
from .config import TENSOR, LayerConfig, Weights, is_number

if TYPE_CHECKING:
    from ..plan import Buffer, Lowering


def with_rank(shape: Shape, rank: int) -> Shape:
    """Return `shape` with as many axes of length 1 behind the batch axis as `rank` needs."""
    return shape[:1] + (1,) * (rank - len(shape)) + shape[1:]


def broadcast(name: str, shapes: Sequence[Shape]) -> Shape:
    """Return the NumPy broadcast of `shapes`, all brought to the rank of the largest.

    An axis that is unknown in one shape and 1 in the others stays unknown.
    """
    rank = max(len(shape) for shape in shapes)
    result = []
    for lengths in zip(*(with_rank(shape, rank) for shape in shapes), strict=True):
        longer = {n for n in lengths if n not in (None, 1)}
        if len(longer) > 1:
            raise ShapeError(f"{name}: shapes {', '.join(map(str, shapes))} do not broadcast")
        result.append(longer.pop() if longer else None if None in lengths else 1)
    return tuple(result)


@dataclass(frozen=True)
class Merge(Op):
    """Combine tensors element by element, from left to right, with NumPy broadcasting.

    Tensors of lower rank first get axes of length 1 behind the batch axis, as in Keras.

    Parameters
    ----------
    scalar : a constant operand, or None
    scalar_first : the constant stands before the tensor
    """

    in_place: ClassVar = True
    is_binary: ClassVar[bool] = False  # takes two operands, not any number
    kernel: ClassVar[str]

    scalar: float | None = None
    scalar_first: bool = False

    @classmethod
    def from_keras(cls, config: LayerConfig, weights: Weights, shapes: Sequence[Shape]) -> Op:
        config.finish()
        is_layer = not config.kwargs and all(isinstance(a, (list, tuple)) for a in config.args)
        if is_layer:
            return cls()
        if len({len(shape) for shape in shapes}) > 1:
            config.unsupported("operands", shapes, "tensors of equal rank")
        return cls(*_scalar_operand(config))

    @abstractmethod
    def combine(self, a: Array, b: Array) -> Array:
        """Combine two arrays that broadcast."""

    def infer_shape(self, *shapes: Shape) -> Shape:
        name = type(self).__name__
        count = len(shapes) + (self.scalar is not None)
        if count < 2 or (self.is_binary and count > 2):
            expected = "2 inputs" if self.is_binary else "at least 2 inputs"
            raise ShapeError(f"{name}: expected {expected}, got {count}")
        return broadcast(name, shapes)

    @np.errstate(all="ignore")
    def reference(self, *inputs: Array) -> Array:
        rank = len(self.infer_shape(*(x.shape for x in inputs)))
        operands = [x.reshape(known(with_rank(x.shape, rank))) for x in inputs]
        if self.scalar is not None:
            operands.insert(0 if self.scalar_first else 1, as_array(self.scalar))
        return reduce(self.combine, operands)

    def lower(self, lowering: Lowering, inputs: Sequence[Buffer], output: Buffer) -> None:
        operands = list(inputs)
        if self.scalar is not None:
            constant = lowering.scalar(self.scalar)
            operands.insert(0 if self.scalar_first else 1, constant)
        y, *others = operands
        for x in others:
            lowering.binary(self.kernel, y, x, output)
            y = output

    def permuted(self, order: Axes) -> Op:
        return self

    def flops(self, *shapes: tuple[int, ...]) -> int:
        return product(known(self.infer_shape(*shapes))) * max(len(shapes) - 1, 1)


def _scalar_operand(config: LayerConfig) -> tuple[float | None, bool]:
    operands = (*config.args, *(config.kwargs[k] for k in ("x1", "x2") if k in config.kwargs))
    if len(operands) != 2 or set(config.kwargs) - {"x1", "x2"}:
        config.malformed("arguments", operands, "two operands")
    scalars = [value for value in operands if value is not TENSOR]
    if not scalars:
        return None, False
    if len(scalars) > 1 or not is_number(scalars[0]):
        config.unsupported("operands", operands, "tensors and at most one number")
    return float(scalars[0]), operands[1] is TENSOR


def _both(name: str) -> tuple[str, str]:
    return f"keras.layers>{name}", f"keras.ops.numpy>{name}"


@dataclass(frozen=True)
class Add(Merge):
    """Add tensors: ``y = x0 + x1 + ...``."""

    keras_classes: ClassVar = _both("Add")
    kernel: ClassVar = "f32_add"

    def combine(self, a: Array, b: Array) -> Array:
        return a + b


@dataclass(frozen=True)
class Subtract(Merge):
    """Subtract: ``y = x0 - x1``."""

    keras_classes: ClassVar = _both("Subtract")
    is_binary: ClassVar = True
    kernel: ClassVar = "f32_subtract"

    def combine(self, a: Array, b: Array) -> Array:
        return a - b


@dataclass(frozen=True)
class Multiply(Merge):
    """Multiply tensors: ``y = x0 * x1 * ...``."""

    keras_classes: ClassVar = _both("Multiply")
    kernel: ClassVar = "f32_multiply"

    def combine(self, a: Array, b: Array) -> Array:
        return a * b


@dataclass(frozen=True)
class Divide(Merge):
    """Divide: ``y = x0 / x1``."""

    keras_classes: ClassVar = ("keras.ops.numpy>Divide", "keras.ops.numpy>TrueDivide")
    is_binary: ClassVar = True
    kernel: ClassVar = "f32_divide"

    def combine(self, a: Array, b: Array) -> Array:
        return a / b


@dataclass(frozen=True)
class Maximum(Merge):
    """Take the larger element: ``y = max(x0, x1, ...)``."""

    keras_classes: ClassVar = _both("Maximum")
    kernel: ClassVar = "f32_maximum"

    def combine(self, a: Array, b: Array) -> Array:
        return np.maximum(a, b)


@dataclass(frozen=True)
class Minimum(Merge):
    """Take the smaller element: ``y = min(x0, x1, ...)``."""

    keras_classes: ClassVar = _both("Minimum")
    kernel: ClassVar = "f32_minimum"

    def combine(self, a: Array, b: Array) -> Array:
        return np.minimum(a, b)


@dataclass(frozen=True)
class Average(Merge):
    """Take the mean: ``y = (x0 + x1 + ...) / count``."""

    keras_classes: ClassVar = ("keras.layers>Average",)
    kernel: ClassVar = "f32_add"

    def combine(self, a: Array, b: Array) -> Array:
        return a + b

    def reference(self, *inputs: Array) -> Array:
        return super().reference(*inputs) / np.float32(len(inputs))

    def lower(self, lowering: Lowering, inputs: Sequence[Buffer], output: Buffer) -> None:
        super().lower(lowering, inputs, output)
        lowering.binary("f32_divide", output, lowering.scalar(len(inputs)), output)


@dataclass(frozen=True)
class Concatenate(Op):
    """Join tensors along one axis, counted from the end."""

    keras_classes: ClassVar = _both("Concatenate")

    axis: int = -1

    @classmethod
    def from_keras(cls, config: LayerConfig, weights: Weights, shapes: Sequence[Shape]) -> Op:
        axis: Any = config.take("axis", -1)
        op = cls(from_end(config, "axis", axis, len(shapes[0])))
        config.finish()
        return op

    @property
    def joined_axis(self) -> int:
        return self.axis

    def infer_shape(self, *shapes: Shape) -> Shape:
        ranks = {len(shape) for shape in shapes}
        if len(ranks) != 1 or min(ranks) < -self.axis:
            raise ShapeError(f"Concatenate: {shapes} differ in rank or lack axis {self.axis}")
        joined = tuple(shape[self.axis] for shape in shapes)
        y = [
            None if axis == self.axis else _other_length(shapes, lengths)
            for axis, lengths in enumerate(zip(*shapes, strict=True), -min(ranks))
        ]
        y[self.axis] = None if None in joined else sum(known(joined))
        return tuple(y)

    def reference(self, *inputs: Array) -> Array:
        self.infer_shape(*(x.shape for x in inputs))
        return np.concatenate(inputs, axis=self.axis)

    def lower(self, lowering: Lowering, inputs: Sequence[Buffer], output: Buffer) -> None:
        lengths = [x.shape[self.axis] for x in inputs]
        for x, part in zip(inputs, output.split(self.axis, lengths), strict=True):
            lowering.copy(x, part)

    def permuted(self, order: Axes) -> Op:
        return replace(self, axis=permuted_axis(self.axis, order))


def _other_length(shapes: Sequence[Shape], lengths: Sequence[int | None]) -> int | None:
    """Return the length that an axis has in all shapes."""
    different = {n for n in lengths if n is not None}
    if len(different) > 1:
        raise ShapeError(f"Concatenate: {shapes} differ beside the joined axis")
    return different.pop() if different else None


@dataclass(frozen=True)
class ScaledAdd(Op):
    """Add a multiple: ``y = x0 + x1 * scale``, the custom layer of Inception-ResNet v2."""

    keras_classes: ClassVar = (
        "keras.applications.inception_resnet_v2>CustomScaleLayer",
        "keras.layers>CustomScaleLayer",  # files of Keras 2 name no module
    )
    in_place: ClassVar = True

    scale: float

    @classmethod
    def from_keras(cls, config: LayerConfig, weights: Weights, shapes: Sequence[Shape]) -> Op:
        op = cls(config.number("scale"))
        config.finish()
        return op

    def infer_shape(self, *shapes: Shape) -> Shape:
        expect_inputs("ScaledAdd", shapes, 2)
        return broadcast("ScaledAdd", shapes)

    @np.errstate(all="ignore")
    def reference(self, *inputs: Array) -> Array:
        self.infer_shape(*(x.shape for x in inputs))
        x, branch = inputs
        return x + branch * np.float32(self.scale)

    def lower(self, lowering: Lowering, inputs: Sequence[Buffer], output: Buffer) -> None:
        x, branch = inputs
        lowering.binary("f32_scaled_add", x, branch, output, self.scale)

    def permuted(self, order: Axes) -> Op:
        return self

    def flops(self, *shapes: tuple[int, ...]) -> int:
        return 2 * product(known(self.infer_shape(*shapes)))
