"""Configurations of Keras 1, 2 and 3 become the same records."""

import pytest

from cnnkern.errors import ModelFileError, UnsupportedLayerError
from cnnkern.reader.calls import TensorRef, call_tensors
from cnnkern.reader.config import MAX_LAYERS, MAX_NESTING, parse_model, registry_key


def tensor(name, call=0, index=0, shape=None):
    """A tensor as Keras 3 writes it among the arguments of a call."""
    config = {"shape": shape, "dtype": "float32", "keras_history": [name, call, index]}
    return {"class_name": "__keras_tensor__", "config": config}


def layer(class_name, name, *calls, module="keras.layers", **config):
    return {
        "module": module,
        "class_name": class_name,
        "config": {"name": name, "trainable": True, **config},
        "registered_name": None,
        "name": name,
        "inbound_nodes": [{"args": list(args), "kwargs": {}} for args in calls],
    }


def image(name="x"):
    return layer("InputLayer", name, batch_shape=[None, 4, 4, 1])


def functional(layers, inputs, outputs, name="net", **config):
    body = {"name": name, "layers": layers, "input_layers": inputs, "output_layers": outputs}
    return {
        "module": "keras.src.models.functional",
        "class_name": "Functional",
        "config": {**body, **config},
        "registered_name": "Functional",
        "name": name,
    }


def sequential(layers, name="net", **config):
    body = {"name": name, "layers": layers, **config}
    return {"module": "keras", "class_name": "Sequential", "config": body, "name": name}


def one_layer(**changes):
    relu = layer("ReLU", "relu", [tensor("x")])
    return functional([image(), {**relu, **changes}], ["x", 0, 0], ["relu", 0, 0])


def test_one_layer():
    spec = parse_model(one_layer())
    x, relu = spec.layers
    assert (spec.name, spec.inputs) == ("net", ("x",))
    assert spec.outputs == (TensorRef("relu", 0, 0),)
    assert (x.is_input, relu.is_input) == (True, False)
    assert (relu.name, relu.class_name, relu.key) == ("relu", "ReLU", "keras.layers>ReLU")
    assert call_tensors(relu.calls[0]) == [TensorRef("x", 0, 0)]


@pytest.mark.parametrize(
    ("module", "key"),
    [
        (None, ">C"),
        ("keras.layers", "keras.layers>C"),
        ("keras.src.layers.core.dense", "keras.layers>C"),
        ("keras.layers.core", "keras.layers>C"),
        ("keras.engine.input_layer", "keras.layers>C"),
        ("tensorflow.python.keras.layers", "keras.layers>C"),
        ("tf_keras.src.layers.core", "keras.layers>C"),
        ("keras.src.ops.numpy", "keras.ops.numpy>C"),
        ("keras.src.applications.convnext", "keras.applications.convnext>C"),
        ("keras.layersother", "keras.layersother>C"),
        ("kerasx.layers", "kerasx.layers>C"),
        ("mine", "mine>C"),
    ],
)
def test_modules_are_normalised(module, key):
    assert registry_key(module, "C") == key


def test_a_class_of_the_author_is_never_taken_for_one_of_keras():
    config = one_layer(registered_name="keras.layers>ReLU")
    assert parse_model(config).layers[1].key == "custom keras.layers>ReLU"


@pytest.mark.parametrize(
    "refs",
    [["x", 0, 0], [["x", 0, 0]], {"image": ["x", 0, 0]}, [{"image": [["x", 0, 0]]}]],
    ids=str,
)
def test_inputs_may_be_nested(refs):
    config = one_layer()
    config["config"]["input_layers"] = refs
    assert parse_model(config).inputs == ("x",)


def test_dictionaries_of_outputs_are_flattened_by_key():
    layers = [image(), layer("ReLU", "a", [tensor("x")]), layer("ReLU", "b", [tensor("x")])]
    outputs = {"z": ["a", 0, 0], "y": ["b", 0, 0]}
    spec = parse_model(functional(layers, ["x", 0, 0], outputs))
    assert [ref.layer for ref in spec.outputs] == ["b", "a"]


def test_legacy_calls():
    layers = [
        {"class_name": "InputLayer", "name": "x", "config": {"name": "x"}, "inbound_nodes": []},
        {
            "class_name": "Add",
            "name": "add",
            "config": {"name": "add"},
            "inbound_nodes": [[["x", 0, 0, {}], ["x", 0, 0]]],
        },
    ]
    spec = parse_model(functional(layers, [["x", 0, 0]], [["add", 0, 0]]))
    (call,) = spec.layers[1].calls
    assert call.args == ([TensorRef("x", 0, 0), TensorRef("x", 0, 0)],)
    assert (spec.layers[1].is_op, spec.layers[1].key) == (False, ">Add")


def test_op_nodes_keep_numbers_among_their_arguments():
    add = layer("Add", "add", [2.0, tensor("x")], module="keras.src.ops.numpy")
    (_, add) = parse_model(functional([image(), add], ["x", 0, 0], ["add", 0, 0])).layers
    assert (add.is_op, add.calls[0].args) == (True, (2.0, TensorRef("x", 0, 0)))


def test_op_nodes_without_module():
    add = layer("Add", "add", [tensor("x"), 2.0], module=None)
    del add["config"]["trainable"]
    (_, add) = parse_model(functional([image(), add], ["x", 0, 0], ["add", 0, 0])).layers
    assert add.is_op


@pytest.mark.parametrize("wrap", ["dict", "list"])
def test_sequential_gets_an_input(wrap):
    relu = layer("ReLU", "relu", batch_input_shape=[None, 4])
    config = sequential([relu])
    if wrap == "list":  # Keras before 2.2.3
        config = {"class_name": "Sequential", "config": [relu]}
    x, relu = parse_model(config).layers
    assert (x.name, x.is_shown, x.config["batch_shape"]) == ("relu_input", False, [None, 4])
    assert relu.calls[0].args == (TensorRef("relu_input", 0, 0),)


@pytest.mark.parametrize(
    ("first", "model"),
    [
        ({"batch_input_shape": [None, 4]}, {}),
        ({"batch_shape": [None, 4]}, {}),
        ({"input_shape": [4]}, {}),
        ({}, {"build_input_shape": [None, 4]}),
    ],
    ids=str,
)
def test_sequential_finds_its_input_shape(first, model):
    spec = parse_model(sequential([layer("ReLU", "relu", **first)], **model))
    assert spec.layers[0].config["batch_shape"] == [None, 4]


def test_sequential_uses_build_config():
    relu = {**layer("ReLU", "relu"), "build_config": {"input_shape": [None, 4]}}
    assert parse_model(sequential([relu])).layers[0].config["batch_shape"] == [None, 4]
    outer = {**sequential([layer("ReLU", "relu")]), "build_config": {"input_shape": [None, 4]}}
    assert parse_model(outer).layers[0].config["batch_shape"] == [None, 4]


def test_sequential_starts_with_the_input_of_a_nested_model():
    inner = sequential(
        [layer("InputLayer", "x", batch_shape=[None, 4]), layer("ReLU", "r")], "in"
    )
    assert parse_model(sequential([inner])).layers[0].config["batch_shape"] == [None, 4]


def test_the_added_input_avoids_names_that_are_taken():
    layers = [layer("ReLU", "a"), layer("ReLU", "a_input"), layer("ReLU", "a_input_1")]
    assert parse_model(sequential(layers)).layers[0].name == "a_input_2"


def nested(ref_calls, output_call, inner_class="Functional", legacy=False):
    """A nested model that is applied twice; `ref_calls` are read by an Add layer."""
    layers = [
        layer("InputLayer", "i", batch_shape=[None, 4]),
        layer("ReLU", "r", [tensor("i")]),
    ]
    inner = functional(layers, ["i", 0, 0], ["r", 0, 0], "inner")
    if inner_class == "Sequential":
        inner = sequential(layers, "inner")
    inner["inbound_nodes"] = [{"args": [tensor("x")], "kwargs": {}}] * 2
    add = layer("Add", "add", [[tensor("inner", call) for call in ref_calls]])
    if legacy:
        inner["inbound_nodes"] = [[["x", 0, 0, {}]]] * 2
        add["inbound_nodes"] = [[["inner", call, 0, {}] for call in ref_calls]]
    outputs = [["add", 0, 0], ["inner", output_call, 0]]
    return functional([image(), inner, add], ["x", 0, 0], outputs)


@pytest.mark.parametrize(
    ("inner_class", "legacy", "ref_calls", "output_call"),
    [
        ("Functional", False, [0, 1], 2),
        ("Sequential", False, [0, 1], 1),
        ("Functional", True, [1, 2], 2),
        ("Sequential", True, [0, 1], 1),
        ("Sequential", True, [1, 2], 2),
    ],
)
def test_calls_of_nested_models_are_counted_from_0(inner_class, legacy, ref_calls, output_call):
    spec = parse_model(nested(ref_calls, output_call, inner_class, legacy))
    assert [ref.call for ref in call_tensors(spec.layers[2].calls[0])] == [0, 1]
    assert [ref.call for ref in spec.outputs] == [0, 1]


def test_only_the_second_call_is_read_inside():
    spec = parse_model(nested([1], 1))
    assert [ref.call for ref in call_tensors(spec.layers[2].calls[0])] == [1]
    assert [ref.call for ref in spec.outputs] == [0, 0]


def drop(key):
    return lambda config: config.pop(key)


def put(value, *path):
    def change(config):
        for step in path[:-1]:
            config = config[step]
        config[path[-1]] = value

    return change


LAYER = ("config", "layers", 1)
BROKEN = [
    (drop("class_name"), "'class_name' must be str"),
    (drop("config"), "'config' must be"),
    (put(7, "class_name"), "'class_name' must be str"),
    (put("a\nb", "class_name"), "not a name"),
    (put("x" * 1000, "class_name"), "not a name"),
    (put({"a": 1}, "module"), "'module'"),
    (put("\ud800", "module"), "'module'"),
    (put("x", "config"), "'config' must be"),
    (put({}, "config", "layers"), "'layers' must be list"),
    (put([], "config", "layers"), "input layers do not match"),
    (put(["y", 0, 0], "config", "input_layers"), "input layers do not match"),
    (put([["x", 0, 0]] * 2, "config", "input_layers"), "input layers do not match"),
    (put(["relu", 0, 0], "config", "input_layers"), "input layers do not match"),
    (put([], "config", "input_layers"), "input layers do not match"),
    (put(None, "config", "output_layers"), "reference to a tensor"),
    (put(["relu", "0", 0], "config", "output_layers"), "reference to a tensor"),
    (put([], "config", "output_layers"), "no outputs"),
    (put(["relu", 1, 0], "config", "output_layers"), "has no call 1"),
    (put(["relu", -1, 0], "config", "output_layers"), "has no call -1"),
    (put(["none", 0, 0], "config", "output_layers"), "'none' does not exist"),
    (put(7, *LAYER), "'class_name' must be str"),
    (put([], *LAYER, "config"), "no configuration"),
    (put("", *LAYER, "name"), "needs a printable name"),
    (put(["relu"], *LAYER, "name"), "needs a printable name"),
    (put("a\x1b[31m", *LAYER, "name"), "needs a printable name"),
    (put("x", *LAYER, "name"), "same name"),
    (put(1, *LAYER, "config", "a\x1bb"), "name of an option"),
    (put([], *LAYER, "inbound_nodes"), "'relu' is never called"),
    (put("x", *LAYER, "inbound_nodes"), "must be a list of calls"),
    (put([7], *LAYER, "inbound_nodes"), "must be a list of calls"),
    (put([[]], *LAYER, "inbound_nodes"), "malformed"),
    (put([[["x", 0]]], *LAYER, "inbound_nodes"), "malformed"),
    (put([[["x", 0, 0, [1]]]], *LAYER, "inbound_nodes"), "malformed arguments"),
    (put([{"args": 1, "kwargs": {}}], *LAYER, "inbound_nodes"), "'args' must be list"),
    (put([{"args": []}], *LAYER, "inbound_nodes"), "'kwargs' must be dict"),
    (put([[["y", 0, 0]]], *LAYER, "inbound_nodes"), "'y' does not exist"),
    (put([[["x", True, 0]]], *LAYER, "inbound_nodes"), "malformed"),
    (
        put({"class_name": "__keras_tensor__"}, *LAYER, "inbound_nodes", 0, "args", 0),
        "'config' must be dict",
    ),
    (
        put({"keras_history": ["x", 0]}, *LAYER, "inbound_nodes", 0, "args", 0, "config"),
        "'keras_history' is malformed",
    ),
    (put([[["x", 0, 0]]], "config", "layers", 0, "inbound_nodes"), "cannot have inputs"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "fragment"), BROKEN, ids=[text for _, text in BROKEN])
def test_malformed(change, fragment):
    config = one_layer()
    change(config)
    with pytest.raises(ModelFileError, match=fragment):
        parse_model(config)


@pytest.mark.parametrize("layers", [[], [image()], [layer("ReLU", "r"), image()]], ids=len)
def test_malformed_sequential(layers):
    with pytest.raises(ModelFileError, match=r"no layers|behind another"):
        parse_model(sequential(layers))


@pytest.mark.parametrize("module", ["mine", "__main__", "os", "keras.layers.mine"])
def test_other_model_classes_are_unsupported(module):
    config = {**one_layer(), "module": module, "class_name": "MyModel"}
    with pytest.raises(
        UnsupportedLayerError, match=r"MyModel.*accepted: Sequential or Functional"
    ):
        parse_model(config)


def test_nesting_is_limited():
    config = sequential([layer("ReLU", "r", batch_shape=[None, 1])])
    for _ in range(MAX_NESTING):
        config = sequential([config])
    parse_model(config)
    with pytest.raises(ModelFileError, match="nested deeper"):
        parse_model(sequential([config]))


def test_the_number_of_layers_is_limited():
    layers = [layer("ReLU", str(n)) for n in range(MAX_LAYERS + 1)]
    parse_model(sequential(layers[:-1]))
    with pytest.raises(ModelFileError, match="more than"):
        parse_model(sequential(layers))
