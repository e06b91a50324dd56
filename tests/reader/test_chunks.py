import zlib

import h5py
import numpy as np
import pytest

from cnnkern.errors import ModelFileError
from cnnkern.reader.chunks import DEFLATE, FLETCHER32, SHUFFLE, read_chunks


@pytest.fixture
def file():
    with h5py.File("memory.h5", "w", driver="core", backing_store=False) as file:
        yield file


def filters_of(dataset):
    options = dataset.id.get_create_plist()
    return tuple(options.get_filter(i)[0] for i in range(options.get_nfilters()))


@pytest.mark.parametrize("shape", [(4,), (5,), (7, 3), (2, 3, 5)], ids=str)
@pytest.mark.parametrize(
    "filters",
    [
        {"compression": "gzip"},
        {"compression": "gzip", "shuffle": True},
        {"compression": "gzip", "shuffle": True, "fletcher32": True},
        {"fletcher32": True},
        {"shuffle": True},
    ],
    ids=lambda filters: "+".join(filters),
)
@pytest.mark.parametrize("dtype", ["<f4", ">f8"])
def test_equals_h5py(file, shape, filters, dtype):
    x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    dataset = file.create_dataset("x", data=x, chunks=(2,) * len(shape), **filters)
    assert set(filters_of(dataset)) <= {DEFLATE, SHUFFLE, FLETCHER32}
    np.testing.assert_array_equal(read_chunks(dataset, filters_of(dataset)), x)


@pytest.mark.parametrize(
    "chunk",
    [zlib.compress(bytes(1 << 24)), zlib.compress(bytes(8)), b"garbage"],
    ids=["bomb", "short", "garbage"],
)
def test_refuses_chunks_of_another_size(file, chunk):
    dataset = file.create_dataset("x", (4,), "f4", chunks=(4,), compression="gzip")
    dataset.id.write_direct_chunk((0,), chunk)
    with pytest.raises(ModelFileError, match="a chunk does not"):
        read_chunks(dataset, filters_of(dataset))


def test_refuses_a_chunk_that_skips_filters(file):
    dataset = file.create_dataset("x", (4,), "f4", chunks=(4,), compression="gzip")
    dataset.id.write_direct_chunk((0,), bytes(16), filter_mask=1)
    with pytest.raises(ModelFileError, match="skips"):
        read_chunks(dataset, filters_of(dataset))


def test_refuses_a_million_chunks(file):
    dataset = file.create_dataset("x", (1_000_000,), "f4", chunks=(1,), compression="gzip")
    with pytest.raises(ModelFileError, match="chunks"):
        read_chunks(dataset, filters_of(dataset))
