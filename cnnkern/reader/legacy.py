"""Weights of legacy HDF5 files: one group per layer, named like it.

A nested model is one layer there, with the arrays of all its layers in one row: first what
is trained, then what is not. Dividing the row needs to know how many arrays each layer
takes, so the nested model is built once on zeros (`RehearsalSource`), then on its weights.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from ..errors import ModelFileError
from ..graph import Array
from .config import LayerSpec, ModelSpec
from .weights import Group, LayerWeights, Source, StoredArray, WeightQueue, title

# Weights that Keras never trains, by the names under which the ops take them.
NEVER_TRAINED = frozenset({"moving_mean", "moving_variance", "mean", "variance", "count"})

Path = tuple[str, ...]  # the names of nested models, then of the layer


class LegacySource:
    """Weights of an `.h5` file: a group per layer, named like it."""

    def __init__(self, root: Group, spec: ModelSpec) -> None:
        self._root, self._spec = root, spec
        self._names = set(root.texts("layer_names"))
        unknown = sorted(self._names - {layer.name for layer in spec.layers})
        if unknown:
            raise ModelFileError(f"weights of layer {unknown[0][:80]!r}, which does not exist")
        top = root.group("top_level_model_weights")
        if top is not None and top.texts("weight_names"):
            raise ModelFileError("the model has weights that belong to no layer")

    def _arrays(self, index: int) -> list[StoredArray]:
        layer = self._spec.layers[index]
        if layer.is_op or layer.name not in self._names:
            return []
        group = self._root.group(layer.name)
        if group is None:
            raise ModelFileError(f"{title(layer)}: its group of weights is missing")
        return [group.array(name) for name in group.texts("weight_names")]

    def weights(self, index: int) -> LayerWeights:
        """Return the arrays that the layer's `weight_names` lists."""
        return WeightQueue(title(self._spec.layers[index]), self._arrays(index))

    def nested(self, index: int) -> Source:
        """Return the arrays of a nested model, not yet divided among its layers."""
        return FlatSource(title(self._spec.layers[index]), self._arrays(index))


class FlatSource:
    """A nested model's arrays in one row: `split_flat` divides them among its layers."""

    def __init__(self, title: str, arrays: Sequence[StoredArray]) -> None:
        self.title, self.arrays = title, arrays

    def weights(self, index: int) -> LayerWeights:
        """Refuse: the row is not divided yet."""
        raise ModelFileError(f"{self.title}: its weights cannot be told apart")

    def nested(self, index: int) -> Source:
        """Refuse: the row is not divided yet."""
        raise ModelFileError(f"{self.title}: its weights cannot be told apart")


class SplitSource:
    """Weights of a nested model, divided among its layers by `split_flat`."""

    def __init__(
        self, spec: ModelSpec, table: dict[Path, list[StoredArray]], path: Path = ()
    ) -> None:
        self._spec, self._table, self._path = spec, table, path

    def weights(self, index: int) -> LayerWeights:
        """Return the arrays of a layer."""
        layer = self._spec.layers[index]
        return WeightQueue(title(layer), self._table.get((*self._path, layer.name), []))

    def nested(self, index: int) -> Source:
        """Return the source of a model nested deeper."""
        layer = self._spec.layers[index]
        assert layer.model is not None
        return SplitSource(layer.model, self._table, (*self._path, layer.name))


class RehearsalSource:
    """Zeros instead of weights, and a record of what each layer takes.

    Only shapes that the file declares are handed out, so that a rehearsal needs no more
    memory than the weights themselves.
    """

    def __init__(self, spec: ModelSpec, flat: FlatSource) -> None:
        self.taken: dict[Path, list[str]] = {}
        self._path: Path = ()
        self._spec, self._title = spec, flat.title
        self._pool = Counter(stored.shape for stored in flat.arrays)

    def weights(self, index: int) -> LayerWeights:
        """Return zeros that record their names."""
        path = (*self._path, self._spec.layers[index].name)
        return _Rehearsal(self._title, self._pool, self.taken.setdefault(path, []))

    def nested(self, index: int) -> Source:
        """Return the rehearsal of a model nested deeper."""
        layer = self._spec.layers[index]
        assert layer.model is not None
        inner = RehearsalSource(layer.model, FlatSource(self._title, ()))
        inner.taken, inner._pool = self.taken, self._pool
        inner._path = (*self._path, layer.name)
        return inner


class _Rehearsal:
    def __init__(self, title: str, pool: Counter[tuple[int, ...]], names: list[str]) -> None:
        self._title, self._pool, self._names = title, pool, names
        self.n_elems = 0

    def take(self, name: str, shape: Sequence[int]) -> Array:
        if self._pool[tuple(shape)] == 0:
            raise ModelFileError(f"{self._title}: no weight {name!r} of shape {tuple(shape)}")
        self._pool[tuple(shape)] -= 1
        self._names.append(name)
        return np.zeros(tuple(shape), np.float32)

    defer = take

    def skip(self, name: str) -> None:
        self._names.append(name)

    def finish(self) -> None:
        """A rehearsal has nothing left over."""


def split_flat(spec: ModelSpec, flat: FlatSource, taken: dict[Path, list[str]]) -> SplitSource:
    """Divide a nested model's arrays among its layers.

    Legacy files list first what is trained, then what is not, each in the order of the
    layers (`_legacy_weights` in keras/src/legacy/saving/legacy_h5_format.py).

    Parameters
    ----------
    spec : the nested model
    flat : its arrays in one row
    taken : the names of the weights that each layer takes, from a rehearsal
    """
    kinds = [
        (path, spec.trainable and layer.config.get("trainable") is not False
         and name not in NEVER_TRAINED)
        for path, layer in leaves(spec)
        for name in taken.get(path, ())
    ]  # fmt: skip
    if len(kinds) != len(flat.arrays):
        raise ModelFileError(
            f"{flat.title}: {len(flat.arrays)} weights, its layers need {len(kinds)}"
        )
    n_trained = sum(is_trained for _, is_trained in kinds)
    trained, fixed = iter(flat.arrays[:n_trained]), iter(flat.arrays[n_trained:])
    table: dict[Path, list[StoredArray]] = {}
    for path, is_trained in kinds:
        table.setdefault(path, []).append(next(trained if is_trained else fixed))
    return SplitSource(spec, table)


def leaves(spec: ModelSpec, path: Path = ()) -> Iterator[tuple[Path, LayerSpec]]:
    """Yield every layer that is not a model, with its path of names, in Keras' order."""
    for layer in spec.layers:
        if layer.model is None:
            yield (*path, layer.name), layer
        else:
            yield from leaves(layer.model, (*path, layer.name))
