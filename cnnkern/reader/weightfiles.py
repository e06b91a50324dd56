"""Weights without an architecture, for the layers of a live model.

What `model.load_weights` takes: a ``.weights.h5`` file, a ``.weights.json`` index with its
shards, the weights inside a ``.keras`` archive, or a legacy HDF5 file. Like there, a
layer's weights are found by its position in the model and not by its name. Shapes are
compared with those of the model before anything is read, so that its size bounds what all
shards together can hand out.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from ..errors import ModelFileError
from .archive import read_archive
from .config import ModelSpec
from .files import HDF5_MAGIC, ZIP_MAGIC, open_file, open_hdf5
from .jsontext import MAX_JSON_BYTES, parse_json
from .legacy import LegacySource
from .weights import Group, KerasSource, Source, StoredArray

MAX_SHARDS = 256  # all are open at once, and a process may often open 1,024 files
MAX_SHARD_NAME = 255  # bytes, of most file systems
SHARD_SUFFIX = ".weights.h5"

SourceMaker = Callable[[ModelSpec], Source]


@contextmanager
def open_weights(
    path: str | os.PathLike[str], layer_names: Sequence[str]
) -> Iterator[SourceMaker]:
    """Open a file of weights; errors raised in the `with` block name it.

    Parameters
    ----------
    path : str or path
        The format follows from the content.
    layer_names : sequence of str
        The layers of the model that have weights, in order: legacy files count them.

    Raises
    ------
    ModelFileError
        The file or one of its shards is missing, is not a regular file, or is damaged.
    """
    with open_file(path) as file, ExitStack() as stack:
        magic = file.read(len(HDF5_MAGIC))
        file.seek(0)
        if magic == HDF5_MAGIC:
            yield _from_hdf5(stack.enter_context(open_hdf5(file)), layer_names)
        elif magic.startswith(ZIP_MAGIC):
            *_, weights = read_archive(file)
            stack.enter_context(weights)
            yield partial(KerasSource, MergedGroup([stack.enter_context(open_hdf5(weights))]))
        elif magic.lstrip().startswith(b"{"):
            names = shard_names(parse_json(file.read(MAX_JSON_BYTES + 1), "index of weights"))
            folder = os.path.dirname(os.fsdecode(path))
            shards = [stack.enter_context(_open_shard(folder, name)) for name in names]
            yield partial(KerasSource, MergedGroup(shards))
        else:
            raise ModelFileError("neither an HDF5 file, a .keras archive nor a JSON index")


def _from_hdf5(root: Group, layer_names: Sequence[str]) -> SourceMaker:
    legacy = root.group("model_weights") or root
    if legacy is root and not root.texts("layer_names"):
        return partial(KerasSource, MergedGroup([root]))
    return partial(LegacySource, RenamedGroup(legacy, layer_names))


@contextmanager
def _open_shard(folder: str, name: str) -> Iterator[Group]:
    with open_file(os.path.join(folder, name)) as file, open_hdf5(file) as root:
        yield root


def shard_names(index: dict[str, Any]) -> list[str]:
    """Return the files that an index of weights names, each once.

    Parameters
    ----------
    index : dict
        ``{"weight_map": {path of a group: file name, or a list of them}}``.

    Raises
    ------
    ModelFileError
        The index is malformed, or a name could lead out of the folder of the index.
    """
    weight_map = index.get("weight_map")
    if type(weight_map) is not dict:
        raise ModelFileError("the JSON file has no weight_map: it is no index of weights")
    names: dict[str, None] = {}
    for value in weight_map.values():
        for name in value if type(value) is list else [value]:
            if not _is_plain(name):
                raise ModelFileError(f"{str(name)[:80]!r} is not the plain name of a shard")
            names[name] = None
    if len(names) > MAX_SHARDS:
        raise ModelFileError(f"the index names more than {MAX_SHARDS} shards")
    return list(names)


def _is_plain(name: Any) -> bool:
    """Tell whether a name can only be a shard beside its index, on any system."""
    return (
        type(name) is str
        and len(name.encode("utf-8", "replace")) <= MAX_SHARD_NAME
        and name.isprintable()
        and name.endswith(SHARD_SUFFIX)
        and not set(name) & set('/\\:')
    )  # fmt: skip


class MergedGroup:
    """A group that may lie in several files, each array in one of them."""

    def __init__(self, parts: Sequence[Group]) -> None:
        self._parts = parts

    def names(self) -> list[str]:
        """Return the names of the members in any file."""
        return list(dict.fromkeys(name for part in self._parts for name in part.names()))

    def group(self, path: str) -> Group | None:
        """Return the group at a path, or None where no file has it."""
        found = [group for part in self._parts if (group := part.group(path)) is not None]
        return MergedGroup(found) if found else None

    def array(self, path: str) -> StoredArray:
        """Return a member that is an array; raise ModelFileError unless one file has it."""
        holders = [part for part in self._parts if path in part.names()]
        if len(holders) != 1:
            raise ModelFileError(f"array {path[:80]!r} is in {len(holders)} files of weights")
        return holders[0].array(path)

    def text(self, name: str) -> str | None:
        """Return None: the name of the layer that was saved may differ."""
        return None

    def texts(self, name: str) -> list[str]:
        """Return an empty list: there are no such attributes."""
        return []


class RenamedGroup:
    """The weights of a legacy file, its layers renamed in order.

    Keras counts only layers that have weights (`load_weights_from_hdf5_group` in
    keras/src/legacy/saving/legacy_h5_format.py).
    """

    def __init__(self, root: Group, layer_names: Sequence[str]) -> None:
        self._root = root
        saved = [name for name in root.texts("layer_names") if _has_weights(root, name)]
        if len(saved) != len(layer_names):
            raise ModelFileError(
                f"weights of {len(saved)} layers, the model has {len(layer_names)} with weights"
            )
        self._saved = dict(zip(layer_names, saved, strict=True))

    def names(self) -> list[str]:
        """Return the names of the model's layers."""
        return list(self._saved)

    def group(self, path: str) -> Group | None:
        """Return the group of a layer of the model, or any other of the file."""
        return self._root.group(self._saved.get(path, path))

    def array(self, path: str) -> StoredArray:
        """Return the array at a path of the file."""
        return self._root.array(path)

    def text(self, name: str) -> str | None:
        """Return a text attribute of the file."""
        return self._root.text(name)

    def texts(self, name: str) -> list[str]:
        """Return a list of texts of the file, of which `layer_names` is the model's."""
        return self.names() if name == "layer_names" else self._root.texts(name)


def _has_weights(root: Group, name: str) -> bool:
    group = root.group(name)
    return group is not None and bool(group.texts("weight_names"))
