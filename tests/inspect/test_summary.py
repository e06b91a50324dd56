"""The table of layers."""

import io

import numpy as np
from rich.console import Console

from cnnkern.engine import Model
from cnnkern.graph import Graph, Layer
from cnnkern.inspect.summary import is_chain, layer_inputs, print_summary
from cnnkern.inspect.text import nbytes_text, printable
from cnnkern.ops.activation import Activation
from cnnkern.ops.dense import Dense
from cnnkern.ops.layout import Flatten
from cnnkern.ops.merge import Add
from support import graph_of


def with_layers(graph: Graph, *rows: tuple[str, str, int], name: str = "model") -> Graph:
    layers = tuple(Layer(row, "Kind", output, n_params) for row, output, n_params in rows)
    return Graph(graph.nodes, graph.inputs, graph.outputs, layers, name)


def summary_of(graph: Graph) -> str:
    console = Console(file=io.StringIO(), width=100)
    print_summary(Model(graph), console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def dense_graph() -> Graph:
    dense = Dense(np.ones((4, 3), np.float32), np.zeros(3, np.float32))
    return graph_of({"x": (None, 2, 2)}, [("flat", Flatten(), ("x",)), ("y", dense, ("flat",))])


def branched_graph() -> Graph:
    steps = [
        ("a", Activation("relu"), ("x",)),
        ("b/1", Activation("tanh"), ("x",)),
        ("b", Activation("sigmoid"), ("b/1",)),
        ("sum", Add(), ("a", "b")),
    ]
    graph = graph_of({"x": (None, 5)}, steps)
    return with_layers(graph, *((name, name, 0) for name in ("x", "a", "b", "sum")))


def test_rows_show_shapes_and_parameters() -> None:
    graph = with_layers(dense_graph(), ("flat", "flat", 0), ("y", "y", 15), name="tiny")
    lines = summary_of(graph).splitlines()
    assert lines[0] == "Model: tiny"
    assert [cell.strip() for cell in lines[4].split("│")[1:-1]] == [
        "flat (Kind)",
        "(None, 4)",
        "0",
    ]
    assert [cell.strip() for cell in lines[5].split("│")[1:-1]] == [
        "y (Kind)",
        "(None, 3)",
        "15",
    ]
    assert lines[-1] == "Total params: 15 (60 B)"


def test_chain_does_not_list_connections() -> None:
    graph = with_layers(dense_graph(), ("x", "x", 0), ("flat", "flat", 0), ("y", "y", 15))
    assert is_chain(graph.layers, layer_inputs(graph))
    assert "Connected to" not in summary_of(graph)


def test_branches_list_what_each_layer_reads() -> None:
    graph = branched_graph()
    expected = {"x": (), "a": ("x",), "b": ("x",), "sum": ("a", "b")}
    assert layer_inputs(graph) == expected
    assert "a, b" in summary_of(graph)


def test_layer_without_node_reads_the_layer_whose_tensor_it_returns() -> None:
    graph = dense_graph()
    graph = with_layers(graph, ("flat", "flat", 0), ("drop", "flat", 0), ("y", "y", 15))
    assert layer_inputs(graph) == {"flat": (), "drop": ("flat",), "y": ("drop",)}


def test_layer_called_twice_is_known_by_its_op() -> None:
    shared = Activation("relu")
    steps = [
        ("s", shared, ("x",)),
        ("s_1", shared, ("z",)),
        ("sum", Add(), ("s", "s_1")),
    ]
    graph = graph_of({"x": (None, 5), "z": (None, 5)}, steps)
    graph = with_layers(graph, ("x", "x", 0), ("z", "z", 0), ("s", "s", 0), ("sum", "sum", 0))
    assert layer_inputs(graph)["sum"] == ("s",)


def test_names_cannot_control_the_terminal() -> None:
    assert printable("a\x1b[31m\n[bold]é\u202e").plain == "a\\x1b[31m\\n[bold]é\\u202e"


def test_sizes_as_people_write_them() -> None:
    assert [nbytes_text(n) for n in (0, 1023, 1024, 1536 * 1024, 3 << 30)] == [
        "0 B",
        "1023 B",
        "1.0 KB",
        "1.5 MB",
        "3.0 GB",
    ]
