"""Large arrays stay in the file until they are needed, and never come from a changed one."""

import io
import json
import os
import pickle
import struct
import zipfile

import h5py
import numpy as np
import pytest

import cnnkern
from cnnkern.errors import ModelFileError
from cnnkern.lazy import LazyArray
from cnnkern.reader import load
from cnnkern.reader.files import DEFERRED_BYTES
from cnnkern.reader.stored import CAN_READ_LATER
from support import run_python

pytestmark = pytest.mark.skipif(not CAN_READ_LATER, reason="arrays are read at once here")

K, UNITS = 300, 256
RNG = np.random.default_rng(0)
KERNEL = RNG.standard_normal((K, UNITS), np.float32)
BIAS = RNG.standard_normal(UNITS, np.float32)
X = RNG.standard_normal((2, K), np.float32)
LAYERS = [
    {"class_name": "Dense", "config": {"name": "dense", "units": UNITS, "activation": "linear",
                                       "batch_input_shape": [None, K], "use_bias": True}},
    {"class_name": "BatchNormalization", "config": {"name": "norm", "axis": -1}},
]  # fmt: skip
CONFIG = {"class_name": "Sequential", "config": {"name": "large", "layers": LAYERS}}
STATISTICS = [RNG.uniform(0.5, 1.5, UNITS).astype(np.float32) for _ in range(4)]


def write_legacy(path, kernel=KERNEL, **options):
    with h5py.File(path, "w", **options) as file:
        file.attrs["model_config"] = json.dumps(CONFIG)
        root = file.create_group("model_weights")
        root.attrs["layer_names"] = [b"dense", b"norm"]
        for name, arrays in (("dense", [kernel, BIAS]), ("norm", STATISTICS)):
            group = root.create_group(name)
            group.attrs["weight_names"] = [str(i).encode() for i in range(len(arrays))]
            for i, array in enumerate(arrays):
                group[str(i)] = array


def write_keras(path, kernel=KERNEL, compression=zipfile.ZIP_STORED, **options):
    memory = io.BytesIO()
    with h5py.File(memory, "w", **options) as file:
        for i, array in enumerate([kernel, BIAS]):
            file[f"layers/dense/vars/{i}"] = array
        for i, array in enumerate(STATISTICS):
            file[f"layers/batch_normalization/vars/{i}"] = array
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", json.dumps(CONFIG))
        archive.writestr("model.weights.h5", memory.getvalue())


WRITERS = pytest.mark.parametrize("write", [write_legacy, write_keras])


def weight(path):
    return load(path)["dense"].op.weight


def expected(kernel=KERNEL):
    gamma, beta, mean, variance = STATISTICS
    return (X @ kernel + BIAS - mean) / np.sqrt(variance + 1e-3) * gamma + beta


def overwrite(path, data):
    """Change a file in place, in a way that its time stamps show."""
    with open(path, "r+b") as file:
        file.write(data)
        file.truncate(len(data))
    state = os.stat(path)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 10**9))


@WRITERS
def test_a_large_array_stays_in_the_file(tmp_path, write):
    write(tmp_path / "model")
    lazy = weight(tmp_path / "model")
    assert isinstance(lazy, LazyArray) and lazy.shape == (K, UNITS)
    np.testing.assert_array_equal(lazy, KERNEL)
    np.testing.assert_array_equal(lazy[7:9], KERNEL[7:9])
    np.testing.assert_array_equal(lazy[K - 1 : K + 5], KERNEL[K - 1 :])
    np.testing.assert_array_equal(
        lazy.reshape(-1, 2 * UNITS)[1:3], KERNEL.reshape(K // 2, -1)[1:3]
    )


def test_the_array_is_found_behind_a_user_block(tmp_path):
    write_keras(tmp_path / "model", userblock_size=1024)
    lazy = weight(tmp_path / "model")
    assert isinstance(lazy, LazyArray)
    np.testing.assert_array_equal(lazy, KERNEL)


@WRITERS
@pytest.mark.parametrize("dtype", ["<f2", ">f4", "<f8"])
def test_other_types_are_converted_at_once(tmp_path, write, dtype):
    write(tmp_path / "model", KERNEL.astype(dtype))
    values = weight(tmp_path / "model")
    assert type(values) is np.ndarray
    np.testing.assert_array_equal(values, KERNEL.astype(dtype).astype(np.float32))


def test_a_float_of_four_bytes_in_another_format_is_converted(tmp_path):
    write_legacy(tmp_path / "model")
    odd = h5py.h5t.IEEE_F32LE.copy()
    odd.set_ebias(120)
    with h5py.File(tmp_path / "model", "r+") as file:
        del file["model_weights/dense/0"]
        space = h5py.h5s.create_simple(KERNEL.shape)
        dataset = h5py.h5d.create(file["model_weights/dense"].id, b"0", odd, space)
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, KERNEL)
    values = weight(tmp_path / "model")
    assert type(values) is np.ndarray
    np.testing.assert_allclose(values, KERNEL)


def test_a_compressed_archive_is_read_at_once(tmp_path):
    write_keras(tmp_path / "model", compression=zipfile.ZIP_DEFLATED)
    np.testing.assert_array_equal(weight(tmp_path / "model"), KERNEL)
    assert type(weight(tmp_path / "model")) is np.ndarray


@WRITERS
def test_small_models_keep_no_file_open(tmp_path, write, monkeypatch):
    write(tmp_path / "model")
    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr("cnnkern.reader.files.DEFERRED_BYTES", 10 * DEFERRED_BYTES)
    small = load(tmp_path / "model")
    assert len(os.listdir("/proc/self/fd")) == before
    monkeypatch.undo()
    large = load(tmp_path / "model")
    assert len(os.listdir("/proc/self/fd")) == before + 1
    del small, large
    assert len(os.listdir("/proc/self/fd")) == before


@WRITERS
def test_predicts_with_folded_weights(tmp_path, write):
    write(tmp_path / "model")
    y = cnnkern.load(tmp_path / "model")(X)
    np.testing.assert_allclose(y, expected(), rtol=1e-4, atol=1e-4)


@WRITERS
@pytest.mark.parametrize("part", [1.0, 0.4], ids=["changed", "shorter"])
def test_a_change_in_place_is_an_error(tmp_path, write, part):
    path = tmp_path / "model.keras"
    write(path)
    model, ready = cnnkern.load(path), cnnkern.load(path)
    y = ready(X)
    write(tmp_path / "other", -KERNEL)
    data = (tmp_path / "other").read_bytes()
    overwrite(path, data[: int(part * len(data))])
    with pytest.raises(
        ModelFileError, match=r"model\.keras: the file (was changed|has become)"
    ):
        model(X)
    with pytest.raises(ModelFileError, match="the file"):
        pickle.dumps(model)
    np.testing.assert_array_equal(ready(X), y)
    np.testing.assert_array_equal(ready(X[:1]), y[:1])  # packed once for all batch sizes


@WRITERS
def test_a_new_file_in_its_place_does_no_harm(tmp_path, write):
    write(tmp_path / "model")
    model = cnnkern.load(tmp_path / "model")
    write(tmp_path / "new", -KERNEL)
    os.replace(tmp_path / "new", tmp_path / "model")
    np.testing.assert_allclose(model(X), expected(), rtol=1e-4, atol=1e-4)
    os.unlink(tmp_path / "model")
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model))(X), model(X))


@WRITERS
def test_an_array_that_ends_behind_the_file_is_refused(tmp_path, write):
    path = tmp_path / "model"
    write(path)
    data, start = path.read_bytes(), path.read_bytes().index(KERNEL.tobytes())
    if write is write_keras:
        with zipfile.ZipFile(path) as archive:
            inner = archive.read("model.weights.h5")
        start -= data.index(inner)
    address = struct.pack("<Q", start)
    moved = struct.pack("<Q", start + KERNEL.nbytes)
    if write is write_legacy:
        path.write_bytes(data.replace(address, moved))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("metadata.json", "{}")
            archive.writestr("config.json", json.dumps(CONFIG))
            archive.writestr("model.weights.h5", inner.replace(address, moved))
    with pytest.raises(ModelFileError, match=r"behind the file|damaged"):
        load(path)


MEMORY = """
import numpy as np
import cnnkern

def peak_mib():
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024

x = np.ones((1, SIDE), np.float32)
cnnkern.load(SMALL)(x[:, :8])  # imports everything and links the kernels
before = peak_mib()
assert np.isfinite(cnnkern.load(LARGE)(x)).all()
print((peak_mib() - before) / (N_LAYERS * SIDE * SIDE / 2**18))
"""


def write_stack(path, side, n_layers):
    """Write Dense layers of side x side, each followed by a BatchNormalization."""
    layers = []
    memory = path.with_suffix(".weights")
    with h5py.File(memory, "w") as file:
        for n in range(n_layers):
            suffix = f"_{n}" if n else ""
            first = {"batch_input_shape": [None, side]} if n == 0 else {}
            dense = {"name": f"d{n}", "units": side, "activation": "linear",
                     "use_bias": False}  # fmt: skip
            layers.append({"class_name": "Dense", "config": {**dense, **first}})
            layers.append({"class_name": "BatchNormalization",
                           "config": {"name": f"n{n}", "axis": -1}})  # fmt: skip
            file[f"layers/dense{suffix}/vars/0"] = np.full((side, side), 1 / side, np.float32)
            for i in range(4):
                key = f"layers/batch_normalization{suffix}/vars/{i}"
                file[key] = np.ones(side, np.float32)
    config = {"class_name": "Sequential", "config": {"name": "stack", "layers": layers}}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", json.dumps(config))
        archive.write(memory, "model.weights.h5")


def test_one_copy_of_the_weights_is_in_memory(tmp_path):
    """50 MB of weights; the growth of the peak is given in multiples of them."""
    side, n_layers = 1280, 8
    write_stack(tmp_path / "small.keras", 8, 1)
    write_stack(tmp_path / "large.keras", side, n_layers)
    values = side, n_layers, *(str(tmp_path / f"{name}.keras") for name in ("small", "large"))
    growth = float(run_python(f"SIDE, N_LAYERS, SMALL, LARGE = {values}\n{MEMORY}"))
    assert 0.9 < growth < 1.4, growth


@WRITERS
def test_without_a_second_descriptor_all_is_read_at_once(tmp_path, write, monkeypatch):
    def refuse(descriptor):
        raise OSError(24, "Too many open files")

    write(tmp_path / "model")
    monkeypatch.setattr(os, "dup", refuse)
    assert type(weight(tmp_path / "model")) is np.ndarray
