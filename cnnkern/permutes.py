"""A pass that moves permutations down the graph until they cancel or reach its end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from .graph import Axes, Graph, Node
from .ops.layout import Identity, Permute


def sink_permutes(graph: Graph) -> Graph:
    """Apply ops in front of the permutations that they follow, where `Op.permuted` knows how.

    A tensor is known as ``transpose(source, order)`` and is only written in that order where
    an op, or the graph's output, needs it. Two permutations that undo each other vanish.
    """
    if not any(isinstance(node.op, Permute) for node in graph.nodes):
        return graph
    sinking = _Sinking(graph)
    for node in graph.nodes:
        sinking.add(node)
    for name in graph.outputs:
        sinking.write_output(name)
    return replace(graph, nodes=tuple(sinking.nodes))


@dataclass(frozen=True)
class _View:
    """A tensor as ``transpose(source, order)`` of a node that is computed."""

    source: str
    order: Axes

    @property
    def is_source(self) -> bool:
        return list(self.order) == sorted(self.order)

    def transposed(self, order: Axes) -> _View:
        """Return the view of ``transpose(self, order)``."""
        return _View(self.source, tuple(self.order[axis] for axis in order))


class _Sinking:
    """The graph that is being built, and the view that stands for each tensor so far."""

    def __init__(self, graph: Graph) -> None:
        self.nodes: list[Node] = []
        self._ranks = {name: len(shape) for name, shape in graph.shapes().items()}
        self._taken = set(self._ranks)
        self._views: dict[str, _View] = {}
        self._written: dict[_View, str] = {}  # the node that computes it

    def add(self, node: Node) -> None:
        """Note a permutation, or append an op on the sources or on written tensors."""
        if isinstance(node.op, Permute):
            (name,) = node.inputs
            self._views[node.name] = self._views[name].transposed((0, *node.op.dims))
        elif not self._moved(node):
            inputs = tuple(self._write(self._views[name], name) for name in node.inputs)
            self._append(replace(node, inputs=inputs), self._whole(node.name, node.name))

    def write_output(self, name: str) -> None:
        """Make sure that a node of this name computes the tensor."""
        written = self._write(self._views[name], name)
        if written != name:
            self.nodes.append(Node(name, Identity(), (written,)))

    def _moved(self, node: Node) -> bool:
        """Append the op in front of its inputs' permutation; tell whether that was possible."""
        views = [self._views[name] for name in node.inputs]
        order = next((view.order for view in views if not view.is_source), None)
        ranks = {self._ranks[name] for name in (*node.inputs, node.name)}
        if order is None or ranks != {len(order)}:
            return False
        op = node.op.permuted(order)
        if op is None:
            return False
        inverse = tuple(order.index(axis) for axis in range(len(order)))
        inputs = [self._write(view.transposed(inverse), node.name) for view in views]
        name = self._fresh(node.name)
        self._append(Node(name, op, tuple(inputs)), self._whole(name, node.name))
        self._views[node.name] = self._views[name].transposed(order)
        return True

    def _append(self, node: Node, view: _View) -> None:
        self.nodes.append(node)
        self._views[node.name] = view
        self._written[view] = node.name

    def _whole(self, source: str, tensor: str) -> _View:
        return _View(source, tuple(range(self._ranks[tensor])))

    def _write(self, view: _View, wanted: str) -> str:
        """Return the node that computes a view; append it if it is missing."""
        if view not in self._written:
            name = wanted if self._views.get(wanted) == view else self._fresh(wanted)
            self.nodes.append(Node(name, Permute(view.order[1:]), (view.source,)))
            self._written[view] = name
        return self._written[view]

    def _fresh(self, name: str) -> str:
        """Return a name that no node has."""
        free = next(n for n in _suffixed(f"{name}/permuted") if n not in self._taken)
        self._taken.add(free)
        return free


def _suffixed(name: str) -> Iterator[str]:
    yield name
    count = 1
    while True:
        yield f"{name}_{count}"
        count += 1
