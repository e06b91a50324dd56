"""What an ONNX node becomes: a chain of cnnkern's ops on arrays in cnnkern's layout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cnnkern import Model, naive
from cnnkern.graph import Array, Graph, Op
from support import graph_of


@dataclass(frozen=True)
class Translation:
    """Ops in sequence, the first op's inputs, and the way back to ONNX's layout."""

    ops: tuple[Op, ...]
    inputs: tuple[Array, ...]
    restore: Callable[[Array], Array]

    def graph(self) -> Graph:
        """Return the graph of the ops, for any batch."""
        inputs = {f"x{i}": (None, *x.shape[1:]) for i, x in enumerate(self.inputs)}
        steps, sources = [], tuple(inputs)
        for i, op in enumerate(self.ops):
            steps.append((f"y{i}", op, sources))
            sources = (f"y{i}",)
        return graph_of(inputs, steps)

    def by_kernels(self) -> Array:
        """Return the result of the compiled model, in ONNX's layout."""
        y = Model(self.graph())(self.inputs[0] if len(self.inputs) == 1 else self.inputs)
        return self.restore(y)

    def by_reference(self) -> Array:
        """Return the result of the ops' references, in ONNX's layout."""
        (y,) = naive.run(self.graph(), self.inputs)
        return self.restore(y)


def on_images(x: Array, *ops: Op) -> Translation:
    """Apply ops to ``[N, C, *spatial]``, which become channels-last."""
    return Translation(ops, (np.moveaxis(x, 1, -1),), lambda y: np.moveaxis(y, -1, 1))


def on_samples(inputs: Sequence[Array], *ops: Op) -> Translation:
    """Apply ops to whole tensors, each the only sample of a batch."""
    return Translation(ops, tuple(x[None] for x in inputs), lambda y: y[0])
