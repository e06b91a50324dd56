"""The op that calls a function of the user's own, for layers that `register_layer` maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ShapeError, UnsupportedLayerError
from ..graph import Array, Op, as_array
from ..shapes import Shape
from .common import same_shape
from .config import LayerConfig, Weights

if TYPE_CHECKING:
    from ..plan import Buffer, Lowering


@dataclass(frozen=True, eq=False)
class NumpyOp(Op):
    """Call a NumPy function between two runs of compiled kernels.

    Parameters
    ----------
    function : callable
        Takes one read-only float32 array per input, the batch axis first, and returns the
        output for the same batch. A sample's result must not depend on the other samples,
        nor on earlier calls: `predict` cuts a batch into chunks.
    shape : callable, optional
        Takes one shape per input and returns the output's, None for an unknown length.
        Without it `function` is called on zeros to see what it returns, which needs every
        length but the batch's.
    """

    function: Callable[..., Any]
    shape: Callable[..., Shape] | None = None

    @classmethod
    def from_keras(cls, config: LayerConfig, weights: Weights, shapes: Sequence[Shape]) -> Op:
        raise UnsupportedLayerError(f"{config.title}: only register_layer makes a NumpyOp")

    def infer_shape(self, *shapes: Shape) -> Shape:
        if self.shape is not None:
            return tuple(self.shape(*shapes))
        lengths = [n for shape in shapes for n in shape[1:]]
        if None in lengths:
            raise ShapeError(
                f"NumpyOp: the function's result for {shapes} is not known; "
                "give NumpyOp a shape function"
            )
        probe = np.asarray(self.function(*(_zeros(shape) for shape in shapes)))
        if probe.ndim < 1 or probe.shape[0] != 1:
            raise ShapeError(f"NumpyOp: {probe.shape} returned for a batch of 1")
        return (shapes[0][0], *probe.shape[1:])

    def reference(self, *inputs: Array) -> Array:
        y = as_array(self.function(*map(_read_only, inputs)))
        if self.shape is None:
            expected: Shape = (inputs[0].shape[0], *y.shape[1:])
        else:
            expected = tuple(self.shape(*(x.shape for x in inputs)))
        if not same_shape(expected, y.shape):
            raise ShapeError(f"NumpyOp: the function returned {y.shape}, expected {expected}")
        return y

    def lower(self, lowering: Lowering, inputs: Sequence[Buffer], output: Buffer) -> None:
        lowering.host_call(self.reference, inputs, output)


def _read_only(x: Array) -> Array:
    view = x.view()
    view.flags.writeable = False
    return view


def _zeros(shape: Shape) -> Array:
    return np.zeros((1, *(n or 0 for n in shape[1:])), np.float32)
