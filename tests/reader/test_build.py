"""Records become a graph: order, names, sharing, flattening, problems."""

import time
from itertools import pairwise

import numpy as np
import pytest

from cnnkern.errors import ModelFileError, UnsupportedLayerError
from cnnkern.reader.build import build_graph, call_order, find_problems
from cnnkern.reader.config import parse_model
from cnnkern.reader.weights import WeightQueue


class Stored:
    def __init__(self, shape):
        self.shape = tuple(shape)

    def read(self):
        return np.ones(self.shape, np.float32)

    defer = read


class FakeSource:
    """Weights by layer name, as lists of shapes."""

    def __init__(self, spec, shapes):
        self.spec, self.shapes = spec, shapes

    def weights(self, index):
        name = self.spec.layers[index].name
        return WeightQueue(name, [Stored(shape) for shape in self.shapes.get(name, ())])

    def nested(self, index):
        layer = self.spec.layers[index]
        return FakeSource(layer.model, self.shapes.get(layer.name, {}))


def tensor(name, call=0, index=0, shape=None):
    config = {"shape": shape, "keras_history": [name, call, index]}
    return {"class_name": "__keras_tensor__", "config": config}


def layer(class_name, name, *calls, module="keras.layers", kwargs=None, **config):
    nodes = [{"args": list(args), "kwargs": kwargs or {}} for args in calls]
    config = {"name": name, "trainable": True, **config}
    return {"module": module, "class_name": class_name, "config": config, "name": name,
            "inbound_nodes": nodes}  # fmt: skip


def image(name="x", shape=(None, 4)):
    return layer("InputLayer", name, batch_shape=list(shape), dtype="float32")


def functional(layers, inputs, outputs, name="net", **config):
    body = {"name": name, "layers": layers, "input_layers": [[i, 0, 0] for i in inputs],
            "output_layers": [[o, c, 0] for o, c in outputs]}  # fmt: skip
    return {"module": "keras.src.models.functional", "class_name": "Functional",
            "config": {**body, **config}, "name": name}  # fmt: skip


def dense(name, *calls, units=2, **config):
    return layer("Dense", name, *calls, units=units, activation="linear", **config)


def build(config, shapes=None):
    spec = parse_model(config)
    return build_graph(spec, FakeSource(spec, shapes or {}))


def problems(config, shapes=None):
    spec = parse_model(config)
    return find_problems(spec, FakeSource(spec, shapes or {}))


DENSE = [(4, 2), (2,)]


def test_one_dense_layer():
    config = functional([image(), dense("d", [tensor("x")])], ["x"], [("d", 0)])
    graph = build(config, {"d": DENSE})
    assert [(node.name, node.inputs) for node in graph.nodes] == [("x", ()), ("d", ("x",))]
    assert (graph.inputs, graph.outputs, graph.name) == (("x",), ("d",), "net")
    assert [(row.name, row.class_name, row.output, row.n_params) for row in graph.layers] == [
        ("x", "InputLayer", "x", 0),
        ("d", "Dense", "d", 10),
    ]
    assert graph.shapes()["d"] == (None, 2)


def test_nodes_come_in_an_order_in_which_they_can_be_computed():
    layers = [
        layer("ReLU", "c", [tensor("b")]),
        layer("ReLU", "b", [tensor("a")]),
        layer("ReLU", "a", [tensor("x")]),
        image(),
    ]
    graph = build(functional(layers, ["x"], [("c", 0)]))
    assert [node.name for node in graph.nodes] == ["x", "a", "b", "c"]
    assert [row.name for row in graph.layers] == ["c", "b", "a", "x"]


def test_chains_name_their_parts_after_the_layer():
    d = {**dense("d", [tensor("x")])}
    d["config"]["activation"] = "relu"
    graph = build(functional([image(), d], ["x"], [("d", 0)]), {"d": DENSE})
    assert [(node.name, node.inputs) for node in graph.nodes] == [
        ("x", ()),
        ("d/dense", ("x",)),
        ("d", ("d/dense",)),
    ]
    assert graph.layers[1].output == "d"


def test_a_layer_applied_twice_shares_its_op():
    layers = [image("x"), image("y"), dense("d", [tensor("x")], [tensor("y")]),
              layer("Add", "add", [[tensor("d", 0), tensor("d", 1)]])]  # fmt: skip
    graph = build(functional(layers, ["x", "y"], [("add", 0)]), {"d": DENSE})
    assert [node.name for node in graph.nodes] == ["x", "y", "d", "d_1", "add"]
    assert graph["d"].op is graph["d_1"].op
    assert graph["add"].inputs == ("d", "d_1")
    assert [row.n_params for row in graph.layers] == [0, 0, 10, 0]


def test_added_names_avoid_names_of_layers():
    layers = [image(), layer("ReLU", "r", [tensor("x")], [tensor("r", 0)]),
              layer("ReLU", "r_1", [tensor("r", 1)])]  # fmt: skip
    graph = build(functional(layers, ["x"], [("r_1", 0)]))
    assert [node.name for node in graph.nodes] == ["x", "r", "r_2", "r_1"]


def nested_twice(**inner_config):
    layers = [image("i"), dense("d", [tensor("i")]), layer("ReLU", "r", [tensor("d")])]
    inner = functional(layers, ["i"], [("r", 0)], "inner", **inner_config)
    inner["inbound_nodes"] = [{"args": [tensor(n)], "kwargs": {"mask": None}} for n in "xy"]
    add = layer("Add", "add", [[tensor("inner", 0), tensor("inner", 1)]])
    return functional([image("x"), image("y"), inner, add], ["x", "y"], [("add", 0)])


def test_nested_models_are_flattened():
    graph = build(nested_twice(), {"inner": {"d": DENSE}})
    assert [node.name for node in graph.nodes] == [
        "x", "y", "inner/d", "inner/r", "inner/d_1", "inner/r_1", "add",
    ]  # fmt: skip
    assert graph["inner/d"].op is graph["inner/d_1"].op
    assert graph["add"].inputs == ("inner/r", "inner/r_1")
    assert [(row.name, row.output, row.n_params) for row in graph.layers][2] == (
        "inner", "inner/r", 10,
    )  # fmt: skip


def test_nested_models_may_have_several_inputs_and_outputs():
    layers = [image("a"), image("b"), layer("ReLU", "r", [tensor("a")]),
              layer("Add", "s", [[tensor("a"), tensor("b")]])]  # fmt: skip
    inner = functional(layers, ["b", "a"], [("r", 0), ("s", 0)], "m")
    inner["inbound_nodes"] = [{"args": [[tensor("x"), tensor("y")]], "kwargs": {}}]
    last = layer("Add", "add", [[tensor("m", 0, 1), tensor("m", 0, 0)]])
    graph = build(functional([image("x"), image("y"), inner, last], ["x", "y"], [("add", 0)]))
    assert graph["m/r"].inputs == ("y",)  # `a` is the second input of m
    assert graph["m/s"].inputs == ("y", "x")
    assert graph["add"].inputs == ("m/s", "m/r")


def test_nested_models_take_dictionaries_by_name():
    layers = [image("a"), image("b"), layer("Subtract", "s", [[tensor("a"), tensor("b")]])]
    inner = functional(layers, ["b", "a"], [("s", 0)], "m")
    inner["inbound_nodes"] = [{"args": [{"a": tensor("x"), "b": tensor("y")}], "kwargs": {}}]
    config = functional([image("x"), image("y"), inner], ["x", "y"], [("m", 1)])
    assert build(config)["m/s"].inputs == ("x", "y")
    inner["inbound_nodes"] = [{"args": [{"a": tensor("x"), "c": tensor("y")}], "kwargs": {}}]
    with pytest.raises(UnsupportedLayerError, match="other keys"):
        build(config)


def test_op_nodes_take_numbers():
    twice = layer("Multiply", "twice", [tensor("x"), 2.0], module="keras.src.ops.numpy")
    del twice["config"]["trainable"]
    graph = build(functional([image(), twice], ["x"], [("twice", 0)]))
    assert graph["twice"].op.scalar == 2.0
    assert graph.layers[1].class_name == "Multiply"


@pytest.mark.parametrize("has_module", [True, False])
def test_layers_and_ops_of_one_name_are_told_apart(has_module):
    op = layer("Add", "op", [tensor("x"), 3.0], module="keras.src.ops.numpy")
    del op["config"]["trainable"]
    both = layer("Add", "both", [[tensor("op"), tensor("x")]])
    if not has_module:
        op["module"] = both["module"] = None
    graph = build(functional([image(), op, both], ["x"], [("both", 0)]))
    assert (graph["op"].op.scalar, graph["both"].op.scalar) == (3.0, None)


def test_the_batch_axis_is_free():
    config = functional(
        [image(shape=(8, 4)), layer("ReLU", "r", [tensor("x")])], ["x"], [("r", 0)]
    )
    assert build(config).shapes()["r"] == (None, 4)


POLICY = {"module": "keras", "class_name": "DTypePolicy", "config": {"name": "float32"}}
QUANTIZED = {"class_name": "QuantizedDTypePolicy", "config": {"mode": "int8"}}


@pytest.mark.parametrize("dtype", [None, "float32", POLICY])
def test_float32_policies(dtype):
    relu = layer("ReLU", "r", [tensor("x")], dtype=dtype)
    build(functional([image(), relu], ["x"], [("r", 0)]))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("dtype", "float16"),
        ("dtype", "mixed_float16"),
        ("dtype", {**POLICY, "config": {"name": "mixed_bfloat16"}}),
        ("dtype", {"class_name": "Policy", "config": {"name": "float64"}}),
        ("dtype", QUANTIZED),
        ("dtype", ["float32"]),
        ("quantization_mode", "int8"),
        ("quantization_config", {"class_name": "Int8QuantizationConfig"}),
        ("lora_rank", 4),
    ],
)
def test_other_precisions_are_refused_by_name(key, value):
    relu = layer("ReLU", "r", [tensor("x")], **{key: value})
    with pytest.raises(UnsupportedLayerError, match=f"ReLU 'r': {key}="):
        build(functional([image(), relu], ["x"], [("r", 0)]))


def test_inputs_of_other_types_are_refused():
    x = layer("InputLayer", "x", batch_shape=[None, 4], dtype="uint8")
    with pytest.raises(UnsupportedLayerError, match="InputLayer 'x': dtype='uint8'"):
        build(functional([x, layer("ReLU", "r", [tensor("x")])], ["x"], [("r", 0)]))


def test_policies_of_models_are_refused_too():
    inner = nested_twice(dtype="mixed_float16")
    with pytest.raises(UnsupportedLayerError, match="Functional 'inner': dtype"):
        build(inner, {"inner": {"d": DENSE}})
    config = functional(
        [image(), layer("ReLU", "r", [tensor("x")])], ["x"], [("r", 0)], dtype="float16"
    )
    with pytest.raises(UnsupportedLayerError, match="Functional 'net': dtype"):
        build(config)


@pytest.mark.parametrize("kwargs", [{"mask": [1]}, {"mask": tensor("x")}], ids=str)
def test_arguments_that_change_the_result_are_refused(kwargs):
    relu = layer("ReLU", "r", [tensor("x")], kwargs=kwargs)
    with pytest.raises(UnsupportedLayerError, match="ReLU 'r': it is called with"):
        build(functional([image(), relu], ["x"], [("r", 0)]))


@pytest.mark.parametrize("training", [False, True])
def test_predict_decides_about_training(training):
    relu = layer("ReLU", "r", [tensor("x"), None], kwargs={"training": training, "mask": None})
    build(functional([image(), relu], ["x"], [("r", 0)]))


@pytest.mark.parametrize("args", [[], [tensor("x"), tensor("x")], [1.0, tensor("x")]], ids=len)
def test_layers_are_called_with_their_inputs_only(args):
    relu = layer("ReLU", "r", args)
    with pytest.raises(UnsupportedLayerError, match="arguments; accepted: 1"):
        build(functional([image(), relu], ["x"], [("r", 0)]))


def cycle():
    layers = [
        image(),
        layer("Add", "a", [[tensor("x"), tensor("b")]]),
        layer("ReLU", "b", [tensor("a")]),
    ]
    return functional(layers, ["x"], [("b", 0)])


def second_output():
    layers = [
        image(),
        layer("ReLU", "a", [tensor("x")]),
        layer("ReLU", "b", [tensor("a", 0, 1)]),
    ]
    return functional(layers, ["x"], [("b", 0)])


def number_as_input():
    return functional([image(), layer("ReLU", "a", [3.0])], ["x"], [("a", 0)])


def too_many_inputs():
    config = nested_twice()
    config["config"]["layers"][2]["inbound_nodes"][0]["args"] = [[tensor("x"), tensor("y")]]
    return config


def other_shape():
    config = nested_twice()
    config["config"]["layers"][0]["config"]["batch_shape"] = [None, 5]
    return config


def misfit():
    layers = [
        image("x"),
        image("y", (None, 3)),
        layer("Add", "add", [[tensor("x"), tensor("y")]]),
    ]
    return functional(layers, ["x", "y"], [("add", 0)])


def confused():
    return functional(
        [image(), layer("ReLU", "a", [tensor("x")], max_value=[])], ["x"], [("a", 0)]
    )


def unbuilt():
    return {"class_name": "Sequential", "config": {"name": "s", "layers": [layer("ReLU", "r")]}}


@pytest.mark.parametrize(
    ("make", "fragment"),
    [
        (cycle, "cycle"),
        (second_output, "'a' has no output 1"),
        (number_as_input, "must be tensors"),
        (too_many_inputs, "2 inputs for 1 input layers"),
        (other_shape, r"'i' expects \(None, 4\), got \(None, 5\)"),
        (misfit, "Add 'add'"),
        (confused, "ReLU 'a'"),
        (unbuilt, "batch_shape"),
    ],
)
def test_malformed(make, fragment):
    with pytest.raises(ModelFileError, match=fragment):
        build(make(), {"inner": {"d": DENSE}})


@pytest.mark.parametrize(
    ("shapes", "fragment"),
    [
        ([], "'kernel' is missing"),
        ([(4, 2)], "'bias' is missing"),
        ([(4, 2), (3,)], r"'bias' has shape \(3,\), the configuration needs \(2,\)"),
        ([(2, 4), (2,)], r"'kernel' has shape"),
        ([(4, 2), (2,), (1,)], "1 weights more"),
    ],
)
def test_weights_must_fit(shapes, fragment):
    config = functional([image(), dense("d", [tensor("x")])], ["x"], [("d", 0)])
    with pytest.raises(ModelFileError, match=fragment):
        build(config, {"d": shapes})


def test_unknown_classes_are_named():
    odd = layer("Conv2D", "odd", [tensor("x")], module="mine")
    with pytest.raises(UnsupportedLayerError, match=r"Conv2D 'odd': class mine\.Conv2D"):
        build(functional([image(), odd], ["x"], [("odd", 0)]))


def test_problems_are_collected():
    layers = [
        image(),
        layer("LSTM", "a", [tensor("x")]),
        dense("b", [tensor("a", shape=[None, 4])]),
        layer("GRU", "c", [tensor("b")]),
        dense("d", [tensor("c")]),  # its input shape is unknown: only its class is checked
        layer("Odd", "e", [tensor("d")], module="mine"),
        layer("ReLU", "f", [tensor("e")], dtype="float16"),
        layer("ReLU", "g", [tensor("x")], max_value="much"),
    ]
    config = functional(layers, ["x"], [("f", 0), ("g", 0)])
    found = problems(config, {"b": [(4, 3), (3,)]})
    messages = {problem.layer: problem.message for problem in found}
    assert sorted(messages) == ["a", "b", "c", "e", "f", "g"]
    assert "class keras.layers.LSTM is not supported" in messages["a"]
    assert "has shape (4, 3)" in messages["b"]
    assert "dtype='float16'" in messages["f"]


def test_claims_of_many_outputs_cost_nothing():
    layers = [
        image(),
        layer("LSTM", "a", [tensor("x")]),
        layer("ReLU", "b", [tensor("a", 0, 1)]),
    ]
    layers += [
        layer("ReLU", "c", [tensor("a", 0, 10**9)]),
        layer("ReLU", "d", [tensor("a", 0, -1)]),
    ]
    found = problems(functional(layers, ["x"], [("b", 0), ("c", 0), ("d", 0)]))
    assert [p.layer for p in found] == ["a", "c", "d"]


def test_problems_of_nested_models_are_found_once():
    config = nested_twice()
    config["config"]["layers"][2]["config"]["layers"][2]["class_name"] = "LSTM"
    found = problems(config, {"inner": {"d": DENSE}})
    assert [(p.layer, p.class_name) for p in found] == [("inner/r", "LSTM")]


def test_a_good_model_has_no_problems():
    assert problems(nested_twice(), {"inner": {"d": DENSE}}) == []


def test_long_models_are_read_in_time():
    names = ["x", *(f"r{n}" for n in range(3000))]
    layers = [layer("ReLU", b, [tensor(a)]) for a, b in pairwise(names)]
    config = functional([*layers[::-1], image()], ["x"], [(names[-1], 0)])
    start = time.perf_counter()
    assert len(call_order(parse_model(config))) == 3000
    assert len(build(config).nodes) == 3001
    assert time.perf_counter() - start < 5


def test_nested_models_cannot_multiply_without_end():
    config = functional(
        [image("i"), layer("ReLU", "r", [tensor("i")])], ["i"], [("r", 0)], "m0"
    )
    for level in range(1, 6):
        inner = f"m{level - 1}"
        config["inbound_nodes"] = [
            {"args": [tensor("i") if n == 0 else tensor(inner, n - 1)], "kwargs": {}}
            for n in range(20)
        ]
        config = functional([image("i"), config], ["i"], [(inner, 20)], f"m{level}")
    with pytest.raises(ModelFileError, match="more than 50000 times"):
        build(config)


def test_models_without_layers_cannot_multiply_either():
    config = functional([image("i")], ["i"], [("i", 0)], "m0")
    for level in range(1, 12):
        inner = f"m{level - 1}"
        config["inbound_nodes"] = [
            {"args": [tensor("i") if n == 0 else tensor(inner, n - 1)], "kwargs": {}}
            for n in range(20)
        ]
        config = functional([image("i"), config], ["i"], [(inner, 20)], f"m{level}")
    with pytest.raises(ModelFileError, match="more than 50000 times"):
        build(config)
