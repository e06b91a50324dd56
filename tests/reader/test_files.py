"""Containers: what a file may look like before its configuration is understood."""

import contextlib
import io
import json
import os
import subprocess
import sys
import zipfile

import h5py
import numpy as np
import pytest

from cnnkern.errors import ModelFileError
from cnnkern.reader import load
from cnnkern.reader.files import open_model

KERNEL = np.arange(6, dtype=np.float32).reshape(3, 2)
BIAS = np.float32([0.5, -0.5])
CONFIG = {
    "class_name": "Sequential",
    "config": {
        "name": "tiny",
        "layers": [
            {
                "class_name": "Dense",
                "config": {
                    "name": "dense",
                    "trainable": True,
                    "batch_input_shape": [None, 3],
                    "units": 2,
                    "activation": "linear",
                    "use_bias": True,
                },
            }
        ],
    },
}


@contextlib.contextmanager
def legacy_file(path):
    """Write a legacy file of one Dense layer; the body adds the weights to its group."""
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(CONFIG)
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [b"dense"]
        layer = group.create_group("dense")
        layer.attrs["weight_names"] = [b"dense/kernel:0", b"dense/bias:0"]
        yield layer.create_group("dense")


def write_legacy(path):
    with legacy_file(path) as group:
        group["kernel:0"], group["bias:0"] = KERNEL, BIAS


@contextlib.contextmanager
def keras_file(path):
    """Write a `.keras` file of one Dense layer; the body fills its group of variables."""
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        yield file.create_group("layers/dense/vars")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", json.dumps(CONFIG))
        archive.writestr("model.weights.h5", memory.getvalue())


def write_keras(path):
    with keras_file(path) as group:
        group.attrs["name"] = "dense"
        group["0"], group["1"] = KERNEL, BIAS


@pytest.fixture(params=["keras", "legacy"])
def container(request, tmp_path):
    """A path, a writer for its group of weights, and the names of the two arrays."""
    path = tmp_path / "model"
    if request.param == "keras":
        return path, keras_file, ("0", "1")
    return path, legacy_file, ("kernel:0", "bias:0")


def dense(path):
    (op,) = [node.op for node in load(path).nodes if node.name == "dense"]
    return op


@pytest.mark.parametrize("write", [write_legacy, write_keras])
@pytest.mark.parametrize("name", ["model.keras", "model.h5", "model.hdf5", "model", "a b.bin"])
def test_content_decides_the_format(tmp_path, write, name):
    write(tmp_path / name)
    op = dense(tmp_path / name)
    np.testing.assert_array_equal(op.weight, KERNEL)
    np.testing.assert_array_equal(op.bias, BIAS)
    assert dense(str(tmp_path / name)).weight.dtype == np.float32


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f4", ">f8"])
def test_float_types_become_float32(container, dtype):
    path, write, (kernel, bias) = container
    with write(path) as group:
        group[kernel], group[bias] = KERNEL.astype(dtype), BIAS
    np.testing.assert_array_equal(dense(path).weight, KERNEL)


def test_large_doubles_become_infinite(container):
    path, write, (kernel, bias) = container
    with write(path) as group:
        group[kernel], group[bias] = np.full((3, 2), 1e300), BIAS
    assert np.isinf(dense(path).weight).all()


@pytest.mark.parametrize("dtype", ["i4", "u2", "?", "c8", "S4"])
def test_refuses_other_types(container, dtype):
    path, write, (kernel, bias) = container
    with write(path) as group:
        group[kernel], group[bias] = np.zeros((3, 2), dtype), BIAS
    with pytest.raises(ModelFileError, match="must be float"):
        load(path)


@pytest.mark.parametrize("filters", [{"compression": "gzip"}, {"shuffle": True}], ids=str)
def test_reads_filtered_arrays(container, filters):
    path, write, (kernel, bias) = container
    with write(path) as group:
        group.create_dataset(kernel, data=KERNEL, chunks=(2, 2), **filters)
        group[bias] = BIAS
    np.testing.assert_array_equal(dense(path).weight, KERNEL)


def test_refuses_other_filters(container):
    path, write, (kernel, bias) = container
    with write(path) as group:
        group.create_dataset(kernel, data=KERNEL, chunks=(2, 2), compression="lzf")
        group[bias] = BIAS
    with pytest.raises(ModelFileError, match="filter"):
        load(path)


def test_compares_the_shape_before_reading(container):
    path, write, (kernel, bias) = container
    with write(path) as group:
        group[kernel], group[bias] = KERNEL.T, BIAS
    with pytest.raises(ModelFileError, match=r"Dense 'dense'.*'kernel'.*\(2, 3\).*\(3, 2\)"):
        load(path)


@pytest.mark.parametrize("shape", [(1 << 40,), (3, 1 << 30), (1 << 31, 1 << 31)], ids=str)
@pytest.mark.parametrize("filters", [{}, {"compression": "gzip"}], ids=["plain", "gzip"])
def test_refuses_declared_bytes_that_are_not_stored(container, shape, filters):
    path, write, (kernel, bias) = container
    with write(path) as group:
        group.create_dataset(kernel, shape, "f4", chunks=(1,) * len(shape), **filters)
        group[bias] = BIAS
    with pytest.raises(ModelFileError, match="not stored"):
        load(path)


def test_refuses_external_storage(container, tmp_path):
    canary = tmp_path / "canary"
    canary.write_bytes(b"secret".ljust(24, b"!"))
    path, write, (kernel, bias) = container
    with write(path) as group:
        group.create_dataset(kernel, (3, 2), "f4", external=[(str(canary), 0, 24)])
        group[bias] = BIAS
    with pytest.raises(ModelFileError, match="not stored in the file itself"):
        load(path)


def test_refuses_virtual_arrays(container, tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["x"] = KERNEL
    layout = h5py.VirtualLayout((3, 2), "f4")
    layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "x", (3, 2))
    path, write, (kernel, bias) = container
    with write(path) as group:
        group.create_virtual_dataset(kernel, layout)
        group[bias] = BIAS
    with pytest.raises(ModelFileError, match="not stored in the file itself"):
        load(path)


@pytest.mark.parametrize("kind", ["SoftLink", "ExternalLink"])
def test_refuses_links_to_arrays(container, tmp_path, kind):
    path, write, (kernel, bias) = container
    write_legacy(tmp_path / "other.h5")
    target = "/model_weights/dense/dense/kernel:0"
    with write(path) as group:
        group[bias] = BIAS
        other = str(tmp_path / "other.h5")
        group["real"] = KERNEL
        group[kernel] = (
            h5py.SoftLink(f"{group.name}/real")
            if kind == "SoftLink"
            else h5py.ExternalLink(other, target)
        )
        if container[1] is keras_file:
            del group["real"]
    with pytest.raises(ModelFileError, match=f"is a {kind}"):
        load(path)


@pytest.mark.parametrize("step", ["model_weights", "model_weights/dense"])
@pytest.mark.parametrize("kind", ["SoftLink", "ExternalLink"])
def test_refuses_links_in_the_middle_of_a_path(tmp_path, step, kind):
    path = tmp_path / "model.h5"
    write_legacy(path)
    with h5py.File(path, "r+") as file:
        file.move(step, "elsewhere")
        other = str(path)
        file[step] = (
            h5py.SoftLink("/elsewhere")
            if kind == "SoftLink"
            else h5py.ExternalLink(other, "/elsewhere")
        )
    with pytest.raises(ModelFileError, match=f"is a {kind}"):
        load(path)


def test_cycles_of_hard_links_do_no_harm(tmp_path):
    path = tmp_path / "model.h5"
    write_legacy(path)
    with h5py.File(path, "r+") as file:
        file["model_weights/dense/loop"] = file["model_weights"]
    np.testing.assert_array_equal(dense(path).weight, KERNEL)


def test_refuses_a_group_in_the_place_of_an_array(container):
    path, write, (kernel, bias) = container
    with write(path) as group:
        group.create_group(kernel)
        group[bias] = BIAS
    with pytest.raises(ModelFileError, match="missing"):
        load(path)


@pytest.mark.parametrize("name", ["", "/", "dense//kernel:0", "./dense/kernel:0", "../x"])
def test_refuses_paths_that_are_not_names(tmp_path, name):
    path = tmp_path / "model.h5"
    write_legacy(path)
    with h5py.File(path, "r+") as file:
        file["model_weights/dense"].attrs["weight_names"] = [name.encode(), b"dense/bias:0"]
    with pytest.raises(ModelFileError, match=r"valid path|missing"):
        load(path)


@pytest.mark.parametrize(
    "value",
    [3, np.zeros(4), np.array([b"a"]), h5py.Empty("f4"), "{", "[]", b"\xff{}"],
    ids=repr,
)
def test_refuses_other_model_configs(tmp_path, value):
    path = tmp_path / "model.h5"
    write_legacy(path)
    with h5py.File(path, "r+") as file:
        file.attrs["model_config"] = value
    with pytest.raises(ModelFileError, match="model_config"):
        load(path)


@pytest.mark.parametrize(
    "value", [3, "dense", np.zeros(4), np.full((2, 2), b"dense")], ids=repr
)
def test_refuses_other_layer_names(tmp_path, value):
    path = tmp_path / "model.h5"
    write_legacy(path)
    with h5py.File(path, "r+") as file:
        file["model_weights"].attrs["layer_names"] = value
    with pytest.raises(ModelFileError, match="layer_names"):
        load(path)


def test_refuses_a_list_of_too_many_texts(tmp_path):
    path = tmp_path / "model.h5"
    write_legacy(path)
    with h5py.File(path, "r+", libver="latest") as file:
        attributes = file["model_weights"].attrs
        del attributes["layer_names"]
        attributes["layer_names"] = np.full(30_000, b"x")
    with pytest.raises(ModelFileError, match="too large"):
        load(path)


def test_long_lists_of_names_come_in_pieces(tmp_path):
    path = tmp_path / "model.h5"
    write_legacy(path)
    with h5py.File(path, "r+") as file:
        attributes = file["model_weights/dense"].attrs
        del attributes["weight_names"]
        attributes["weight_names0"] = [b"dense/kernel:0"]
        attributes["weight_names1"] = [b"dense/bias:0"]
    np.testing.assert_array_equal(dense(path).bias, BIAS)


def test_weights_without_a_model_are_refused(tmp_path):
    with h5py.File(tmp_path / "model.weights.h5", "w") as file:
        file["layers/dense/vars/0"] = KERNEL
    with pytest.raises(ModelFileError, match="no model_config"):
        load(tmp_path / "model.weights.h5")


def make_fifo(path):
    os.mkfifo(path)


def make_loop(path):
    path.symlink_to(path)


@pytest.mark.parametrize(
    "make",
    [
        lambda path: None,
        lambda path: path.mkdir(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"PK\x03\x04"),
        lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n"),
        lambda path: path.write_text("# not a model"),
        make_fifo,
        make_loop,
    ],
    ids=["missing", "directory", "empty", "zip magic", "HDF5 magic", "text", "FIFO", "loop"],
)
def test_errors_name_the_file(tmp_path, make):
    path = tmp_path / "model.keras"
    make(path)
    with pytest.raises(ModelFileError, match=r"model\.keras: "):
        load(path)


def test_a_path_with_a_zero_byte_is_refused():
    with pytest.raises(ModelFileError, match="cannot be opened"):
        load("model\0.keras")


def test_a_symlink_to_a_model_is_followed(tmp_path):
    write_keras(tmp_path / "model.keras")
    (tmp_path / "link").symlink_to(tmp_path / "model.keras")
    np.testing.assert_array_equal(dense(tmp_path / "link").bias, BIAS)


@pytest.mark.parametrize("write", [write_legacy, write_keras])
def test_truncations_are_refused(tmp_path, write):
    whole, path = tmp_path / "whole", tmp_path / "part"
    write(whole)
    data = whole.read_bytes()
    for part in range(1, 64):
        path.write_bytes(data[: len(data) * part // 64])
        with pytest.raises(ModelFileError):
            load(path)


def test_a_failed_load_leaves_nothing_open(tmp_path):
    path = tmp_path / "model.h5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(500))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(ModelFileError):
            load(path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_errors_in_the_body_name_the_file(tmp_path):
    write_keras(tmp_path / "model.keras")
    with (
        pytest.raises(ModelFileError, match=r"model\.keras: odd"),
        open_model(tmp_path / "model.keras"),
    ):
        raise ModelFileError("odd")


AUDIT = """
import sys
import cnnkern.reader
loaded = set(sys.modules)
assert not loaded & {"h5py", "keras", "tensorflow", "numba"}, loaded
import h5py
opened, path = [], sys.argv[1]
def hook(event, args):
    if event == "open" and str(args[0]) != path and "w" in str(args[1] or ""):
        opened.append(args)
    if event in ("exec", "compile", "socket.connect", "subprocess.Popen", "os.system"):
        opened.append(event)
cnnkern.reader.load(path)
sys.addaudithook(hook)
cnnkern.reader.load(path)
assert not opened, opened
assert not set(sys.modules) & {"keras", "tensorflow", "numba"}
"""


@pytest.mark.parametrize("write", [write_legacy, write_keras])
def test_loading_imports_and_writes_nothing(tmp_path, write):
    write(tmp_path / "model")
    command = [sys.executable, "-c", AUDIT, str(tmp_path / "model")]
    subprocess.run(command, check=True, timeout=60)
