"""A file that libhdf5 can read without hanging in a damaged global heap."""

from __future__ import annotations

import io
import struct
from typing import Any

SIGNATURE = b"GCOL"
_HEADER = struct.Struct("<4sB3xQ")  # signature, version, size of the collection
_OBJECT = struct.Struct("<2H4xQ")  # index, references, size (HDF5 File Format, III.E)


class GuardedFile(io.RawIOBase):
    """A read-only view of a file in which malformed heap collections lose their signature.

    libhdf5 1.14.6 walks the objects of a collection by their sizes and never returns from
    an unused object of size 0 (`H5HG__cache_heap_deserialize` in H5HGcache.c). Without the
    signature it reports the damage. This class can go when libhdf5 checks the sizes itself.
    """

    def __init__(self, file: io.BufferedIOBase) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        n_read = self._file.readinto(view)
        if view[:4] == SIGNATURE and not is_sound_heap(view[:n_read]):
            view[:4] = bytes(4)
        return n_read


def is_sound_heap(data: memoryview) -> bool:
    """Tell whether the objects of a global heap collection fill it from start to end.

    libhdf5 reads a long collection twice, its first part only for the size in the header:
    such a part is sound.
    """
    if len(data) < _HEADER.size:
        return False
    size: int = _HEADER.unpack_from(data)[2]
    if size > len(data):
        return True
    at = _HEADER.size
    while at + _OBJECT.size <= size:
        index, _, n_bytes = _OBJECT.unpack_from(data, at)
        step = _OBJECT.size + -(-n_bytes // 8) * 8 if index else n_bytes  # 8: alignment
        if step < _OBJECT.size or at + step > size:
            return False
        at += step
    return True
