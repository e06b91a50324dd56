"""Activations that mix the elements of an axis: softmax and its relatives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..errors import ShapeError
from ..graph import Array, Axes, Op
from ..shapes import Shape, product
from .common import permuted_axes, permuted_axis, take_axes
from .config import LayerConfig, Weights

if TYPE_CHECKING:
    from ..plan import Buffer, Lowering


@dataclass(frozen=True)
class Softmax(Op):
    """Normalize exponentials: ``y = exp(x - max(x)) / sum(exp(x - max(x)))`` over `axes`.

    Parameters
    ----------
    axes : axes counted from the end, -1 is the last

    References
    ----------
    https://keras.io/api/layers/activation_layers/softmax
    """

    keras_classes: ClassVar[tuple[str, ...]] = ("keras.layers>Softmax", "keras.ops.nn>Softmax")
    in_place: ClassVar = True
    kernel: ClassVar = "f32_softmax"

    axes: tuple[int, ...] = (-1,)

    @classmethod
    def from_keras(cls, config: LayerConfig, weights: Weights, shapes: Sequence[Shape]) -> Op:
        op = cls(take_axes(config, len(shapes[0])))
        config.finish()
        return op

    def infer_shape(self, *shapes: Shape) -> Shape:
        (x,) = shapes
        if len(x) < -min(self.axes):
            raise ShapeError(f"{type(self).__name__}: axes {self.axes} do not exist in {x}")
        return x

    @np.errstate(all="ignore")
    def reference(self, *inputs: Array) -> Array:
        (x,) = inputs
        exponentials = np.exp(x - x.max(axis=self.axes, keepdims=True))
        y: Array = exponentials / exponentials.sum(axis=self.axes, keepdims=True)
        return y

    def lower(self, lowering: Lowering, inputs: Sequence[Buffer], output: Buffer) -> None:
        lowering.rows(self.kernel, inputs[0], output, self.axes)

    def permuted(self, order: Axes) -> Op:
        return replace(self, axes=permuted_axes(self.axes, order))

    def flops(self, *shapes: tuple[int, ...]) -> int:
        return 5 * product(shapes[0])


@dataclass(frozen=True)
class LogSoftmax(Softmax):
    """Take the logarithm of softmax: ``y = x - max(x) - log(sum(exp(x - max(x))))``."""

    keras_classes: ClassVar[tuple[str, ...]] = ("keras.ops.nn>LogSoftmax",)
    kernel: ClassVar = "f32_log_softmax"

    @np.errstate(all="ignore")
    def reference(self, *inputs: Array) -> Array:
        (x,) = inputs
        shifted = x - x.max(axis=self.axes, keepdims=True)
        y: Array = shifted - np.log(np.exp(shifted).sum(axis=self.axes, keepdims=True))
        return y


@dataclass(frozen=True)
class Sparsemax(Softmax):
    """Subtract a threshold: ``y = max(x - tau, 0)``,
    ``tau = (sum over i < k of z[0] + ... + z[i] - 1) / k``

    where ``z`` is `x` in descending order and ``k`` counts the ``i`` with
    ``z[i] > (z[0] + ... + z[i] - 1) / (i + 1)``.

    Notes
    -----
    The paper's tau has ``z[0] + ... + z[k-1]`` in place of the sum of such sums. Keras 3.15
    computes the latter, so that rows with ``k > 1`` do not sum to 1; this op follows Keras.

    References
    ----------
    Martins and Astudillo 2016, https://arxiv.org/abs/1602.02068
    """

    keras_classes: ClassVar[tuple[str, ...]] = ("keras.ops.nn>Sparsemax",)
    kernel: ClassVar = "f32_sparsemax"

    @np.errstate(all="ignore")
    def reference(self, *inputs: Array) -> Array:
        (x,) = inputs
        (axis,) = self.axes
        z = np.flip(np.sort(x, axis=axis), axis=axis)
        sums = np.cumsum(z, axis=axis, dtype=np.float32)
        trailing = (1,) * (-axis - 1)
        counts = np.arange(1, x.shape[axis] + 1, dtype=np.float32).reshape(-1, *trailing)
        is_kept = z > (sums - 1) / counts
        k = is_kept.sum(axis=axis, keepdims=True, dtype=np.float32)
        total = np.where(is_kept, sums, 0).sum(axis=axis, keepdims=True, dtype=np.float32)
        y: Array = np.maximum(x - (total - 1) / k, np.float32(0))
        return y

    def lower(self, lowering: Lowering, inputs: Sequence[Buffer], output: Buffer) -> None:
        (axis,) = self.axes
        lowering.scratch(output.shape[axis] * np.dtype(np.float32).itemsize)
        super().lower(lowering, inputs, output)


@dataclass(frozen=True)
class Glu(Op):
    """Gate one half of an axis by the other: ``y = a * sigmoid(b)`` with ``x = [a, b]``.

    References
    ----------
    Dauphin et al. 2017, https://arxiv.org/abs/1612.08083
    """

    keras_classes: ClassVar[tuple[str, ...]] = ("keras.ops.nn>Glu",)

    axis: int = -1

    @classmethod
    def from_keras(cls, config: LayerConfig, weights: Weights, shapes: Sequence[Shape]) -> Op:
        (axis,) = take_axes(config, len(shapes[0]))
        config.finish()
        return cls(axis)

    def infer_shape(self, *shapes: Shape) -> Shape:
        (x,) = shapes
        if len(x) < -self.axis or (x[self.axis] or 0) % 2:
            raise ShapeError(f"Glu: expected an even length along axis {self.axis}, got {x}")
        lengths, position = list(x), len(x) + self.axis
        length = lengths[position]
        lengths[position] = None if length is None else length // 2
        return tuple(lengths)

    @np.errstate(all="ignore")
    def reference(self, *inputs: Array) -> Array:
        (x,) = inputs
        self.infer_shape(x.shape)
        a, b = np.split(x, 2, axis=self.axis)
        y: Array = a / (1 + np.exp(-b))
        return y

    def lower(self, lowering: Lowering, inputs: Sequence[Buffer], output: Buffer) -> None:
        half = output.shape[self.axis]
        a, b = inputs[0].split(self.axis, (half, half))
        (y,) = output.split(self.axis, (half,))
        lowering.binary("f32_gate", a, b, y)

    def permuted(self, order: Axes) -> Op:
        return replace(self, axis=permuted_axis(self.axis, order))

    def flops(self, *shapes: tuple[int, ...]) -> int:
        return 4 * product(shapes[0]) // 2


AXIS_ACTIVATIONS: dict[str, type[Op]] = {
    "glu": Glu,
    "log_softmax": LogSoftmax,
    "softmax": Softmax,
    "sparsemax": Sparsemax,
}
