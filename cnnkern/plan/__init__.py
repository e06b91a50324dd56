"""From a graph and its input shapes to a plan: the only place where an op meets a kernel."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..codegen.isa import Isa, best
from ..errors import ResourceLimitError
from ..graph import NO_HALO, Array, Graph, Halo, Node
from ..kernels import address
from ..kernels.memory import whole_lines
from ..kernels.records import STEP
from ..shapes import product
from .ahead import with_requests
from .buffer import FLOAT_NBYTES, MAX_RANK, Address, Buffer
from .call import HostCall, Step
from .constants import Constants
from .joins import joins
from .layout import Lifetime, place
from .lowering import Lowering
from .words import Words

__all__ = [
    "Address",
    "Buffer",
    "Constants",
    "HostCall",
    "Lowering",
    "Plan",
    "Step",
    "make_plan",
]

ConcreteShape = tuple[int, ...]

COPIES = ("f32_halo", "f32_move")  # which the planner adds where sizes ask for them
WRITTEN_BY_CALLER = -1  # the step before the first
DEFAULT_ARENA_LIMIT = 16 << 30  # bytes; a model that needs more is a mistake or an attack


@dataclass(frozen=True)
class Plan:
    """The steps of one graph at one set of input shapes, and where everything stands."""

    steps: tuple[Step, ...]
    offsets: Mapping[str, int]  # storage -> bytes from the start of the arena
    sizes: Mapping[str, int]  # storage -> bytes
    arena_nbytes: int
    scratch_nbytes: int  # per thread
    inputs: tuple[Buffer, ...]
    outputs: tuple[Buffer, ...]
    constants: Constants  # kept alive by their plans
    isa: Isa
    host_calls: tuple[HostCall, ...] = ()  # in the order of their steps
    tensors_nbytes: int = 0  # of all tensors that nodes compute

    @cached_property
    def flops(self) -> int:
        """Floating-point operations of convolutions and matrix products."""
        return sum(step.flops for step in self.steps)

    def step_nbytes(self) -> list[int]:
        """Return for each step the bytes of the tensors and constants that it touches."""
        constants = {
            array.ctypes.data: array.nbytes for array in self.constants.arrays.values()
        }
        return [
            sum(self.sizes[storage] for storage in step.storages())
            + sum(constants.get(value, 0) for value in step.numbers())
            for step in self.steps
        ]

    @cached_property
    def records(self) -> tuple[np.ndarray, Words, np.ndarray]:
        """The arguments of all steps.

        Returns
        -------
        int64[n_words], Words
            All argument records, and which words are still to be completed.
        starts : int64[n_steps]
            Each step's first word.
        """
        words = Words(self.offsets)
        starts = np.array([words.append(step) for step in self.steps], np.int64)
        return words.joined(), words, starts

    def step_table(self) -> np.ndarray:
        """Return the STEP records without the addresses of their arguments."""
        table = np.zeros(len(self.steps), STEP)
        table["kernel"] = [address(step.kernel, self.isa) for step in self.steps]
        table["n_tiles"] = [step.n_tiles for step in self.steps]
        table["grain"] = [step.grain for step in self.steps]
        table["joined"] = joins(self.steps)
        return table


def make_plan(
    graph: Graph,
    inputs: Mapping[str, ConcreteShape],
    constants: Constants,
    arena_limit: int = DEFAULT_ARENA_LIMIT,
    isa: Isa | None = None,
    in_parts: bool = False,
) -> Plan:
    """Plan `graph` for these input shapes, the batch included, and one instruction set.

    With `in_parts` long sums are added in parts, which takes a little longer and rounds less.

    Raises
    ------
    ShapeError
        The shapes do not fit the graph.
    ResourceLimitError
        The arena would exceed `arena_limit` bytes.
    """
    shapes = {name: _concrete(shape) for name, shape in graph.shapes(inputs).items()}
    largest = max(shapes, key=lambda name: product(shapes[name]))
    if 4 * product(shapes[largest]) > arena_limit:
        raise ResourceLimitError(
            f"tensor {largest[:80]!r} of shape {shapes[largest]} exceeds the limit of "
            f"{arena_limit} bytes"
        )
    lowering = Lowering(constants, isa or best(), in_parts)
    _link_for_other_sizes(graph, lowering)
    return _Planner(graph, shapes, lowering).plan(arena_limit)


def _link_for_other_sizes(graph: Graph, lowering: Lowering) -> None:
    """Have the kernels ready that images of other sizes take: these shall compile nothing."""
    is_open = any(None in shape[1:] for shape in graph.shapes().values())
    names = {name for node in graph.nodes for name in node.op.size_kernels}
    for name in sorted({*COPIES, *names}) if is_open else ():
        lowering.kernel_address(name)


class _Planner:
    """Chooses buffers, lowers the nodes and lays the arena out."""

    def __init__(
        self, graph: Graph, shapes: dict[str, ConcreteShape], lowering: Lowering
    ) -> None:
        self.graph, self.shapes, self.lowering = graph, shapes, lowering
        self.consumers = graph.consumers()
        self.buffers: dict[str, Buffer] = {}  # by node
        self.parts = _parts(graph, shapes)
        self.parts_of: dict[str, list[str]] = defaultdict(list)
        for part, (whole, _) in self.parts.items():
            self.parts_of[whole].append(part)
        self.wholes: dict[str, Buffer] = {}  # by concatenation
        self.cleared: set[str] = set()  # storages whose halo is zero
        self.lifetimes: dict[str, Lifetime] = {}  # by storage
        self.pending: Counter[str] = Counter()  # reads to come, by storage

    def plan(self, arena_limit: int) -> Plan:
        for node in self.graph.nodes:
            self._lower(node)
        for name in self.graph.outputs:
            self._use(self.buffers[name], len(self.lowering.steps))
        offsets, arena_nbytes = place(self.lifetimes.values())
        if arena_nbytes > arena_limit:
            raise ResourceLimitError(
                f"activations of {arena_nbytes} bytes exceed the limit of {arena_limit} bytes"
            )
        steps = with_requests(self.lowering.steps, self.lowering.isa)
        return Plan(
            steps=steps,
            offsets=offsets,
            sizes={name: lifetime.nbytes for name, lifetime in self.lifetimes.items()},
            arena_nbytes=arena_nbytes,
            scratch_nbytes=whole_lines(max((s.scratch_nbytes for s in steps), default=0)),
            inputs=tuple(self.buffers[name] for name in self.graph.inputs),
            outputs=tuple(self.buffers[name] for name in self.graph.outputs),
            constants=self.lowering.constants,
            isa=self.lowering.isa,
            host_calls=tuple(self.lowering.host_calls),
            tensors_nbytes=sum(FLOAT_NBYTES * product(s) for s in self.shapes.values()),
        )

    def _lower(self, node: Node) -> None:
        lowering, begin = self.lowering, len(self.lowering.steps)
        lowering.node = node.name
        inputs = [self.buffers[name] for name in node.inputs]
        view = self._view(node, inputs)
        output = self.buffers[node.name] = view or self._output_buffer(node, inputs)
        self.pending[output.storage] += len(self.consumers[node.name])
        self.pending[output.storage] += node.name in self.graph.outputs
        # Inputs are written before the first step, all of them.
        self._use(output, begin if node.inputs else WRITTEN_BY_CALLER)
        self._clear_halo(output, self._border(node.name))
        if inputs and node.op.is_view and view is None:
            lowering.copy(inputs[0], output)
        elif inputs and view is None:
            node.op.lower(lowering, inputs, output)
        end = max(len(lowering.steps) - 1, begin)
        for buffer in (*inputs, output):
            self._use(buffer, end)
        for first, buffer in lowering.take_temporaries():
            self._use(buffer, first)
            self._use(buffer, end)
        self.pending.subtract(buffer.storage for buffer in inputs)

    def _use(self, buffer: Buffer, step: int) -> None:
        """Extend the lifetime of a buffer's storage to `step`."""
        new = Lifetime(buffer.storage, buffer.nbytes, step, step)
        known = self.lifetimes.get(buffer.storage, new)
        self.lifetimes[buffer.storage] = Lifetime(
            known.storage, known.nbytes, min(known.first, step), max(known.last, step)
        )

    def _clear_halo(self, output: Buffer, border: Array | None) -> None:
        """Write the border of a storage once; nothing else is ever written there."""
        if output.halo != NO_HALO and output.storage not in self.cleared:
            self.cleared.add(output.storage)
            whole = self.wholes.get(output.storage, output)
            self.lowering.clear_border(whole, whole.halo, border)

    def _output_buffer(self, node: Node, inputs: list[Buffer]) -> Buffer:
        """Return where a node writes: over its input where it may, else a new storage.

        Part of a concatenation is written to its place there.
        """
        shape = self.shapes[node.name]
        if node.name in self.parts or node.op.joined_axis == -1:
            whole, first = self.parts.get(node.name, (node.name, 0))
            if whole not in self.wholes:
                halo = widest([self._halo(name) for name in (whole, *self.parts_of[whole])])
                self.wholes[whole] = self._allocate(whole, halo)
            return self.wholes[whole].slice(-1, first, shape[-1])
        halo, index = self._halo(node.name), node.op.overwritten_input
        if inputs and index is not None:
            x = inputs[index]
            is_last = self.pending[x.storage] == 1
            names = node.name, node.inputs[index]
            has_zeros = all(self._border(name) is None for name in names)
            if x.shape == shape and x.halo == halo and is_last and has_zeros:
                return x
        return self._allocate(node.name, halo)

    def _allocate(self, name: str, halo: Halo) -> Buffer:
        """Return a new storage; who views a tensor under another shape wants it dense."""
        shape = self.shapes[name]
        is_viewed = any(node.op.is_view for node in self.consumers[name])
        is_spread = len(shape) <= MAX_RANK and product(shape[1:-1]) > 1 and not is_viewed
        return Buffer.allocate(name, shape, halo, is_spread)

    def _view(self, node: Node, inputs: list[Buffer]) -> Buffer | None:
        """Return the output as a part of its input's storage, where it can be one."""
        is_free = inputs and node.name not in self.parts and self._halo(node.name) == NO_HALO
        return node.op.view(inputs[0], self.shapes[node.name]) if is_free else None

    def _border(self, name: str) -> Array | None:
        """Return what is read around a tensor; who wants no zeros is its only reader."""
        readers = [node.op for node in self.consumers[name] if node.inputs[0] == name]
        return readers[0].input_border if len(readers) == 1 else None

    def _halo(self, name: str) -> Halo:
        """Return the widest halo that any consumer of a tensor wants."""
        wanted = [
            node.op.input_halo(*(self.shapes[i] for i in node.inputs))
            for node in self.consumers[name]
            if node.inputs[0] == name
        ]
        return widest(wanted)


def _parts(graph: Graph, shapes: Mapping[str, ConcreteShape]) -> dict[str, tuple[str, int]]:
    """Return which nodes can write straight into a concatenation of channels.

    Returns
    -------
    dict
        From a node to the outermost concatenation and the node's first channel there.
    """
    nodes = {node.name: node for node in graph.nodes}
    parts: dict[str, tuple[str, int]] = {}
    for node in reversed(graph.nodes):
        if node.op.joined_axis != -1 or len(shapes[node.name]) > MAX_RANK:
            continue
        whole, first = parts.get(node.name, (node.name, 0))
        for name in node.inputs:
            is_written = bool(nodes[name].inputs) and not nodes[name].op.is_view
            is_once = node.inputs.count(name) == 1 and name not in parts
            if is_written and is_once and name not in graph.outputs:
                parts[name] = whole, first
            first += shapes[name][-1]
    return parts


def widest(halos: Sequence[Halo]) -> Halo:
    """Return the halo that covers all of `halos`."""
    d, h, w = (
        tuple(max((halo[axis][side] for halo in halos), default=0) for side in (0, 1))
        for axis in range(3)
    )
    return (d[0], d[1]), (h[0], h[1]), (w[0], w[1])


def _concrete(shape: tuple[int | None, ...]) -> ConcreteShape:
    known = tuple(length for length in shape if length is not None)
    if len(known) != len(shape):
        raise ResourceLimitError(f"the shape {shape} is not known before the model runs")
    return known
