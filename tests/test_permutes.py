"""Permutations sink: the graph keeps its meaning and computes fewer of them."""

from __future__ import annotations

import numpy as np
import pytest

from cnnkern import naive
from cnnkern.graph import Array, Graph, Op
from cnnkern.ops.activation import Activation
from cnnkern.ops.conv import Conv
from cnnkern.ops.dense import Dense
from cnnkern.ops.layernorm import GroupNorm, LayerNorm, RMSNorm, UnitNorm
from cnnkern.ops.layout import Flatten, Identity, Permute
from cnnkern.ops.merge import Add, Concatenate, Multiply, ScaledAdd
from cnnkern.ops.norm import Affine, BatchNorm, Normalization
from cnnkern.ops.prelu import PReLU
from cnnkern.ops.softmax import Glu, LogSoftmax, Softmax, Sparsemax
from cnnkern.permutes import sink_permutes
from support import graph_of, run_kernels

RNG = np.random.default_rng(0)
TO_LAST, TO_FIRST = Permute((2, 3, 1)), Permute((3, 1, 2))


def normal(*shape: int) -> Array:
    return RNG.standard_normal(shape, np.float32)


def kinds(graph: Graph) -> list[str]:
    return [type(node.op).__name__ for node in graph.nodes]


def assert_same(graph: Graph, *inputs: Array) -> Graph:
    """Return the graph after the pass, which computes what it did before, in kernels too."""
    after = sink_permutes(graph).verify()
    assert (after.inputs, after.outputs) == (graph.inputs, graph.outputs)
    kernels = run_kernels(after, *inputs)
    pairs = zip(naive.run(graph, inputs), naive.run(after, inputs), kernels, strict=True)
    for before, result, compiled in pairs:
        np.testing.assert_allclose(result, before, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(compiled, before, rtol=1e-4, atol=1e-5)
    return after


def test_by_hand() -> None:
    graph = graph_of(
        {"x": (None, 4, 2, 3)},
        [
            ("first", TO_FIRST, ("x",)),
            ("norm", BatchNorm(None, None, normal(3), np.abs(normal(3)), axis=-3), ("first",)),
            ("y", TO_LAST, ("norm",)),
        ],
    )  # fmt: skip
    after = assert_same(graph, normal(2, 4, 2, 3))
    assert kinds(after) == ["Input", "BatchNorm", "Identity"]
    op = after.nodes[1].op
    assert isinstance(op, BatchNorm)
    assert op.axis == -1


def test_a_graph_without_permutations_stays_the_same_object() -> None:
    graph = graph_of({"x": (None, 3)}, [("y", Activation("relu"), ("x",))])
    assert sink_permutes(graph) is graph


# Ops on [N, 4, 2, 6], each with different meanings along different axes.
MOVABLE = [
    Activation("tanh"), Softmax((-3,)), Softmax((-3, -1)), LogSoftmax((-2,)), Sparsemax((-3,)),
    Glu(-3), Glu(-1), BatchNorm(normal(4), None, normal(4), np.abs(normal(4)), axis=-3),
    Affine(normal(4, 1, 1), normal(6)), Normalization(normal(2, 6), np.abs(normal(2, 6))),
    PReLU(normal(4, 1, 6)), PReLU(normal(4, 2, 6)), UnitNorm((-3, -2)), GroupNorm(2, -3),
    LayerNorm((-3, -1), gamma=normal(4, 1, 6), beta=normal(4, 1, 6)), LayerNorm((-2,)),
    RMSNorm((-1,), gamma=normal(6)),
]  # fmt: skip


@pytest.mark.parametrize("dims", [(2, 3, 1), (3, 1, 2), (1, 3, 2), (3, 2, 1)], ids=str)
@pytest.mark.parametrize("op", MOVABLE, ids=lambda op: type(op).__name__)
def test_ops_move(op: Op, dims: tuple[int, ...]) -> None:
    shape = [0, 0, 0]
    for axis, length in zip(dims, (4, 2, 6), strict=True):
        shape[axis - 1] = length
    steps = [("p", Permute(dims), ("x",)), ("f", op, ("p",)), ("y", Flatten(), ("f",))]
    graph = graph_of({"x": (None, *shape)}, steps)
    after = assert_same(graph, normal(3, *shape))
    assert kinds(after) == ["Input", type(op).__name__, "Permute", "Flatten"]


@pytest.mark.parametrize(
    "op", [Add(), Multiply(), ScaledAdd(0.5), Concatenate(-1), Concatenate(-3)]
)
def test_a_tensor_that_is_not_permuted_joins(op: Op) -> None:
    graph = graph_of(
        {"a": (None, 5, 4, 3), "b": (None, 3, 5, 4)},
        [("p", TO_FIRST, ("a",)), ("f", op, ("p", "b")), ("y", TO_LAST, ("f",))],
    )
    after = assert_same(graph, normal(2, 5, 4, 3), normal(2, 3, 5, 4))
    assert kinds(after).count("Permute") == 1


def test_a_channel_weight_joins() -> None:
    graph = graph_of(
        {"a": (None, 5, 4, 3), "b": (None, 3, 1, 1)},
        [("p", TO_FIRST, ("a",)), ("f", Multiply(), ("b", "p")), ("y", TO_LAST, ("f",))],
    )
    assert_same(graph, normal(2, 5, 4, 3), normal(2, 3, 1, 1))


def test_operands_of_another_rank_stay_behind() -> None:
    graph = graph_of(
        {"a": (None, 5, 4, 3), "b": (None, 4)},
        [("p", TO_FIRST, ("a",)), ("y", Multiply(), ("p", "b"))],
    )
    assert kinds(assert_same(graph, normal(2, 5, 4, 3), normal(2, 4))) == [
        "Input", "Input", "Permute", "Multiply",
    ]  # fmt: skip


def test_convolutions_read_the_source() -> None:
    """Three channels_first layers as the reader makes them: one permutation at each end."""
    steps = [("p0", TO_LAST, ("x",)), ("c0", Conv(normal(3, 3, 3, 8)), ("p0",)),
             ("l0", TO_FIRST, ("c0",)), ("a", Activation("relu"), ("l0",)),
             ("p1", TO_LAST, ("a",)), ("c1", Conv(normal(1, 1, 8, 8)), ("p1",)),
             ("l1", TO_FIRST, ("c1",)), ("s", Add(), ("l1", "a")), ("p2", TO_LAST, ("s",)),
             ("c2", Conv(normal(3, 3, 8, 4)), ("p2",)), ("y", TO_FIRST, ("c2",))]  # fmt: skip
    graph = graph_of({"x": (None, 3, 7, 6)}, steps, "y", "s", "l0")
    after = assert_same(graph, normal(2, 3, 7, 6))
    assert kinds(after).count("Permute") == 4  # the input and three outputs
    one = sink_permutes(graph_of({"x": (None, 3, 7, 6)}, steps))
    assert kinds(one).count("Permute") == 2


def test_outputs_keep_their_names() -> None:
    steps = [("p", TO_FIRST, ("x",)), ("a", Activation("relu"), ("p",)),
             ("q", TO_FIRST, ("x",)),
             ("i", Identity(), ("a",)), ("d", Dense(normal(4, 2)), ("a",))]  # fmt: skip
    graph = graph_of({"x": (None, 5, 4, 3)}, steps, "p", "a", "q", "i", "d", "p")
    assert_same(graph, normal(2, 5, 4, 3))


def test_a_permutation_written_twice_is_computed_once() -> None:
    steps = [("p", TO_FIRST, ("x",)), ("a", Dense(normal(4, 2)), ("p",)),
             ("q", TO_FIRST, ("x",)), ("b", Dense(normal(4, 2)), ("q",)),
             ("y", Add(), ("a", "b"))]  # fmt: skip
    after = assert_same(graph_of({"x": (None, 5, 4, 3)}, steps), normal(2, 5, 4, 3))
    assert kinds(after).count("Permute") == 1
