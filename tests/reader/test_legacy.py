"""Legacy HDF5 files of Keras 1, 2 and 3, written by hand."""

import json

import h5py
import numpy as np
import pytest

from cnnkern.errors import ModelFileError, UnsupportedLayerError
from cnnkern.reader import check, load


def array(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def write(path, config, layers):
    """Write a file; `layers` gives (weight name, array) pairs per layer."""
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(config).encode()
        file.attrs["keras_version"] = b"2.0.5"
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [name.encode() for name in layers]
        for name, weights in layers.items():
            folder = group.create_group(name)
            folder.attrs["weight_names"] = [key.encode() for key, _ in weights]
            for key, value in weights:
                folder[key] = value


def keras2_layer(class_name, name, *sources, **config):
    """A layer as Keras 2.0 writes it: no module, no dtype, calls as lists."""
    node = [[source, 0, 0, {}] for source in sources]
    return {
        "class_name": class_name,
        "name": name,
        "config": {"name": name, "trainable": True, **config},
        "inbound_nodes": [node] if node else [],
    }


def image(name="x", shape=(None, 4, 4, 1)):
    layer = keras2_layer("InputLayer", name, batch_input_shape=list(shape), dtype="float32")
    del layer["config"]["trainable"]
    layer["config"]["sparse"] = False
    return layer


def conv(name, *sources, **config):
    options = {
        "filters": 2, "kernel_size": [3, 3], "strides": [1, 1], "padding": "same",
        "data_format": "channels_last", "dilation_rate": [1, 1], "activation": "linear",
        "use_bias": True, "kernel_initializer": {"class_name": "VarianceScaling", "config": {}},
    }  # fmt: skip
    return keras2_layer("Conv2D", name, *sources, **{**options, **config})


def norm(name, *sources, **config):
    options = {"axis": 3, "epsilon": 1e-3, "momentum": 0.99, "center": True, "scale": True}
    return keras2_layer("BatchNormalization", name, *sources, **{**options, **config})


def model(layers, inputs, outputs, class_name="Model", name="model_1"):
    refs = [[n, 0, 0] for n in inputs], [[n, c, 0] for n, c in outputs]
    config = {"name": name, "layers": layers, "input_layers": refs[0], "output_layers": refs[1]}
    return {"class_name": class_name, "config": config}


def test_keras_2_functional_model(tmp_path):
    layers = [image(), conv("c", "x"), norm("n", "c"), keras2_layer("Add", "add", "c", "n")]
    kernel, bias = array(0, 3, 3, 1, 2), array(1, 2)
    stats = [(f"n_1/{key}:0", array(seed, 2)) for seed, key in enumerate(
        ("gamma", "beta", "moving_mean", "moving_variance"))]  # fmt: skip
    write(tmp_path / "m.h5", model(layers, ["x"], [("add", 0)]), {
        "x": [], "c": [("c_1/kernel:0", kernel), ("c_1/bias:0", bias)], "n": stats, "add": [],
    })  # fmt: skip
    graph = load(tmp_path / "m.h5")
    assert [(node.name, node.inputs) for node in graph.nodes] == [
        ("x", ()), ("c", ("x",)), ("n", ("c",)), ("add", ("c", "n")),
    ]  # fmt: skip
    np.testing.assert_array_equal(graph["c"].op.filter, kernel)
    np.testing.assert_array_equal(graph["c"].op.bias, bias)
    assert [row.n_params for row in graph.layers] == [0, 20, 8, 0]


@pytest.mark.parametrize(
    "wrap", [lambda layers: layers, lambda layers: {"name": "s", "layers": layers}]
)
def test_keras_2_sequential_model(tmp_path, wrap):
    first = conv("c", batch_input_shape=[None, 4, 4, 1], dtype="float32")
    flat = keras2_layer("Flatten", "f", data_format="channels_last")
    for layer in (first, flat):
        del layer["inbound_nodes"], layer["name"]
    weights = [("c/kernel:0", array(0, 3, 3, 1, 2)), ("c/bias:0", array(1, 2))]
    config = {"class_name": "Sequential", "config": wrap([first, flat])}
    write(tmp_path / "m.h5", config, {"c": weights, "f": []})
    graph = load(tmp_path / "m.h5")
    assert [node.name for node in graph.nodes] == ["c_input", "c", "f"]
    assert [row.name for row in graph.layers] == ["c", "f"]
    assert graph.shapes()["f"] == (None, 32)


def nested_model(first_call, trainable=(True, True, True)):
    """Two convolutions around a BatchNormalization, applied twice as one layer."""
    layers = [
        image("i"),
        conv("a", "i", trainable=trainable[0]),
        norm("n", "a", trainable=trainable[1]),
        conv("b", "n", filters=1, trainable=trainable[2]),
    ]
    inner = model(layers, ["i"], [("b", 0)], name="inner")
    inner = {**inner, "name": "inner", "inbound_nodes": [[["x", 0, 0, {}]], [["y", 0, 0, {}]]]}
    add = keras2_layer("Add", "add")
    add["inbound_nodes"] = [[["inner", first_call, 0, {}], ["inner", first_call + 1, 0, {}]]]
    outputs = [("add", 0), ("inner", first_call + 1)]
    return model([image("x"), image("y"), inner, add], ["x", "y"], outputs)


WEIGHTS = {
    ("a", "kernel"): array(0, 3, 3, 1, 2),
    ("a", "bias"): array(1, 2),
    ("n", "gamma"): array(2, 2),
    ("n", "beta"): array(3, 2),
    ("n", "moving_mean"): array(4, 2),
    ("n", "moving_variance"): array(5, 2),
    ("b", "kernel"): array(6, 3, 3, 2, 1),
    ("b", "bias"): array(7, 1),
}


def flat_order(trainable):
    """The order of trained, then other weights, each layer by layer."""
    flags = dict(zip("anb", trainable, strict=True))
    never = ("moving_mean", "moving_variance")
    return sorted(WEIGHTS, key=lambda key: not flags[key[0]] or key[1] in never)


@pytest.mark.parametrize("first_call", [0, 1])
@pytest.mark.parametrize(
    "trainable",
    [(True, True, True), (False, True, True), (True, False, True), (False, False, False)],
    ids=str,
)
def test_nested_models_get_their_share(tmp_path, first_call, trainable):
    row = [(f"{a}_7/{b}:0", WEIGHTS[a, b]) for a, b in flat_order(trainable)]
    write(tmp_path / "m.h5", nested_model(first_call, trainable), {"inner": row, "add": []})
    graph = load(tmp_path / "m.h5")
    assert check(tmp_path / "m.h5") == []
    np.testing.assert_array_equal(graph["inner/a"].op.filter, WEIGHTS["a", "kernel"])
    np.testing.assert_array_equal(graph["inner/a"].op.bias, WEIGHTS["a", "bias"])
    np.testing.assert_array_equal(graph["inner/b"].op.filter, WEIGHTS["b", "kernel"])
    np.testing.assert_array_equal(graph["inner/b"].op.bias, WEIGHTS["b", "bias"])
    statistics = {
        name: value.tobytes()
        for name, value in vars(graph["inner/n"].op).items()
        if isinstance(value, np.ndarray)
    }
    expected = [WEIGHTS[key].tobytes() for key in WEIGHTS if key[0] == "n"]
    assert sorted(statistics.values()) == sorted(expected)
    assert graph["inner/a"].op is graph["inner/a_1"].op
    assert graph["add"].inputs == ("inner/b", "inner/b_1")
    assert graph.outputs == ("add", "inner/b_1")
    assert [row.n_params for row in graph.layers] == [0, 0, 47, 0]


def test_a_model_nested_twice_gets_its_share(tmp_path):
    inner = nested_model(0)["config"]["layers"][2]
    inner["inbound_nodes"] = [[["j", 0, 0, {}]]]
    middle = model([image("j"), inner, norm("m", "inner")], ["j"], [("m", 0)], name="middle")
    middle = {**middle, "name": "middle", "inbound_nodes": [[["x", 0, 0, {}]]]}
    own = {("m", key): array(10 + n, 1) for n, key in enumerate(("gamma", "beta"))}
    fixed = {
        ("m", key): array(12 + n, 1) for n, key in enumerate(("moving_mean", "moving_variance"))
    }
    order = flat_order((True,) * 3)
    row = [*((k, WEIGHTS[k]) for k in order[:6]), *own.items(),
           *((k, WEIGHTS[k]) for k in order[6:]), *fixed.items()]  # fmt: skip
    row = [("/".join(key), value) for key, value in row]
    config = model([image("x"), middle], ["x"], [("middle", 1)])
    write(tmp_path / "m.h5", config, {"middle": row})
    graph = load(tmp_path / "m.h5")
    assert [node.name for node in graph.nodes] == [
        "x", "middle/inner/a", "middle/inner/n", "middle/inner/b", "middle/m",
    ]  # fmt: skip
    np.testing.assert_array_equal(graph["middle/inner/b"].op.bias, WEIGHTS["b", "bias"])
    assert graph.layers[1].n_params == 51


@pytest.mark.parametrize("change", ["missing", "added", "reshaped"])
def test_rows_of_another_length_are_refused(tmp_path, change):
    row = [("/".join(key), WEIGHTS[key]) for key in flat_order((True,) * 3)]
    if change == "missing":
        row = row[:-1]
    elif change == "added":
        row.append(("n/extra", array(9, 2)))
    else:
        row[0] = ("a/kernel", array(0, 3, 3, 2, 2))
    write(tmp_path / "m.h5", nested_model(0), {"inner": row})
    with pytest.raises(ModelFileError, match=r"Model 'inner'|Conv2D"):
        load(tmp_path / "m.h5")
    assert len(check(tmp_path / "m.h5")) >= 1


def test_problems_inside_nested_models_are_found(tmp_path):
    config = nested_model(0)
    inner = config["config"]["layers"][2]["config"]["layers"]
    inner[1]["config"]["dtype"] = "float16"
    inner[2]["class_name"] = "LSTM"
    row = [("/".join(key), WEIGHTS[key]) for key in flat_order((True,) * 3)]
    write(tmp_path / "m.h5", config, {"inner": row})
    assert [p.layer for p in check(tmp_path / "m.h5")] == ["inner/a", "inner/n"]
    with pytest.raises(UnsupportedLayerError, match="dtype='float16'"):
        load(tmp_path / "m.h5")


def test_layers_that_do_not_exist_are_refused(tmp_path):
    layers = [image(), keras2_layer("ReLU", "r", "x", max_value=None)]
    write(tmp_path / "m.h5", model(layers, ["x"], [("r", 0)]), {"other": []})
    with pytest.raises(ModelFileError, match="'other', which does not exist"):
        load(tmp_path / "m.h5")


def test_weights_that_belong_to_no_layer_are_refused(tmp_path):
    layers = [image(), keras2_layer("ReLU", "r", "x", max_value=None)]
    write(tmp_path / "m.h5", model(layers, ["x"], [("r", 0)]), {"r": []})
    with h5py.File(tmp_path / "m.h5", "r+") as file:
        top = file.create_group("model_weights/top_level_model_weights")
        top.attrs["weight_names"] = [b"w"]
    with pytest.raises(ModelFileError, match="belong to no layer"):
        load(tmp_path / "m.h5")


def test_swapped_weights_of_other_shapes_are_refused(tmp_path):
    layers = [image(), conv("c", "x")]
    weights = [("bias:0", array(1, 2)), ("kernel:0", array(0, 3, 3, 1, 2))]
    write(tmp_path / "m.h5", model(layers, ["x"], [("c", 0)]), {"c": weights})
    with pytest.raises(ModelFileError, match="Conv2D 'c': weight 'kernel' has shape"):
        load(tmp_path / "m.h5")


def test_a_layer_without_its_group_is_refused(tmp_path):
    layers = [image(), conv("c", "x")]
    write(tmp_path / "m.h5", model(layers, ["x"], [("c", 0)]), {"c": []})
    with h5py.File(tmp_path / "m.h5", "r+") as file:
        del file["model_weights/c"]
    with pytest.raises(ModelFileError, match="its group of weights is missing"):
        load(tmp_path / "m.h5")
