"""Records and weights in, Graph out: nested models are flattened, shared layers share ops."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import CnnkernError, ModelFileError
from ..graph import Graph, Layer, Node, Op
from ..ops.common import same_shape
from ..ops.config import LayerConfig
from ..shapes import Shape
from .calls import Call, TensorRef, call_tensors
from .channels import is_channels_first
from .config import LayerSpec, ModelSpec
from .layer import (
    build_ops,
    expect_float32,
    layer_config,
    layer_inputs,
    op_factory,
    output_shape,
)
from .legacy import FlatSource, Path, RehearsalSource, leaves, split_flat
from .weights import Source, WeightQueue, title

MAX_CALLS = 50_000  # a nested model that is applied often multiplies its layers

MAX_CLAIMS = 16  # outputs of a layer that is not understood

Tensors = dict[tuple[str, int], tuple[str, ...]]  # (layer, call) -> node names
Claims = dict[tuple[str, int], list[Shape | None]]  # (layer, call) -> shapes


@dataclass(frozen=True)
class Problem:
    """Why a layer cannot be run."""

    layer: str
    class_name: str
    message: str


def build_graph(spec: ModelSpec, source: Source) -> Graph:
    """Return the graph of a model.

    Raises
    ------
    UnsupportedLayerError
        A layer, or one of its options, is not implemented.
    ModelFileError
        A layer's configuration or weights are malformed.
    """
    return _Builder().graph(spec, source).verify()


def find_problems(spec: ModelSpec, source: Source) -> list[Problem]:
    """Return what `build_graph` would raise, for all layers instead of the first.

    Behind a layer with a problem, the shapes are those that the configuration claims.
    """
    problems: dict[Problem, None] = {}
    _Builder(problems).graph(spec, source)
    return list(problems)


def call_order(spec: ModelSpec) -> list[tuple[int, int]]:
    """Return (layer index, call index) of all calls, each behind the calls it reads."""
    index = {layer.name: i for i, layer in enumerate(spec.layers)}
    n_waiting: dict[tuple[int, int], int] = {}
    readers: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for i, layer in enumerate(spec.layers):
        for c, call in enumerate(layer.calls):
            needed = {
                (index[ref.layer], ref.call)
                for ref in call_tensors(call)
                if not spec.layers[index[ref.layer]].is_input
            }
            n_waiting[i, c] = len(needed)
            for place in needed:
                readers.setdefault(place, []).append((i, c))
    ready = sorted(place for place, count in n_waiting.items() if count == 0)
    order = []
    while ready:
        place = heapq.heappop(ready)
        order.append(place)
        for reader in readers.get(place, ()):
            n_waiting[reader] -= 1
            if n_waiting[reader] == 0:
                heapq.heappush(ready, reader)
    if len(order) < len(n_waiting):
        raise ModelFileError(f"model {spec.name[:80]!r}: its layers form a cycle")
    return order


@dataclass(frozen=True)
class _Scope:
    """A model within the graph that is being built."""

    spec: ModelSpec
    source: Source
    path: Path = ()


class _Builder:
    def __init__(self, problems: dict[Problem, None] | None = None) -> None:
        self._problems = problems
        self._nodes: list[Node] = []
        self._shapes: dict[str, Shape | None] = {}  # None: unknown, after a problem
        self._reserved: frozenset[str] = frozenset()
        self._suffixes: Counter[str] = Counter()
        self._is_channels_first = False
        self._n_calls = 0
        self._ops: dict[Path, tuple[Op, ...]] = {}
        self._n_params: Counter[str] = Counter()  # per layer of the outermost model
        self._sources: dict[Path, Source] = {}
        self._claims: dict[Path, Claims] = {}

    def graph(self, spec: ModelSpec, source: Source) -> Graph:
        """Build the whole model."""
        self._reserved = frozenset("/".join(path) for path, _ in leaves(spec))
        self._is_channels_first = any(is_channels_first(layer) for _, layer in leaves(spec))
        by_name = {layer.name: layer for layer in spec.layers}
        try:
            expect_float32(LayerConfig(spec.name, spec.class_name, {}), spec.dtype)
        except CnnkernError as error:
            self._failed(spec.class_name, (spec.name,), error, ())
        inputs = [self._input(by_name[name]) for name in spec.inputs]
        tensors = self._model(_Scope(spec, source), inputs)
        rows = tuple(
            Layer(
                layer.name,
                layer.class_name,
                tensors[layer.name, 0][0],
                self._n_params[layer.name],
            )
            for layer in spec.layers
            if layer.is_shown
        )
        outputs = tuple(_tensor(tensors, ref) for ref in spec.outputs)
        return Graph(
            tuple(self._nodes), tuple(inputs), outputs, rows, spec.name,
            spec.input_structure, spec.output_structure,
        )  # fmt: skip

    def _input(self, layer: LayerSpec) -> str:
        path = (layer.name,)
        try:
            return self._emit(layer, path, self._input_op(layer, path), ())
        except CnnkernError as error:
            return self._failed(layer.class_name, path, error, [None])[0]

    def _input_op(self, layer: LayerSpec, path: Path) -> tuple[Op, ...]:
        config = layer_config(layer, "/".join(path), Call(()))
        return build_ops(op_factory(layer), config, WeightQueue(title(layer), ()), ())

    def _model(self, scope: _Scope, inputs: Sequence[str]) -> Tensors:
        """Apply a model to tensors; return what every call in it computes."""
        tensors: Tensors = {
            (name, 0): (node,) for name, node in zip(scope.spec.inputs, inputs, strict=True)
        }
        for index, count in call_order(scope.spec):
            layer = scope.spec.layers[index]
            self._n_calls += 1
            if self._n_calls > MAX_CALLS:
                raise ModelFileError(f"the model applies layers more than {MAX_CALLS} times")
            try:
                outputs = self._call(scope, index, count, tensors)
            except CnnkernError as error:
                path, claims = (*scope.path, layer.name), self._claimed(scope, layer, count)
                outputs = self._failed(layer.class_name, path, error, claims)
            tensors[layer.name, count] = outputs
        return tensors

    def _failed(
        self, class_name: str, path: Path, error: CnnkernError, claims: Sequence[Shape | None]
    ) -> tuple[str, ...]:
        """Note a problem and go on with tensors of the claimed shapes, or raise it."""
        if self._problems is None:
            raise error
        self._problems[Problem("/".join(path), class_name, str(error))] = None
        return tuple(self._unknown(path, shape) for shape in claims)

    def _claimed(self, scope: _Scope, layer: LayerSpec, count: int) -> list[Shape | None]:
        """Return the shapes that the configuration claims for what a call returns."""
        if self._problems is None:
            return []
        if scope.path not in self._claims:
            self._claims[scope.path] = _claimed_shapes(scope.spec)
        return self._claims[scope.path].get((layer.name, count), [None])

    def _unknown(self, path: Path, shape: Shape | None) -> str:
        name = self._fresh("/".join(path))
        self._shapes[name] = shape
        return name

    def _call(self, scope: _Scope, index: int, count: int, tensors: Tensors) -> tuple[str, ...]:
        layer = scope.spec.layers[index]
        call, path = layer.calls[count], (*scope.path, layer.name)
        inputs = [_tensor(tensors, ref) for ref in layer_inputs(layer, call)]
        if layer.model is not None:
            return self._nested(scope, index, inputs)
        factory, config = op_factory(layer), layer_config(layer, "/".join(path), call)
        config.in_channels_first_model = self._is_channels_first
        shapes = self._known_shapes(inputs)
        if len(shapes) < len(inputs):
            claims = self._claimed(scope, layer, count)
            return tuple(self._unknown(path, shape) for shape in claims)
        key = (*path, str(count)) if layer.is_op else path  # an op's arguments vary by call
        if key not in self._ops:
            weights = scope.source.weights(index)
            self._ops[key] = build_ops(factory, config, weights, shapes)
            self._n_params[path[0]] += weights.n_elems
        return (self._emit(layer, path, self._ops[key], inputs),)

    def _nested(self, scope: _Scope, index: int, inputs: list[str]) -> tuple[str, ...]:
        layer = scope.spec.layers[index]
        path, model = (*scope.path, layer.name), layer.model
        assert model is not None
        expect_float32(LayerConfig("/".join(path), layer.class_name, {}), model.dtype)
        self._check_declared(layer, model, path, inputs)
        if path not in self._sources:
            self._sources[path] = scope.source.nested(index)
        source = self._sources[path]
        if isinstance(source, FlatSource):
            rehearsal = RehearsalSource(model, source)
            trial = _Builder(None if self._problems is None else {})
            names = [trial._unknown(path, self._shapes[name]) for name in inputs]
            outputs = trial._outputs(_Scope(model, rehearsal, path), names)
            if self._problems is not None and trial._problems:
                self._problems.update(trial._problems)
                return tuple(self._unknown(path, trial._shapes[name]) for name in outputs)
            source = self._sources[path] = split_flat(model, source, rehearsal.taken)
        return self._outputs(_Scope(model, source, path), inputs)

    def _outputs(self, scope: _Scope, inputs: Sequence[str]) -> tuple[str, ...]:
        tensors = self._model(scope, inputs)
        return tuple(_tensor(tensors, ref) for ref in scope.spec.outputs)

    def _check_declared(
        self, layer: LayerSpec, model: ModelSpec, path: Path, inputs: Sequence[str]
    ) -> None:
        """Compare the tensors that a nested model receives with its InputLayers."""
        if len(inputs) != len(model.inputs):
            raise ModelFileError(
                f"{title(layer)}: {len(inputs)} inputs for {len(model.inputs)} input layers"
            )
        by_name = {child.name: child for child in model.layers}
        for name, node in zip(model.inputs, inputs, strict=True):
            child, got = by_name[name], self._shapes[node]
            if got is None or (not child.is_shown and child.config.get("batch_shape") is None):
                continue
            (op,) = self._input_op(child, (*path, name))
            declared = op.infer_shape()
            if not same_shape(declared, got):
                raise ModelFileError(
                    f"{title(layer)}: input {name[:80]!r} expects {declared}, got {got}"
                )

    def _emit(
        self, layer: LayerSpec, path: Path, ops: Sequence[Op], inputs: Sequence[str]
    ) -> str:
        """Append nodes for a chain of ops; return the name of the last one."""
        last = self._unknown(path, None)
        for position, op in enumerate(ops, start=1):
            shape = output_shape(title(layer), op, self._known_shapes(inputs))
            name = last
            if position < len(ops):
                name = self._fresh(f"{last}/{type(op).__name__.lower()}")
            self._shapes[name] = shape
            self._nodes.append(Node(name, op, tuple(inputs)))
            inputs = (name,)
        return last

    def _known_shapes(self, names: Sequence[str]) -> list[Shape]:
        return [shape for name in names if (shape := self._shapes[name]) is not None]

    def _fresh(self, path: str) -> str:
        """Return a node name that is not taken: `path`, or `path` with a number."""
        name = path
        while name in self._shapes or (name != path and name in self._reserved):
            self._suffixes[path] += 1
            name = f"{path}_{self._suffixes[path]}"
        return name


def _tensor(tensors: Tensors, ref: TensorRef) -> str:
    outputs = tensors[ref.layer, ref.call]
    if not 0 <= ref.tensor < len(outputs):
        raise ModelFileError(f"layer {ref.layer[:80]!r} has no output {ref.tensor}")
    return outputs[ref.tensor]


def _claimed_shapes(spec: ModelSpec) -> Claims:
    """Return the shapes that the configuration claims for what its calls return."""
    claims: Claims = {}
    calls = (call for layer in spec.layers for call in layer.calls)
    for ref in (*(ref for call in calls for ref in call_tensors(call)), *spec.outputs):
        shapes = claims.setdefault((ref.layer, ref.call), [None])
        if 0 <= ref.tensor < MAX_CLAIMS:
            shapes.extend([None] * (ref.tensor + 1 - len(shapes)))
            shapes[ref.tensor] = shapes[ref.tensor] or ref.shape
    return claims
