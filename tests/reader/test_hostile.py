"""Hostile files end in a typed error, or in a model: nothing else happens."""

import copy
import io
import json
import random
import subprocess
import sys
import zipfile

import h5py
import numpy as np
import pytest

from cnnkern.errors import ModelFileError, ResourceLimitError, UnsupportedLayerError
from cnnkern.reader import check, load
from support import child_environment

CLEAN = (ModelFileError, UnsupportedLayerError, ResourceLimitError)
MAX_MESSAGE = 800


def layer(class_name, name, source, **config):
    return {
        "module": "keras.layers",
        "class_name": class_name,
        "config": {"name": name, "trainable": True, "dtype": "float32", **config},
        "registered_name": None,
        "name": name,
        "inbound_nodes": [{"args": [tensor(source)], "kwargs": {}}] if source else [],
    }


def tensor(name):
    config = {"shape": [None, 4, 4, 1], "keras_history": [name, 0, 0]}
    return {"class_name": "__keras_tensor__", "config": config}


def functional(name, *layers):
    first, last = layers[0]["name"], layers[-1]["name"]
    config = {"name": name, "trainable": True, "layers": list(layers),
              "input_layers": [[first, 0, 0]], "output_layers": [[last, 0, 0]]}  # fmt: skip
    return {"module": "keras.src.models.functional", "class_name": "Functional",
            "config": config, "name": name, "inbound_nodes": []}  # fmt: skip


def image(name):
    config = layer("InputLayer", name, None, batch_shape=[None, 4, 4, 1])
    del config["config"]["trainable"]
    return config


def good_config():
    conv = layer("Conv2D", "conv", "i", filters=2, kernel_size=[3, 3], strides=[1, 1],
                 padding="same", data_format="channels_last", dilation_rate=[1, 1], groups=1,
                 activation="relu", use_bias=True)  # fmt: skip
    norm = layer("BatchNormalization", "norm", "conv", axis=-1, epsilon=0.001, momentum=0.9,
                 center=True, scale=True)  # fmt: skip
    inner = functional("inner", image("i"), conv, norm)
    inner["inbound_nodes"] = [{"args": [tensor("x")], "kwargs": {"mask": None}}]
    dense = layer("Dense", "dense", "flat", units=2, activation="softmax", use_bias=True)
    flat = layer("Flatten", "flat", "inner", data_format="channels_last")
    return functional("net", image("x"), inner, flat, dense)


def weights_file():
    memory = io.BytesIO()
    shapes = {"conv2d": [(3, 3, 1, 2), (2,)], "batch_normalization": [(2,)] * 4}
    with h5py.File(memory, "w") as file:
        for name, arrays in shapes.items():
            variables = file.create_group(f"layers/functional/layers/{name}/vars")
            variables.attrs["name"] = name.replace("2d", "").replace(
                "batch_normalization", "norm"
            )
            for index, shape in enumerate(arrays):
                variables[str(index)] = np.ones(shape, np.float32)
        file["layers/dense/vars/0"] = np.ones((32, 2), np.float32)
        file["layers/dense/vars/1"] = np.ones(2, np.float32)
    return memory.getvalue()


def legacy_file(path, config):
    kinds = (
        "conv/kernel",
        "conv/bias",
        "norm/gamma",
        "norm/beta",
        "norm/mean",
        "norm/variance",
    )
    shapes = [(3, 3, 1, 2), *[(2,)] * 5]
    rows = {"inner": list(zip(kinds, shapes, strict=True)),
            "dense": [("kernel", (32, 2)), ("bias", (2,))]}  # fmt: skip
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(config)
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = list(rows)
        for name, row in rows.items():
            folder = group.create_group(name)
            folder.attrs["weight_names"] = [key for key, _ in row]
            for key, shape in row:
                folder[key] = np.ones(shape, np.float32)


def keras_file(path, config, weights=None):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", weights_file() if weights is None else weights)


WRITERS = [keras_file, legacy_file]


@pytest.mark.parametrize("write", WRITERS)
def test_the_seed_is_good(tmp_path, write):
    write(tmp_path / "model", good_config())
    assert len(load(tmp_path / "model").nodes) == 7
    assert check(tmp_path / "model") == []


def places(value, path=()):
    """Yield the path of every value inside a configuration."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, child in items:
        yield (*path, key)
        if isinstance(child, (dict, list)):
            yield from places(child, (*path, key))


def put(config, path, value):
    config = copy.deepcopy(config)
    parent = config
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = value
    return config


VALUES = [
    None, True, 0, -1, 2, 10**6, 2**31, 10**30, 1.5, "", "same", "x" * 5000, "\ud800", [], [0],
    [1, 2, 3], [None], {}, {"class_name": "Conv2D", "config": {}}, [[["x", 0, 0]]],
    "__import__('os').system('true')",
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:20])
def test_every_third_key_with_every_value(tmp_path, value):
    seed, path = good_config(), tmp_path / "model"
    weights = weights_file()
    for place in list(places(seed))[VALUES.index(value) % 3 :: 3]:
        keras_file(path, put(seed, place, value), weights)
        try:
            load(path)
            expected = []
        except CLEAN as error:
            expected = [str(error)]
            assert len(str(error)) < MAX_MESSAGE, place
            str(error).encode()
        try:
            found = [problem.message for problem in check(path)]
        except CLEAN as error:
            found = [str(error)]
        assert bool(found) == bool(expected), place


CODE = [
    {"class_name": "Lambda", "module": "keras.layers", "config": {
        "function": {"class_name": "__lambda__", "config": {"code": "4wAAAAA="}}}},
    {"class_name": "system", "module": "os", "config": {"command": "touch CANARY"}},
    {"class_name": "Popen", "module": "subprocess", "config": {"args": ["touch", "CANARY"]}},
    {"class_name": "function", "module": "builtins", "config": "exec"},
    {"class_name": "get_file", "module": "keras.utils", "config": {"origin": "file:///CANARY"}},
    {"class_name": "TFSMLayer", "module": "keras.layers", "config": {"filepath": "CANARY"}},
    {"class_name": "TorchModuleWrapper", "module": "keras.layers", "config": {"module": ""}},
    {"class_name": "StringLookup", "module": "keras.layers", "config": {"vocabulary": "x"}},
    {"class_name": "Layer", "module": "keras.layers", "config": {}},
    {"class_name": "Conv2D", "module": "keras.layers", "registered_name": "mine>Conv2D",
     "config": {"filters": 1}},
    {"class_name": "Dense", "module": "keras.layers", "config": {
        "units": 2, "activation": {"module": "builtins", "class_name": "function",
                                   "config": "eval", "registered_name": "function"}}},
    {"class_name": "__lambda__", "config": {"value": ["4wAAAAA=", None, None]}},
]  # fmt: skip


def named(entry, name, source):
    config = entry["config"]
    config = {"name": name, "trainable": True, **config} if isinstance(config, dict) else config
    nodes = [{"args": [tensor(source)], "kwargs": {}}]
    return {**entry, "config": config, "name": name, "inbound_nodes": nodes}


def attack(entry, position):
    """Put a layer in front, inside a nested model, or behind, applied twice."""
    config = good_config()
    layers = config["config"]["layers"]
    if position == "nested":
        inner = layers[1]["config"]
        inner["layers"].append(named(entry, "attack", "norm"))
        inner["output_layers"] = [["attack", 0, 0]]
    elif position == "first":
        layers.insert(1, named(entry, "attack", "x"))
        layers[2]["inbound_nodes"][0]["args"] = [tensor("attack")]
    else:
        shared = named(entry, "attack", "dense")
        shared["inbound_nodes"] *= 2
        layers.append(shared)
        config["config"]["output_layers"] = [["attack", 0, 0], ["attack", 1, 0]]
    return config


AUDIT = """
import json, sys
import cnnkern.reader, h5py
from cnnkern.errors import ModelFileError, UnsupportedLayerError
good, *attacks = sys.argv[1:]
cnnkern.reader.load(good)
events = []
WATCHED = ("exec", "compile", "import", "os.", "subprocess", "socket", "shutil", "ctypes")
def hook(event, args):
    is_other_file = event == "open" and type(args[0]) is not int and args[0] not in sys.argv
    if event.startswith(WATCHED) or is_other_file:
        events.append((event, str(args)[:200]))
sys.addaudithook(hook)
for path in attacks:
    try:
        cnnkern.reader.load(path)
        raise SystemExit(f"{path} was accepted")
    except (ModelFileError, UnsupportedLayerError):
        pass
    assert not events, (path, events)
"""


@pytest.mark.parametrize("write", WRITERS)
def test_code_in_configurations_is_refused_and_never_run(tmp_path, write):
    write(tmp_path / "good", good_config())
    paths = [tmp_path / "good"]
    for number, entry in enumerate(CODE):
        for position in ("first", "nested", "shared"):
            paths.append(tmp_path / f"attack_{number}_{position}")
            write(paths[-1], attack(entry, position))
    command = [sys.executable, "-c", AUDIT, *map(str, paths)]
    result = subprocess.run(
        command,
        env=child_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    assert sorted(tmp_path.iterdir()) == sorted(paths)


MUTATE = """
import random, resource, sys
from cnnkern.errors import ModelFileError, ResourceLimitError, UnsupportedLayerError
from cnnkern.reader import load
seed, path, count = sys.argv[1:]
data = open(seed, "rb").read()
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
for number in range(int(count)):
    rng = random.Random(number)
    mutant = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8, 64])):
        mutant[rng.randrange(len(mutant))] = rng.choice([0, 1, 255, rng.randrange(256)])
    with open(path, "wb") as file:
        file.write(mutant)
    try:
        load(path)
    except (ModelFileError, ResourceLimitError, UnsupportedLayerError) as error:
        str(error).encode()
"""


def test_mutations_of_a_legacy_file(tmp_path):
    legacy_file(tmp_path / "seed", good_config())
    command = [sys.executable, "-c", MUTATE, str(tmp_path / "seed"), str(tmp_path / "m"), "500"]
    result = subprocess.run(
        command, env=child_environment(), capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr


def test_mutations_of_the_weights_in_a_keras_file(tmp_path):
    data, config = weights_file(), good_config()
    for number in range(200):
        rng = random.Random(number)
        mutant = bytearray(data)
        for _ in range(rng.choice([1, 2, 8])):
            mutant[rng.randrange(len(mutant))] = rng.randrange(256)
        keras_file(tmp_path / "model", config, bytes(mutant))
        try:
            load(tmp_path / "model")
        except CLEAN as error:
            assert len(str(error)) < MAX_MESSAGE
