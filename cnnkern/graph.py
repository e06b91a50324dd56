"""The model as frozen records: ops, nodes, graph.

A node computes one tensor and names it, so a tensor is known by its node's name.
Activations are channels-last float32: ``[N, F]``, ``[N, W, C]``, ``[N, H, W, C]`` or
``[N, D, H, W, C]``. Axis 0 is always the batch; an axis of unknown length is ``None``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .errors import PlanError
from .lazy import LazyArray
from .shapes import Pair, Shape
from .structure import Structure

if TYPE_CHECKING:
    from .ops.config import LayerConfig, Weights
    from .plan import Buffer, Lowering

Array = NDArray[np.float32]
Axes = tuple[int, ...]
Halo = tuple[Pair, Pair, Pair]  # elements wanted (before, after) the D, H and W axes
NO_HALO: Halo = ((0, 0), (0, 0), (0, 0))


class Op(ABC):
    """One computation on tensors: a frozen dataclass that holds its options and weights."""

    keras_classes: ClassVar[tuple[str, ...]] = ()  # "module>Class" names of Keras layers
    is_view: ClassVar[bool] = False  # the output is the input's elements in the same order
    in_place: ClassVar[bool] = False  # the output may overwrite input 0

    @classmethod
    @abstractmethod
    def from_keras(
        cls, config: LayerConfig, weights: Weights, shapes: Sequence[Shape]
    ) -> Op | tuple[Op, ...]:
        """Build the op from a Keras layer, or a chain of ops applied one after the other.

        Raises
        ------
        UnsupportedLayerError
            An option is valid Keras and not implemented.
        ModelFileError
            An option or a weight is not valid Keras.
        """

    @abstractmethod
    def infer_shape(self, *shapes: Shape) -> Shape:
        """Return the output shape; raise ShapeError where the inputs do not fit."""

    @abstractmethod
    def reference(self, *inputs: Array) -> Array:
        """Compute the op with plain loops or plain NumPy: the specification."""

    def lower(self, lowering: Lowering, inputs: Sequence[Buffer], output: Buffer) -> None:
        """Append the kernel calls that compute `output` from `inputs`."""
        raise PlanError(f"{type(self).__name__} has no kernel")

    def view(self, x: Buffer, shape: tuple[int, ...]) -> Buffer | None:
        """Return the output, of this shape, as a part of its input's storage, if it is one."""
        return x.reshape(shape) if self.is_view and x.is_dense else None

    @property
    def is_value(self) -> bool:
        """Whether the op holds options only, so that equal ops give equal results."""
        return type(self).__eq__ is not object.__eq__

    @property
    def size_kernels(self) -> tuple[str, ...]:
        """Kernels of which the size of the image decides whether the op calls them."""
        return ()

    @property
    def overwritten_input(self) -> int | None:
        """The input over which the output may be written."""
        return 0 if self.in_place else None

    def permuted(self, order: Axes) -> Op | None:
        """Return the op `g` with ``f(transpose(x, order)) = transpose(g(x), order)``.

        None where there is none, or none is known. All inputs have ``len(order)`` axes, of
        which the batch stays first.
        """
        return None

    def input_halo(self, *shapes: tuple[int, ...]) -> Halo:
        """Return how many elements the op wants to read around input 0."""
        return NO_HALO

    @property
    def input_border(self) -> Array | None:
        """What the op wants to read around input 0: float32[C], or zeros if None."""
        return None

    def flops(self, *shapes: tuple[int, ...]) -> int:
        """Return the floating-point operations for these input shapes (2 per multiply-add)."""
        return 0

    @property
    def joined_axis(self) -> int | None:
        """The axis, counted from the end, along which the output is its inputs in a row."""
        return None

    @property
    def n_params(self) -> int:
        """Number of weights the op holds."""
        values = (getattr(self, field) for field in self.__dataclass_fields__)  # type: ignore[attr-defined]
        return sum(v.size for v in values if isinstance(v, np.ndarray | LazyArray))


@dataclass(frozen=True)
class Node:
    """One op applied to the tensors of other nodes."""

    name: str
    op: Op
    inputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layer:
    """A Keras layer as its user knows it, for summaries."""

    name: str
    class_name: str
    output: str  # the node whose tensor the layer returns
    n_params: int


@dataclass(frozen=True)
class Graph:
    """Nodes in topological order; inputs and outputs are node names."""

    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    layers: tuple[Layer, ...] = ()
    name: str = "model"
    input_structure: Structure = None  # of positions in `inputs`; None: one, or a list
    output_structure: Structure = None  # of positions in `outputs`

    def __getitem__(self, name: str) -> Node:
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)

    def shapes(self, inputs: Mapping[str, Shape] | None = None) -> dict[str, Shape]:
        """Return every tensor's shape; `inputs` replaces the declared input shapes."""
        shapes: dict[str, Shape] = dict(inputs or {})
        for node in self.nodes:
            if node.name not in shapes:
                shapes[node.name] = node.op.infer_shape(*(shapes[i] for i in node.inputs))
        return shapes

    def consumers(self) -> dict[str, list[Node]]:
        """Return for every tensor the nodes that read it."""
        readers: dict[str, list[Node]] = {node.name: [] for node in self.nodes}
        for node in self.nodes:
            for name in node.inputs:
                readers[name].append(node)
        return readers

    def private_tensors(self) -> set[str]:
        """Return the tensors that one node reads, once, and nobody outside of the graph."""
        readers = self.consumers()
        return {name for name in readers if len(readers[name]) == 1} - set(self.outputs)

    def verify(self) -> Graph:
        """Return the graph itself, or raise PlanError where it is not well-formed."""
        known: set[str] = set()
        for node in self.nodes:
            if node.name in known:
                raise PlanError(f"node {node.name!r} is defined twice")
            missing = set(node.inputs) - known
            if missing:
                raise PlanError(f"node {node.name!r} reads {sorted(missing)} before they exist")
            known.add(node.name)
        if not known.issuperset(self.inputs + self.outputs):
            raise PlanError("a graph input or output names no node")
        return self


def as_array(value: Any) -> Array:
    """Return `value` as a contiguous float32 array."""
    return np.ascontiguousarray(value, dtype=np.float32)
