"""Where a layer's arrays come from: one source per model, one queue per layer.

KerasSource reads what `.keras` files hold: groups such as ``layers/conv2d_1/vars`` that are
named after the layer's class and counted within its model, with arrays ``0``, ``1``, ...
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Protocol

from ..errors import ModelFileError
from ..graph import Array
from ..lazy import Weight
from ..ops.config import Weights
from ..shapes import product
from .config import LayerSpec, ModelSpec


class StoredArray(Protocol):
    """An array whose shape is known and whose elements are read on demand."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def read(self) -> Array: ...

    def defer(self) -> Weight:
        """Return the elements, or what reads them when they are needed."""
        ...


class Group(Protocol):
    """A folder of stored arrays with attributes."""

    def names(self) -> list[str]:
        """Return the names of the members."""
        ...

    def group(self, path: str) -> Group | None:
        """Return the group at a path of names joined by slashes, or None."""
        ...

    def array(self, path: str) -> StoredArray:
        """Return the array at a path."""
        ...

    def text(self, name: str) -> str | None:
        """Return a text attribute, or None."""
        ...

    def texts(self, name: str) -> list[str]:
        """Return an attribute that is a list of texts; empty where there is none."""
        ...


class LayerWeights(Weights, Protocol):
    """The arrays of one layer."""

    n_elems: int  # elements handed out or passed over so far

    def finish(self) -> None:
        """Raise ModelFileError if arrays are left over."""
        ...


class Source(Protocol):
    """The arrays of one model's layers; `index` counts ``spec.layers``."""

    def weights(self, index: int) -> LayerWeights:
        """Return the arrays of a layer."""
        ...

    def nested(self, index: int) -> Source:
        """Return the source of a nested model."""
        ...


class WeightQueue:
    """Hand out a layer's arrays one by one, shapes compared before reading."""

    def __init__(self, title: str, arrays: Sequence[StoredArray]) -> None:
        self._title, self._arrays = title, arrays
        self._taken = 0
        self.n_elems = 0

    def take(self, name: str, shape: Sequence[int]) -> Array:
        """Return the next array as float32; raise ModelFileError unless it has `shape`."""
        return self._fitting(name, shape).read()

    def defer(self, name: str, shape: Sequence[int]) -> Weight:
        """Return the next array like `take`; its elements may be read later."""
        return self._fitting(name, shape).defer()

    def _fitting(self, name: str, shape: Sequence[int]) -> StoredArray:
        stored = self._next(name)
        if stored.shape != tuple(shape):
            raise ModelFileError(
                f"{self._title}: weight {name!r} has shape {stored.shape}, "
                f"the configuration needs {tuple(shape)}"
            )
        return stored

    def skip(self, name: str) -> None:
        """Pass over the next array without reading it."""
        self._next(name)

    def finish(self) -> None:
        """Raise ModelFileError if arrays are left over."""
        left = len(self._arrays) - self._taken
        if left:
            raise ModelFileError(f"{self._title}: {left} weights more than it can have")

    def _next(self, name: str) -> StoredArray:
        if self._taken == len(self._arrays):
            raise ModelFileError(f"{self._title}: weight {name!r} is missing")
        stored = self._arrays[self._taken]
        self._taken += 1
        self.n_elems += product(stored.shape)
        return stored


def title(layer: LayerSpec) -> str:
    """Return how errors name a layer."""
    return f"{layer.class_name[:80]} {layer.name[:80]!r}"


def snake_case(name: str) -> str:
    """Return a class name as Keras spells it in paths (`keras.src.utils.naming`)."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


class KerasSource:
    """Weights of a `.keras` file: groups named after classes, counted per model."""

    def __init__(self, root: Group | None, spec: ModelSpec) -> None:
        self._spec = spec
        self._groups: dict[int, Group | None] = {}
        layers = root and root.group("layers")
        dependencies = root and root.group("_layer_checkpoint_dependencies")
        if layers:
            self._find_counted(layers)
        elif dependencies:
            self._find_in_order(dependencies)

    def _saved_layers(self) -> Iterator[tuple[int, str]]:
        for index, layer in enumerate(self._spec.layers):
            if not layer.is_op and (layer.is_shown or not layer.is_input):
                yield index, snake_case(layer.class_name)

    def _find_counted(self, folder: Group) -> None:
        known, counts = set(folder.names()), Counter[str]()
        expected = set()
        for index, name in self._saved_layers():
            path = f"{name}_{counts[name]}" if counts[name] else name
            counts[name] += 1
            expected.add(path)
            self._groups[index] = folder.group(path) if path in known else None
        unknown = sorted(known - expected)
        if unknown:
            raise ModelFileError(
                f"model {self._spec.name[:80]!r}: "
                f"weights {unknown[0][:80]!r} belong to no layer"
            )

    def _find_in_order(self, folder: Group) -> None:
        """Match the groups of Keras 2.12, which counted a layer with weights twice."""
        numbered: dict[str, list[tuple[int, Group]]] = {}
        for path in folder.names():
            group, match = folder.group(path), re.fullmatch(r"(.*?)(?:_(\d{1,9}))?", path)
            if group is not None and match is not None and _holds_arrays(group):
                numbered.setdefault(match[1], []).append((int(match[2] or 0), group))
        layers: dict[str, list[int]] = {}
        for index, name in self._saved_layers():
            layers.setdefault(name, []).append(index)
        for name, found in numbered.items():
            indices = layers.get(name, [])
            if len(found) != len(indices):
                raise ModelFileError(
                    f"model {self._spec.name[:80]!r}: {len(found)} groups of weights "
                    f"for {len(indices)} layers {name[:80]!r}"
                )
            found.sort(key=lambda pair: pair[0])
            self._groups.update(zip(indices, (group for _, group in found), strict=True))

    def _variables(self, index: int) -> Group | None:
        """Return the group of a layer's own arrays, which may name the layer."""
        layer, group = self._spec.layers[index], self._groups.get(index)
        variables = None if group is None else group.group("vars")
        if variables is not None:
            name = variables.text("name")
            if name is not None and name != layer.name:
                raise ModelFileError(
                    f"{title(layer)}: its weights belong to layer {name[:80]!r}"
                )
        return variables

    def weights(self, index: int) -> LayerWeights:
        """Return ``vars/0``, ``vars/1``, ... of a layer."""
        layer, variables = self._spec.layers[index], self._variables(index)
        if variables is None:
            return WeightQueue(title(layer), ())
        found = variables.names()
        names = [str(count) for count in range(len(found))]
        if set(found) != set(names):
            raise ModelFileError(f"{title(layer)}: its weights are not numbered from 0")
        return WeightQueue(title(layer), [variables.array(name) for name in names])

    def nested(self, index: int) -> Source:
        """Return the source of a nested model."""
        layer = self._spec.layers[index]
        assert layer.model is not None
        self._variables(index)
        return KerasSource(self._groups.get(index), layer.model)


def _holds_arrays(group: Group) -> bool:
    variables = group.group("vars")
    return group.group("layers") is not None or bool(variables and variables.names())
