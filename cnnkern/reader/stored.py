"""Arrays that stay in the model file until they are needed."""

from __future__ import annotations

import math
import os
import sys
import weakref
from dataclasses import dataclass

import numpy as np

from ..errors import ModelFileError
from ..graph import Array
from ..lazy import LazyArray

# Reads at a position that forked processes do not share; Windows has none, and there an
# open file cannot be replaced.
CAN_READ_LATER = hasattr(os, "preadv") and sys.byteorder == "little"
MAX_READ_NBYTES = 1 << 30  # Linux reads less than 2 GiB at once


class OpenFile:
    """A model file that stays open, and what tells that it was not changed.

    Reading, and not mapping: a mapped file that is truncated ends the process.

    Parameters
    ----------
    descriptor : int
        Of the open file; it is duplicated and may be closed.
    path : str
        For messages.
    """

    def __init__(self, descriptor: int, path: str) -> None:
        self._descriptor, self._path = os.dup(descriptor), path
        weakref.finalize(self, os.close, self._descriptor).atexit = False
        self._state = self._current_state()

    def read(self, start: int, shape: tuple[int, ...]) -> Array:
        """Return float32 that stand at byte `start`.

        Raises
        ------
        ModelFileError
            The file was changed since it was opened, or cannot be read. A new file that
            took its place does no harm.
        """
        values = np.empty(shape, np.float32)
        view = values.reshape(-1).view(np.uint8).data
        done = 0
        try:
            while done < len(view):
                part = view[done : done + MAX_READ_NBYTES]
                n_read = os.preadv(self._descriptor, [part], start + done)
                if n_read == 0:
                    raise ModelFileError(f"{self._path}: the file has become shorter")
                done += n_read
            state = self._current_state()
        except OSError as error:
            raise ModelFileError(f"{self._path}: cannot be read: {error.strerror}") from error
        if state != self._state:
            raise ModelFileError(
                f"{self._path}: the file was changed after it was loaded; load it again"
            )
        return values

    def _current_state(self) -> tuple[int, int]:
        status = os.fstat(self._descriptor)
        return status.st_size, status.st_mtime_ns


@dataclass(frozen=True)
class Region:
    """Bytes ``[start, start + nbytes)`` of an open file: all that an HDF5 file may hold."""

    file: OpenFile
    start: int
    nbytes: int


class FileArray(LazyArray):
    """A contiguous array of little-endian float32 in an open file."""

    def __init__(self, file: OpenFile, start: int, shape: tuple[int, ...]) -> None:
        self._file, self._start, self.shape = file, start, shape

    def read(self) -> Array:
        return self._file.read(self._start, self.shape)

    def __getitem__(self, rows: slice) -> Array:
        begin, end, _ = rows.indices(self.shape[0])
        row = self.shape[1:]
        shape = (max(end - begin, 0), *row)
        return self._file.read(self._start + 4 * begin * math.prod(row), shape)

    def reshape(self, *shape: int) -> FileArray:
        known = -math.prod(shape)
        lengths = tuple(self.size // known if n == -1 else n for n in shape)
        return FileArray(self._file, self._start, lengths)
