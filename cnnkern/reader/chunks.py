"""Decode the chunks of a filtered HDF5 array, each with a bound on its size.

libhdf5 lets a compressed chunk grow without limit, whatever size the array declares.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelFileError

DEFLATE, SHUFFLE, FLETCHER32 = 1, 2, 3  # H5Z_FILTER_* in H5Zpublic.h
CHECKSUM_BYTES = 4
MAX_CHUNKS = 100_000  # h5py makes chunks of 8 KB at least
MAX_CHUNK_BYTES = 64 << 20  # h5py makes chunks of 1 MB at most


def read_chunks(dataset: Any, filters: Sequence[int]) -> NDArray[Any]:
    """Return the elements of a chunked h5py dataset.

    Parameters
    ----------
    dataset : h5py.Dataset
        Its type is a float of fixed size.
    filters : sequence of int
        The filters in the order in which they were applied.

    Raises
    ------
    ModelFileError
        A chunk is missing, or does not decode to its size.
    """
    shape, chunk = dataset.shape, dataset.chunks
    grid = [range(0, n, step) for n, step in zip(shape, chunk, strict=True)]
    nbytes = math.prod(chunk) * dataset.dtype.itemsize
    if math.prod(map(len, grid)) > MAX_CHUNKS or nbytes > MAX_CHUNK_BYTES:
        raise ModelFileError(f"chunks of shape {chunk} for an array of shape {shape}")
    result = np.empty(shape, dataset.dtype)
    for corner in itertools.product(*grid):
        if dataset.id.get_chunk_info_by_coord(corner).filter_mask:
            raise ModelFileError("a chunk skips its filters")
        _, raw = dataset.id.read_direct_chunk(corner)
        data = _decode(raw, filters, nbytes, dataset.dtype.itemsize)
        block = np.frombuffer(data, dataset.dtype).reshape(chunk)
        lengths = [min(step, n - c) for c, step, n in zip(corner, chunk, shape, strict=True)]
        target = tuple(slice(c, c + n) for c, n in zip(corner, lengths, strict=True))
        result[target] = block[tuple(map(slice, lengths))]
    return result


def _decode(data: bytes, filters: Sequence[int], nbytes: int, itemsize: int) -> bytes:
    limit = nbytes + CHECKSUM_BYTES * len(filters)
    for code in reversed(filters):
        if code == FLETCHER32:
            data = data[:-CHECKSUM_BYTES]
        elif code == DEFLATE:
            data = _inflate(data, limit)
        else:
            data = np.frombuffer(data, np.uint8).reshape(itemsize, -1).T.tobytes()
    if len(data) != nbytes:
        raise ModelFileError("a chunk does not decode to its size")
    return data


def _inflate(data: bytes, limit: int) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, limit)
    except zlib.error as error:
        raise ModelFileError(f"a chunk does not decompress: {error}") from error
