"""Products of two tensors along one axis each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..errors import ShapeError
from ..graph import Array, Op
from ..shapes import Shape, product
from .common import expect_inputs, from_end, known
from .config import LayerConfig, Weights

if TYPE_CHECKING:
    from ..plan import Buffer, Lowering

EPSILON = np.float32(1e-7)  # keras.config.epsilon(): a vector that is shorter is not scaled up


@dataclass(frozen=True)
class Dot(Op):
    """Multiply and sum along one axis of each input, sample by sample:
    ``y[n, i..., j...] = sum over k of x0[n, i..., k] * x1[n, j..., k]``.

    Two inputs ``[N, F]`` give ``[N, 1]``.

    Parameters
    ----------
    axes : the axis of each input, counted from the end
    normalize : scale both inputs to unit length along their axis first

    References
    ----------
    https://keras.io/api/layers/merging_layers/dot
    """

    keras_classes: ClassVar = ("keras.layers>Dot",)

    axes: tuple[int, int]
    normalize: bool = False

    @classmethod
    def from_keras(cls, config: LayerConfig, weights: Weights, shapes: Sequence[Shape]) -> Op:
        expect_inputs(config.title, shapes, 2)
        value = config.take("axes")
        axes = value if isinstance(value, (list, tuple)) else (value, value)
        if len(axes) != 2:
            config.malformed("axes", value, "one axis or two")
        x, y = (
            from_end(config, "axes", axis, len(shape))
            for axis, shape in zip(axes, shapes, strict=True)
        )
        op = cls((x, y), config.flag("normalize", False))
        config.finish()
        return op

    def infer_shape(self, *shapes: Shape) -> Shape:
        expect_inputs("Dot", shapes, 2)
        lengths, others = [], []
        for shape, axis in zip(shapes, self.axes, strict=True):
            if len(shape) <= -axis:
                raise ShapeError(f"Dot: expected an axis {axis} behind the batch, got {shape}")
            lengths.append(shape[axis])
            others.append([n for i, n in enumerate(shape, -len(shape)) if i != axis][1:])
        if None not in lengths and lengths[0] != lengths[1]:
            raise ShapeError(f"Dot: {shapes} differ along axes {self.axes}")
        x, y = others
        return (shapes[0][0], *(x + y or [1]))

    @np.errstate(all="ignore")
    def reference(self, *inputs: Array) -> Array:
        shape = known(self.infer_shape(*(x.shape for x in inputs)))
        if self.normalize:
            pairs = zip(inputs, self.axes, strict=True)
            inputs = tuple(_unit(x, axis) for x, axis in pairs)
        samples = [np.tensordot(a, b, axes=self.axes) for a, b in zip(*inputs, strict=True)]
        return np.array(samples, np.float32).reshape(shape)

    def lower(self, lowering: Lowering, inputs: Sequence[Buffer], output: Buffer) -> None:
        limit = float(1 / EPSILON) if self.normalize else 0.0
        x, y = inputs
        lowering.dot(x, y, output, self.axes, limit)

    def flops(self, *shapes: tuple[int, ...]) -> int:
        depth = shapes[0][self.axes[0]]
        return 2 * depth * product(known(self.infer_shape(*shapes)))


def _unit(x: Array, axis: int) -> Array:
    norm = np.sqrt((x * x).sum(axis=axis, keepdims=True))
    y: Array = x * np.minimum(1 / norm, 1 / EPSILON)
    return y
