"""Model files as safe containers: `.keras` archives and legacy HDF5 files.

The format follows from the content. HDF5 is trusted with nothing: every step of a path must
be a hard link, and an array is read only after its type, layout, filters, shape and size
have been checked. Large float32 arrays are then left where they stand (`stored`). h5py is
imported when a file is read.
"""

from __future__ import annotations

import io
import math
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import CnnkernError, ModelFileError, ResourceLimitError
from ..graph import Array, as_array
from ..lazy import Weight
from .archive import MAX_RATIO, MAX_WEIGHT_BYTES, SMALL_BYTES, Window, read_archive
from .chunks import DEFLATE, FLETCHER32, SHUFFLE, read_chunks
from .config import ModelSpec
from .heap import GuardedFile
from .jsontext import MAX_JSON_BYTES, parse_json
from .legacy import LegacySource
from .stored import CAN_READ_LATER, FileArray, OpenFile, Region
from .weights import Group, KerasSource, Source, StoredArray

ZIP_MAGIC = b"PK\x03\x04"
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
FLOAT_BYTES = (2, 4, 8)
WITH_ARCHITECTURE = (
    "build the model in Keras and call cnnkern.from_keras(model, weights=path) with "
    "the file of weights"
)
DEFERRED_BYTES = 256 << 10  # small models need not keep their file open
MAX_ATTRIBUTE_BYTES = 16 << 20  # 10,000 names of the greatest length, in fixed-size strings
MAX_ATTRIBUTE_ITEMS = 20_000  # a text of any length can stand behind each item


@dataclass(frozen=True)
class ModelFile:
    """An open model file: the configuration, a source for its weights, who wrote it."""

    config: dict[str, Any]
    source: Callable[[ModelSpec], Source]
    keras_version: str | None  # who wrote the file; None where it does not say


@contextmanager
def open_model(path: str | os.PathLike[str]) -> Iterator[ModelFile]:
    """Open a model file; errors raised in the `with` block name the file too.

    Raises
    ------
    ModelFileError
        The file is missing, is not a regular file, is no Keras model, or is damaged.
    ResourceLimitError
        There is no memory for the weights.
    """
    with open_file(path) as file:
        magic = file.read(len(HDF5_MAGIC))
        file.seek(0)
        opened = _open_file(file, path)
        if magic.startswith(ZIP_MAGIC):
            yield from _archive(file, opened)
        elif magic == HDF5_MAGIC:
            yield from _legacy(file, opened)
        elif magic.lstrip().startswith(b"{"):
            raise ModelFileError(f"a JSON file is no whole model: {WITH_ARCHITECTURE}")
        else:
            raise ModelFileError("neither a .keras archive nor an HDF5 file")


@contextmanager
def open_file(path: str | os.PathLike[str]) -> Iterator[io.BufferedReader]:
    """Open a regular file; errors raised in the `with` block name it."""
    try:
        with _open_regular(path) as file:
            yield file
    except CnnkernError as error:
        raise type(error)(f"{os.fsdecode(path)}: {error}") from error.__cause__


def _open_regular(path: str | os.PathLike[str]) -> io.BufferedReader:
    """Open a regular file: opening a FIFO the plain way would wait forever."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ModelFileError("not a regular file")
            return os.fdopen(descriptor, "rb")
        except BaseException:
            os.close(descriptor)
            raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ModelFileError(f"cannot be opened: {reason}") from error


def _open_file(file: io.BufferedReader, path: str | os.PathLike[str]) -> OpenFile | None:
    """Return what reads the file later, or None where that is not possible."""
    if not CAN_READ_LATER:
        return None
    try:
        return OpenFile(file.fileno(), os.fsdecode(path))
    except OSError:  # too many files are open
        return None


def _archive(file: io.BufferedReader, opened: OpenFile | None) -> Iterator[ModelFile]:
    config, metadata, weights = read_archive(file)
    version = metadata.get("keras_version")
    with weights, open_hdf5(weights, _region(weights, opened)) as root:
        yield ModelFile(
            config,
            lambda spec: KerasSource(root, spec),
            version if type(version) is str else None,
        )


def _legacy(file: io.BufferedReader, opened: OpenFile | None) -> Iterator[ModelFile]:
    with open_hdf5(file, _region(file, opened)) as root:
        text = root.text("model_config")
        if text is None:
            raise ModelFileError(f"the HDF5 file has no model_config: {_what_instead(root)}")
        weights = root.group("model_weights")
        if weights is None:
            raise ModelFileError("the HDF5 file has no group model_weights")
        config = parse_json(text, "model_config")
        version = root.text("keras_version")
        yield ModelFile(config, lambda spec: LegacySource(weights, spec), version)


def _what_instead(root: Hdf5Group) -> str:
    """Return what an HDF5 file without a configuration is, and what to do with it."""
    folders = ("layers", "_layer_checkpoint_dependencies")
    if root.texts("layer_names") or any(root.group(name) for name in folders):
        return f"it holds weights only; {WITH_ARCHITECTURE}"
    return "it holds no Keras model"


def _region(weights: io.BufferedIOBase, opened: OpenFile | None) -> Region | None:
    """Return where an HDF5 file stands in the model file; None if it is in memory only."""
    if opened is None or not isinstance(weights, io.BufferedReader):
        return None
    if isinstance(weights.raw, Window):
        return Region(opened, weights.raw.start, weights.raw.size)
    return Region(opened, 0, os.fstat(weights.fileno()).st_size)


@contextmanager
def open_hdf5(file: io.BufferedIOBase, region: Region | None = None) -> Iterator[Hdf5Group]:
    """Open the HDF5 file that another file, open for reading, holds.

    With its `region`, large arrays may be read after both are closed.
    """
    import h5py

    with _hdf5_errors("HDF5 file"):
        root = h5py.File(GuardedFile(file), "r")
    try:
        yield Hdf5Group(root, _Storage(MAX_WEIGHT_BYTES, region), "/")
    finally:
        with _hdf5_errors("HDF5 file"):
            root.close()


@contextmanager
def _hdf5_errors(what: str) -> Iterator[None]:
    """Turn what h5py raises on damaged files into ModelFileError."""
    try:
        yield
    except MemoryError as error:
        raise ResourceLimitError(f"{what}: not enough memory") from error
    except (
        OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError,
        ArithmeticError,
    ) as error:  # fmt: skip
        raise ModelFileError(f"damaged {what}: {str(error)[:200]}") from error


class _Storage:
    """What all arrays of one file share: the bytes that they may take, and their place."""

    def __init__(self, nbytes: int, region: Region | None) -> None:
        self._left, self.region = nbytes, region

    def spend(self, nbytes: int) -> None:
        self._left -= nbytes
        if self._left < 0:
            raise ModelFileError(f"the weights take more than {MAX_WEIGHT_BYTES} bytes")


class Hdf5Group:
    """A group of an HDF5 file, entered through hard links only."""

    def __init__(self, group: Any, storage: _Storage, path: str) -> None:
        self._group, self._storage, self._path = group, storage, path

    def names(self) -> list[str]:
        """Return the names of the members."""
        with _hdf5_errors(f"group {self._path!r}"):
            return [str(name) for name in self._group]

    def group(self, path: str) -> Group | None:
        """Return the group at a path of names joined by slashes, or None."""
        import h5py

        found = self._walk(path)
        if found is not None and not isinstance(found, h5py.Group):
            raise ModelFileError(f"{self._where(path)} is not a group")
        return None if found is None else Hdf5Group(found, self._storage, self._where(path))

    def array(self, path: str) -> StoredArray:
        """Return the array at a path, its type, layout and filters checked."""
        import h5py

        where = self._where(path)
        found = self._walk(path)
        if not isinstance(found, h5py.Dataset):
            raise ModelFileError(f"array {where!r} is missing")
        with _hdf5_errors(f"array {where!r}"):
            return _checked_array(found, where, self._storage)

    def text(self, name: str) -> str | None:
        """Return a text attribute, or None."""
        with _hdf5_errors(f"attribute {name!r}"):
            if name not in self._group.attrs:
                return None
            value = self._attribute(name)
            if not isinstance(value, (str, bytes)):
                raise ModelFileError(f"attribute {name!r} is not a text")
            return _decoded(value)

    def texts(self, name: str) -> list[str]:
        """Return a list of texts; Keras cuts a long one into `name0`, `name1`, ..."""
        with _hdf5_errors(f"attribute {name!r}"):
            if name in self._group.attrs:
                return self._text_list(name)
            result: list[str] = []
            count = 0
            while f"{name}{count}" in self._group.attrs:
                result += self._text_list(f"{name}{count}")
                count += 1
            return result

    def _text_list(self, name: str) -> list[str]:
        value = self._attribute(name)
        if not isinstance(value, np.ndarray) or value.ndim != 1:
            raise ModelFileError(f"attribute {name!r} is not a list")
        return [_decoded(item) for item in value.tolist()]

    def _attribute(self, name: str) -> Any:
        import h5py

        stored = self._group.attrs.get_id(name)
        if math.prod(stored.shape) == 0:
            return np.empty(stored.shape)
        if h5py.check_string_dtype(stored.dtype) is None:
            raise ModelFileError(f"attribute {name!r} does not hold text")
        n_items = math.prod(stored.shape)
        nbytes = n_items * stored.dtype.itemsize
        if n_items > MAX_ATTRIBUTE_ITEMS or nbytes > MAX_ATTRIBUTE_BYTES:
            raise ModelFileError(f"attribute {name!r} is too large")
        return self._group.attrs[name]

    def _walk(self, path: str) -> Any:
        """Return the object at a path, or None; every step must be a hard link."""
        import h5py

        found = self._group
        for name in path.split("/"):
            if name in ("", "."):
                raise ModelFileError(f"{self._where(path)[:200]!r} is not a valid path")
            if not isinstance(found, h5py.Group):
                return None
            with _hdf5_errors(f"group {self._where(path)!r}"):
                links, key = found.id.links, name.encode()
                if not links.exists(key):
                    return None
                if links.get_info(key).type != h5py.h5l.TYPE_HARD:
                    kind = type(found.get(name, getlink=True)).__name__
                    raise ModelFileError(f"{self._where(path)!r} is a {kind}, not stored here")
                found = found[name]
        return found

    def _where(self, path: str) -> str:
        return f"{self._path.rstrip('/')}/{path}"[:200]


def _decoded(value: str | bytes) -> str:
    if len(value) > MAX_JSON_BYTES:
        raise ModelFileError("a text attribute is too long")
    text = value.decode("utf-8") if isinstance(value, bytes) else value
    text.encode("utf-8")  # h5py hides invalid bytes in surrogates
    return text


@dataclass(frozen=True)
class _Hdf5Array:
    """A dataset that passed `_checked_array`."""

    dataset: Any
    shape: tuple[int, ...]
    filters: tuple[int, ...]
    where: str
    storage: _Storage

    def read(self) -> Array:
        """Return the elements as float32."""
        self._spend()
        with _hdf5_errors(f"array {self.where!r}"), np.errstate(over="ignore"):
            in_file = self._in_file()
            if in_file is not None:
                return in_file.read()
            if self.filters:
                values = read_chunks(self.dataset, self.filters)
            else:
                values = self.dataset[()]
            return as_array(values).reshape(self.shape)

    def defer(self) -> Weight:
        """Return the elements, or a large array that reads them from the file later."""
        with _hdf5_errors(f"array {self.where!r}"):
            in_file = self._in_file()
        if in_file is None or 4 * in_file.size < DEFERRED_BYTES:
            return self.read()
        self._spend()
        return in_file

    def _spend(self) -> None:
        """Refuse types other than float, and more bytes than the file may have."""
        with _hdf5_errors(f"type of array {self.where!r}"):
            dtype = self.dataset.dtype
        if dtype.kind != "f" or dtype.itemsize not in FLOAT_BYTES:
            raise ModelFileError(f"array {self.where!r} has type {dtype}, it must be float")
        self.storage.spend(math.prod(self.shape) * dtype.itemsize)

    def _in_file(self) -> FileArray | None:
        """Return the array where it stands in the file, or None unless it is float32 there."""
        import h5py

        region, dataset = self.storage.region, self.dataset.id
        is_contiguous = dataset.get_create_plist().get_layout() == h5py.h5d.CONTIGUOUS
        if region is None or self.filters or not is_contiguous:
            return None
        offset = dataset.get_offset()
        if offset is None or not dataset.get_type().equal(h5py.h5t.IEEE_F32LE):
            return None
        if offset + 4 * math.prod(self.shape) > region.nbytes:
            raise ModelFileError(f"array {self.where!r} ends behind the file")
        return FileArray(region.file, region.start + offset, self.shape)


def _checked_array(dataset: Any, where: str, storage: _Storage) -> _Hdf5Array:
    import h5py

    options = dataset.id.get_create_plist()
    if options.get_external_count() or options.get_layout() not in (
        h5py.h5d.COMPACT,
        h5py.h5d.CONTIGUOUS,
        h5py.h5d.CHUNKED,
    ):
        raise ModelFileError(f"array {where!r} is not stored in the file itself")
    filters = tuple(options.get_filter(i)[0] for i in range(options.get_nfilters()))
    if not set(filters) <= {DEFLATE, SHUFFLE, FLETCHER32}:
        raise ModelFileError(f"array {where!r} needs filter {filters}")
    shape = dataset.shape
    if shape is None:
        raise ModelFileError(f"array {where!r} is empty")
    nbytes = math.prod(shape) * dataset.id.get_type().get_size()
    stored = dataset.id.get_storage_size()
    if nbytes > (max(MAX_RATIO * stored, SMALL_BYTES) if filters else stored):
        raise ModelFileError(f"array {where!r} claims {nbytes} bytes that are not stored")
    return _Hdf5Array(dataset, tuple(shape), filters, where, storage)
