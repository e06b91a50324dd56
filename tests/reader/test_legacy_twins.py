"""Files with one quirk of Keras 1 or 2 each, bitwise equal to the file without it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import cnnkern
from random_models import randomise

Config = dict[str, Any]
pytestmark = pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")


@pytest.fixture(scope="module", params=["functional", "sequential"])
def repaired(request: Any, tmp_path_factory: Any) -> Path:
    """A file as Keras 3 writes it."""
    import keras
    from keras import layers

    stack = [
        layers.Conv2D(4, 3, name="conv"),
        layers.BatchNormalization(name="norm"),
        layers.LeakyReLU(0.2, name="leaky"),
        layers.MaxPooling2D(2, name="pool"),
        layers.Flatten(name="flat"),
        layers.Dropout(0.5, name="drop"),
        layers.Dense(5, activation="swish", name="dense"),
    ]
    if request.param == "sequential":
        model = keras.Sequential([keras.Input((9, 8, 2)), *stack])
    else:
        y = x = keras.Input((9, 8, 2), name="x")
        for layer in stack:
            y = layer(y)
        model = keras.Model(x, y)
    randomise(model, np.random.default_rng(0))
    model.compile(optimizer="adam", loss="mse")
    path: Path = tmp_path_factory.mktemp(request.param) / "repaired.h5"
    model.save(path)
    return path


def layers_of(config: Config) -> list[Config]:
    layers: list[Config] = config["config"]["layers"]
    return layers


def options_of(config: Config, name: str) -> Config:
    layers = (layer["config"] for layer in layers_of(config))
    return next(options for options in layers if options["name"] == name)


def without_input_layer(config: Config) -> None:
    if config["class_name"] == "Sequential":
        first = layers_of(config).pop(0)
        layers_of(config)[0]["config"]["batch_input_shape"] = first["config"]["batch_shape"]


def input_with_batch_input_shape(config: Config) -> None:
    options = layers_of(config)[0]["config"]
    if "batch_shape" in options:
        options["batch_input_shape"] = options.pop("batch_shape")
        del options["optional"]


def class_model(config: Config) -> None:
    if config["class_name"] == "Functional":
        config["class_name"] = "Model"


def sequential_as_a_list(config: Config) -> None:
    if config["class_name"] == "Sequential":
        config["config"] = layers_of(config)


def calls_as_lists(config: Config) -> None:
    for layer in layers_of(config):
        for number, node in enumerate(layer.get("inbound_nodes", ())):
            (tensor,) = node["args"]
            history = tensor["config"]["keras_history"]
            layer["inbound_nodes"][number] = [[*history, {}]]


def dtype_in_initializers(config: Config) -> None:
    for layer in layers_of(config):
        for key, value in layer["config"].items():
            if key.endswith("_initializer"):
                value["config"]["dtype"] = "float32"


def plain_dtypes(config: Config) -> None:
    for layer in layers_of(config):
        layer["config"]["dtype"] = "float32"


def no_dtypes(config: Config) -> None:
    for layer in layers_of(config)[1:]:
        del layer["config"]["dtype"]


def no_newer_options(config: Config) -> None:
    newer = {"groups", "quantization_config", "synchronized", "keepdims", "seed", "noise_shape"}
    for layer in layers_of(config):
        for key in newer & layer["config"].keys():
            del layer["config"][key]


def axis_as_a_list(config: Config) -> None:
    options_of(config, "norm")["axis"] = [3]


def alpha_of_leaky_relu(config: Config) -> None:
    options = options_of(config, "leaky")
    options["alpha"] = options.pop("negative_slope")


def virtual_batches(config: Config) -> None:
    options = options_of(config, "norm")
    options.update(renorm=False, virtual_batch_size=None, fused=None)


QUIRKS: list[Callable[[Config], None]] = [
    without_input_layer, input_with_batch_input_shape, class_model, sequential_as_a_list,
    calls_as_lists, dtype_in_initializers, plain_dtypes, no_dtypes, no_newer_options,
    axis_as_a_list, alpha_of_leaky_relu, virtual_batches,
]  # fmt: skip


def all_at_once(config: Config) -> None:
    for quirk in QUIRKS:
        if quirk is not sequential_as_a_list:
            quirk(config)
    sequential_as_a_list(config)


def assert_twins(path: Path, repaired: Path) -> None:
    x = np.random.default_rng(1).standard_normal((3, 9, 8, 2), np.float32)
    expected = cnnkern.load(repaired).predict(x)
    assert np.std(expected) > 1e-2 * np.abs(expected).max()
    np.testing.assert_array_equal(cnnkern.load(path).predict(x), expected)


@pytest.mark.parametrize("quirk", [*QUIRKS, all_at_once], ids=lambda quirk: quirk.__name__)
def test_a_quirk_of_the_configuration(quirk: Any, repaired: Path, tmp_path: Path) -> None:
    path = tmp_path / "quirk.h5"
    shutil.copy(repaired, path)
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        quirk(config)
        file.attrs["model_config"] = json.dumps(config).encode()
        file.attrs["keras_version"] = b"2.0.8"
    assert_twins(path, repaired)


def lr_in_the_training_config(file: Any) -> None:
    optimizer = {"class_name": "Adam", "config": {"lr": 0.001, "decay": 0.0}}
    file.attrs["training_config"] = json.dumps({"optimizer_config": optimizer, "loss": "mse"})


def no_version(file: Any) -> None:
    for group in (file, file["model_weights"]):
        for key in ("keras_version", "backend"):
            group.attrs.pop(key, None)


def weights_of_the_optimizer(file: Any) -> None:
    group = file.require_group("optimizer_weights")
    group.attrs["weight_names"] = [b"Adam/iterations:0"]
    group["Adam/iterations:0"] = np.int64(7)


def names_with_numbers(file: Any) -> None:
    """Name weights as TensorFlow 1 did, below a scope of their own."""
    for layer in file["model_weights"].values():
        names = [name.decode() if isinstance(name, bytes) else name
                 for name in layer.attrs.get("weight_names", ())]  # fmt: skip
        renamed = [f"scope_1/{name.rsplit('/', 1)[-1]}:0" for name in names]
        for old, new in zip(names, renamed, strict=True):
            layer.move(old, new)
        layer.attrs["weight_names"] = [name.encode() for name in renamed]


@pytest.mark.parametrize(
    "quirk",
    [lr_in_the_training_config, no_version, weights_of_the_optimizer, names_with_numbers],
    ids=lambda quirk: quirk.__name__,
)
def test_a_quirk_of_the_file(quirk: Any, repaired: Path, tmp_path: Path) -> None:
    path = tmp_path / "quirk.h5"
    shutil.copy(repaired, path)
    with h5py.File(path, "r+") as file:
        quirk(file)
    assert_twins(path, repaired)
