"""One hierarchy of errors, and a graph that is checked before it is used."""

import numpy as np
import pytest

from cnnkern import errors
from cnnkern.errors import CnnkernError, DTypeError, PlanError, ShapeError
from cnnkern.graph import Graph, Node, as_array
from cnnkern.ops.activation import Activation
from cnnkern.ops.layout import Input

RELU = Activation("relu")
X = Node("x", Input((None, 3)))


def test_all_errors_have_one_base() -> None:
    defined = [e for e in vars(errors).values() if isinstance(e, type)]
    warnings = [e for e in defined if issubclass(e, UserWarning)]
    assert warnings == [errors.KerasVersionWarning, errors.CacheWarning]
    assert all(issubclass(e, CnnkernError) for e in defined if e not in warnings)
    assert issubclass(ShapeError, ValueError)
    assert issubclass(DTypeError, TypeError)


@pytest.mark.parametrize(
    ("nodes", "outputs", "message"),
    [
        ((X, X), ("x",), "'x' is defined twice"),
        ((X, Node("y", RELU, ("z",))), ("y",), r"'y' reads \['z'\] before"),
        ((Node("y", RELU, ("x",)), X), ("y",), r"'y' reads \['x'\] before"),
        ((X,), ("z",), "names no node"),
    ],
)
def test_a_broken_graph_is_refused(
    nodes: tuple[Node, ...], outputs: tuple[str, ...], message: str
) -> None:
    with pytest.raises(PlanError, match=message):
        Graph(nodes, ("x",), outputs).verify()


def test_nodes_are_found_by_name() -> None:
    graph = Graph((X, Node("y", RELU, ("x",))), ("x",), ("y",))
    assert graph["y"].inputs == ("x",)
    assert [node.name for node in graph.consumers()["x"]] == ["y"]
    with pytest.raises(KeyError):
        graph["z"]


def test_arrays_become_contiguous_float32() -> None:
    array = as_array(np.arange(6).reshape(2, 3).T)
    assert array.dtype == np.float32
    assert array.flags.c_contiguous
