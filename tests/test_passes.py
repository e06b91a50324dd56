"""Passes: each keeps what a graph computes, and each does what it is for."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnkern.graph import Array, Graph, Op, as_array
from cnnkern.ops.activation import Activation
from cnnkern.ops.conv import Conv
from cnnkern.ops.dense import Dense
from cnnkern.ops.depthwise import DepthwiseConv
from cnnkern.ops.layout import Identity, ZeroPadding
from cnnkern.ops.merge import Add, Concatenate, Multiply, ScaledAdd
from cnnkern.ops.norm import Affine, BatchNorm, Normalization
from cnnkern.ops.pool import AveragePool, GlobalAveragePool, GlobalMaxPool, MaxPool
from cnnkern.ops.prelu import PReLU
from cnnkern.ops.transpose import ConvTranspose
from cnnkern.ops.window import Padding
from cnnkern.passes import (
    PASSES,
    drop_identities,
    fold_branch_scales,
    fold_padding,
    fold_scales,
    fold_scales_ahead,
    fuse_activation,
    fuse_residual,
    merge_scales,
    optimise,
    pool_before_scales,
    recognise_hard_sigmoid,
    share_equal_nodes,
)
from random_graphs import random_graph, random_input
from support import evaluate, graph_of, run_kernels

Pass = Callable[[Graph], Graph]
Steps = list[tuple[str, Op, tuple[str, ...]]]
RELU = Activation("relu")


def normal(*shape: int) -> Array:
    return np.random.default_rng(len(shape)).standard_normal(shape, np.float32)


def batch_norm(C: int = 4, variance: float = 2.0) -> BatchNorm:
    return BatchNorm(normal(C), normal(C), normal(C), np.full(C, variance, np.float32))


def conv(**options: object) -> Conv:
    return Conv(normal(3, 3, 4, 4), normal(4), **options)  # type: ignore[arg-type]


def graph(steps: Steps, *outputs: str) -> Graph:
    return graph_of({"x": (None, 6, 6, 4)}, steps, *outputs)


def names(graph: Graph) -> list[str]:
    return [node.name for node in graph.nodes]


def assert_same_meaning(before: Graph, after: Graph, seed: int = 0) -> None:
    """Compare all outputs by their references, within 1e-5 of the largest value."""
    assert (after.inputs, after.outputs) == (before.inputs, before.outputs)
    assert after.shapes()[after.outputs[0]] == before.shapes()[before.outputs[0]]
    x = random_input(seed)
    for y, expected in zip(evaluate(after, x), evaluate(before, x), strict=True):
        assert np.abs(y - expected).max() <= 1e-5 * max(np.abs(expected).max(), 1)


@pytest.mark.parametrize(
    "rewrite", [*PASSES, fold_scales_ahead, optimise], ids=lambda rewrite: rewrite.__name__
)
@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1))
def test_random_graphs_keep_their_meaning(rewrite: Pass, seed: int) -> None:
    before = random_graph(seed)
    assert_same_meaning(before, rewrite(before).verify(), seed)


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1))
def test_optimising_twice_changes_nothing_more(seed: int) -> None:
    once = optimise(random_graph(seed))
    assert names(optimise(once)) == names(once)
    assert_same_meaning(once, optimise(once), seed)


def test_passes_are_pure() -> None:
    before = random_graph(3)
    nodes = before.nodes
    optimise(before)
    assert before.nodes is nodes


def test_identities_are_dropped() -> None:
    before = graph([("a", Identity(), ("x",)), ("b", Identity(), ("a",)), ("y", RELU, ("b",))])
    after = drop_identities(before)
    assert names(after) == ["x", "y"]
    assert after["y"].inputs == ("x",)
    assert_same_meaning(before, after)


def test_an_identity_that_is_an_output_stays() -> None:
    before = graph([("a", RELU, ("x",)), ("y", Identity(), ("a",))])
    assert names(drop_identities(before)) == ["x", "a", "y"]


HARD_SIGMOID: Steps = [
    ("three", Add(3.0), ("x",)),
    ("clip", Activation("bounded_relu", (0.0, 6.0, 0.0)), ("three",)),
    ("sixth", Multiply(1 / 6), ("clip",)),
]


def test_a_hard_sigmoid_is_recognised() -> None:
    before = graph([*HARD_SIGMOID, ("y", Multiply(), ("sixth", "x"))], "y")
    after = recognise_hard_sigmoid(before)
    assert names(after) == ["x", "sixth", "y"]
    assert_same_meaning(before, after)


@pytest.mark.parametrize(
    ("index", "op"), [(0, Add(2.0)), (1, RELU), (2, Multiply(1 / 5)), (2, Add(1 / 6))]
)
def test_no_hard_sigmoid(index: int, op: Op) -> None:
    steps = list(HARD_SIGMOID)
    name, _, inputs = steps[index]
    steps[index] = name, op, inputs
    assert names(recognise_hard_sigmoid(graph(steps, "sixth"))) == [
        "x",
        "three",
        "clip",
        "sixth",
    ]


def test_a_hard_sigmoid_with_other_readers_stays() -> None:
    steps = [*HARD_SIGMOID, ("y", Add(), ("sixth", "clip"))]
    assert len(recognise_hard_sigmoid(graph(steps, "y")).nodes) == 5


def test_padding_is_folded_into_convolutions() -> None:
    pad = ZeroPadding(((1, 0), (2, 1)))
    for second in (conv(), DepthwiseConv(normal(3, 3, 4, 1), None)):
        before = graph([("p", pad, ("x",)), ("y", second, ("p",))])
        after = fold_padding(before)
        assert names(after) == ["x", "y"]
        assert after["y"].op.padding == ((1, 0), (2, 1))  # type: ignore[attr-defined]
        assert_same_meaning(before, after)


@pytest.mark.parametrize(
    "steps",
    [
        [("p", ZeroPadding(((1, 1), (1, 1))), ("x",)), ("y", conv(padding="same"), ("p",))],
        [
            ("p", ZeroPadding(((1, 1), (1, 1))), ("x",)),
            ("a", conv(), ("p",)),
            ("y", RELU, ("p",)),
        ],
        [("p", ZeroPadding(((1, 1), (1, 1))), ("x",)), ("y", RELU, ("p",))],
    ],
    ids=["padded itself", "two readers", "no convolution"],
)
def test_padding_that_stays(steps: Steps) -> None:
    before = graph(steps)
    assert names(fold_padding(before)) == names(before)


def test_batch_norm_is_folded() -> None:
    firsts = (conv(), Conv(normal(3, 3, 4, 4)), Dense(normal(4, 4), normal(4)))
    for first in (*firsts, DepthwiseConv(normal(3, 3, 4, 1), None)):
        before = graph(
            [("c", first, ("x",)), ("b", batch_norm(), ("c",)), ("y", batch_norm(), ("b",))]
        )
        after = fold_scales(before)
        assert names(after) == ["x", "y"]
        assert type(after["y"].op) is type(first)
        assert_same_meaning(before, after)


@pytest.mark.parametrize(
    ("steps", "outputs"),
    [
        ([("c", conv(), ("x",)), ("y", batch_norm(variance=-1.0), ("c",))], ()),
        ([("c", conv(), ("x",)), ("y", replace(batch_norm(6), axis=-2), ("c",))], ()),
        ([("c", conv(activation=RELU), ("x",)), ("y", batch_norm(), ("c",))], ()),
        (
            [
                ("c", conv(adds_residual=True, padding="same"), ("x", "x")),
                ("y", batch_norm(), ("c",)),
            ],
            (),
        ),
        ([("c", conv(), ("x",)), ("y", batch_norm(), ("c",))], ("c", "y")),
        (
            [
                ("c", conv(padding="same"), ("x",)),
                ("b", batch_norm(), ("c",)),
                ("y", Add(), ("b", "c")),
            ],
            (),
        ),
        ([("r", RELU, ("x",)), ("y", batch_norm(), ("r",))], ()),
    ],
    ids=["not finite", "axis", "activated", "residual", "output", "shared", "no convolution"],
)
def test_batch_norm_that_stays(steps: Steps, outputs: tuple[str, ...]) -> None:
    before = graph(steps, *outputs)
    assert names(fold_scales(before)) == names(before)


POOLS: list[Op] = [MaxPool(), AveragePool((3, 3), (1, 1), "same"), GlobalMaxPool()]


@pytest.mark.parametrize("pool", [*POOLS, GlobalAveragePool(keepdims=True)], ids=repr)
def test_what_pooling_leaves_is_scaled(pool: Op) -> None:
    scale = replace(batch_norm(), gamma=np.array([2, 1, 0.5, 3], np.float32))
    for first in (scale, Affine(as_array(2), as_array(1))):
        before = graph([("r", RELU, ("x",)), ("b", first, ("r",)), ("y", pool, ("b",))])
        after = pool_before_scales(before)
        assert [type(node.op) for node in after.nodes[2:]] == [type(pool), Affine]
        assert_same_meaning(before, after)
        if not isinstance(pool, AveragePool | GlobalAveragePool):
            x = random_input(0)
            np.testing.assert_array_equal(evaluate(after, x), evaluate(before, x))


@pytest.mark.parametrize(
    ("scale", "pool", "outputs"),
    [
        (replace(batch_norm(), gamma=np.array([1, 1, -1, 1], np.float32)), MaxPool(), ()),
        (replace(batch_norm(), gamma=np.array([1, 1, 0, 1], np.float32)), GlobalMaxPool(), ()),
        (batch_norm(variance=-1.0), AveragePool(), ()),
        (replace(batch_norm(6), axis=-2), AveragePool(), ()),
        (replace(batch_norm(), activation=RELU), AveragePool(), ()),
        (batch_norm(), AveragePool(), ("b", "y")),
    ],
    ids=["negative", "zero", "not finite", "axis", "activated", "output"],
)
def test_what_pooling_reads_is_scaled(scale: Op, pool: Op, outputs: tuple[str, ...]) -> None:
    before = graph([("b", scale, ("x",)), ("y", pool, ("b",))], *outputs)
    assert [n.op for n in pool_before_scales(before).nodes] == [n.op for n in before.nodes]


def test_several_poolings_go_before_a_scale() -> None:
    steps: Steps = [
        ("b", batch_norm(), ("x",)),
        ("p", AveragePool((2, 2), (1, 1)), ("b",)),
        ("y", GlobalAveragePool(), ("p",)),
    ]
    after = pool_before_scales(graph(steps))
    types = [type(node.op) for node in after.nodes[1:]]
    assert types == [AveragePool, GlobalAveragePool, Affine]
    assert_same_meaning(graph(steps), after)


@pytest.mark.parametrize("padding", ["valid", "same", ((0, 2), (1, 0))], ids=str)
@pytest.mark.parametrize(
    "scale",
    [batch_norm(), Affine(as_array(2), as_array(-1)), Affine(as_array(0.5), as_array(0))],
    ids=["batch norm", "affine", "no shift"],
)
def test_scales_are_folded_into_their_reader(scale: Op, padding: Padding) -> None:
    strided = conv(padding=padding, strides=(2, 1), activation=RELU)
    before = graph([("r", RELU, ("x",)), ("s", scale, ("r",)), ("y", strided, ("s",))])
    after = fold_scales_ahead(before)
    assert names(after) == ["x", "r", "y"]
    assert_same_meaning(before, after)
    x = random_input(0)
    np.testing.assert_allclose(run_kernels(after, x), evaluate(before, x), rtol=0, atol=2e-5)


def test_a_reader_that_adds_keeps_its_other_input() -> None:
    steps: Steps = [
        ("s", batch_norm(), ("x",)),
        ("r", RELU, ("x",)),
        ("y", conv(padding="valid", adds_residual=True), ("s", "p")),
    ]
    steps.insert(2, ("p", MaxPool((3, 3), (1, 1)), ("r",)))
    after = fold_scales_ahead(graph(steps))
    assert after["y"].inputs == ("x", "p")
    assert_same_meaning(graph(steps), after)


@pytest.mark.parametrize(
    ("steps", "outputs"),
    [
        ([("s", batch_norm(), ("x",)), ("y", conv(), ("s",))], ("s", "y")),
        ([("s", batch_norm(), ("x",)), ("c", conv(), ("s",)), ("y", RELU, ("s",))], ("c", "y")),
        ([("s", batch_norm(), ("x",)), ("y", RELU, ("s",))], ()),
        ([("s", replace(batch_norm(), activation=RELU), ("x",)), ("y", conv(), ("s",))], ()),
        ([("s", replace(batch_norm(6), axis=-2), ("x",)), ("y", conv(), ("s",))], ()),
        ([("s", batch_norm(variance=-1.0), ("x",)), ("y", conv(), ("s",))], ()),
        ([("s", Affine(as_array(1), as_array(5)), ("x",)), ("y", conv(), ("s",))], ()),
        ([("s", Affine(as_array(1e9), as_array(0)), ("x",)), ("y", conv(), ("s",))], ()),
        ([("s", batch_norm(), ("x",)), ("y", Conv(normal(1, 1, 4, 4)), ("s",))], ()),
        (
            [
                ("s", Affine(as_array(0), as_array(1)), ("x",)),
                ("y", conv(padding="same"), ("s",)),
            ],
            (),
        ),
        (
            [
                ("s", batch_norm(), ("x",)),
                ("y", Conv(normal(3, 3, 2, 4), groups=2), ("s",)),
            ],
            (),
        ),
        (
            [
                ("s", Affine(as_array(2), as_array(1)), ("x",)),
                ("y", Conv(np.full((2, 1, 4, 4), np.inf, np.float32)), ("s",)),
            ],
            (),
        ),
        (
            [
                ("s", batch_norm(), ("x",)),
                ("c", conv(padding="same"), ("s",)),
                ("y", Add(), ("x", "c")),
            ],
            (),
        ),
        (
            [
                ("r", RELU, ("x",)),
                ("j", Concatenate(), ("x", "r")),
                ("s", batch_norm(8), ("j",)),
                ("y", Conv(normal(3, 3, 8, 4), padding="same"), ("s",)),
            ],
            (),
        ),
    ],
    ids=[
        "output", "shared", "no convolution", "activated", "axis", "not finite", "large shift",
        "large scale", "one tap", "no border", "groups", "infinite filter", "shared source",
        "joined source",
    ],
)  # fmt: skip
def test_scales_that_their_reader_leaves(steps: Steps, outputs: tuple[str, ...]) -> None:
    before = graph(steps, *outputs)
    assert names(fold_scales_ahead(before)) == names(before)


def test_two_scales_are_folded_one_by_one() -> None:
    steps: Steps = [
        ("s", batch_norm(), ("x",)),
        ("t", Affine(as_array(-2), as_array(1)), ("s",)),
        ("y", conv(padding="same"), ("t",)),
    ]
    after = fold_scales_ahead(fold_scales_ahead(graph(steps)))
    assert names(after) == ["x", "y"]
    assert_same_meaning(graph(steps), after)


def test_borders_that_differ_have_storages_of_their_own() -> None:
    """A sum could be written over the input of a padded convolution, but for its border."""
    steps: Steps = [
        ("r", RELU, ("x",)),
        ("c", conv(padding="same"), ("r",)),
        ("a", Add(), ("r", "c")),
        ("s", batch_norm(), ("a",)),
        ("y", conv(padding="same"), ("s",)),
    ]
    before, x = graph(steps), random_input(1)
    after = fold_scales_ahead(before)
    assert names(after) == ["x", "r", "c", "a", "y"]
    np.testing.assert_allclose(run_kernels(after, x), evaluate(before, x), rtol=0, atol=1e-4)


def test_activations_are_fused() -> None:
    for first in (conv(), Dense(normal(4, 4)), DepthwiseConv(normal(3, 3, 4, 1), None)):
        before = graph(
            [("c", first, ("x",)), ("r", RELU, ("c",)), ("y", Activation("tanh"), ("r",))]
        )
        after = fuse_activation(before)
        assert names(after) == ["x", "r", "y"]
        assert after["r"].op.activation == RELU  # type: ignore[attr-defined]
        assert_same_meaning(before, after)


def test_slopes_per_channel_are_fused() -> None:
    slopes = normal(4)
    for first, prelu, count in (
        (conv(), PReLU(slopes), 2),
        (conv(), PReLU(slopes.reshape(1, 1, 4)), 2),
        (conv(), PReLU(slopes[:1]), 2),
        (Dense(normal(4, 5)), PReLU(normal(5)), 2),
        (conv(), PReLU(normal(4, 4)), 3),  # of each column of the image
        (Dense(normal(4, 2)), PReLU(normal(2)), 3),  # few columns
        (batch_norm(), PReLU(slopes), 3),
    ):
        before = graph([("c", first, ("x",)), ("y", prelu, ("c",))])
        after = fuse_activation(before)
        assert len(after.nodes) == count
        assert_same_meaning(before, after)


def test_an_activation_of_an_output_stays() -> None:
    before = graph([("c", conv(), ("x",)), ("y", RELU, ("c",))], "c", "y")
    assert names(fuse_activation(before)) == names(before)


@pytest.mark.parametrize("order", [("s", "c"), ("c", "s")])
def test_the_later_convolution_adds_the_shortcut(order: tuple[str, str]) -> None:
    steps: Steps = [
        ("s", conv(padding="same"), ("x",)),
        ("c", conv(padding="same"), ("s",)),
        ("y", Add(), order),
    ]
    after = fuse_residual(graph(steps))
    assert names(after) == ["x", "s", "y"]
    assert after["y"].inputs == ("s", "s")
    assert after["y"].op.adds_residual  # type: ignore[attr-defined]
    assert_same_meaning(graph(steps), after)


def test_a_residual_is_added_before_the_activation() -> None:
    steps: Steps = [
        ("c", conv(padding="same"), ("x",)),
        ("a", Add(), ("c", "x")),
        ("y", RELU, ("a",)),
    ]
    after = optimise(graph(steps))
    assert names(after) == ["x", "y"]
    assert_same_meaning(graph(steps), after)


@pytest.mark.parametrize(
    ("steps", "outputs"),
    [
        ([("c", conv(padding="same"), ("x",)), ("y", Add(), ("c", "c"))], ()),
        ([("c", conv(padding="same"), ("x",)), ("y", Add(), ("c", "x", "x"))], ()),
        ([("c", conv(padding="same"), ("x",)), ("y", Add(), ("c", "x"))], ("c", "y")),
        ([("c", conv(padding="same", activation=RELU), ("x",)), ("y", Add(), ("c", "x"))], ()),
        ([("c", conv(padding="same"), ("x",)), ("y", Multiply(), ("c", "x"))], ()),
        (
            [("c", Conv(normal(3, 3, 4, 1), padding="same"), ("x",)), ("y", Add(), ("c", "x"))],
            (),
        ),
        ([("c", Dense(normal(4, 4)), ("x",)), ("y", Add(scalar=2.0), ("c",))], ()),
    ],
    ids=["twice", "three", "output", "activated", "multiply", "broadcast", "scalar"],
)
def test_adds_that_stay(steps: Steps, outputs: tuple[str, ...]) -> None:
    before = graph(steps, *outputs)
    assert names(fuse_residual(before)) == names(before)


def test_equal_nodes_are_computed_once() -> None:
    before = graph([("a", RELU, ("x",)), ("b", RELU, ("x",)), ("y", Multiply(), ("a", "b"))])
    after = share_equal_nodes(before)
    assert names(after) == ["x", "a", "y"]
    assert after["y"].inputs == ("a", "a")
    assert_same_meaning(before, after)


def test_equal_layers_with_weights_stay_apart() -> None:
    before = graph([("a", conv(), ("x",)), ("b", conv(), ("x",)), ("y", Add(), ("a", "b"))])
    assert names(share_equal_nodes(before)) == names(before)


@pytest.mark.parametrize("shape", [(), (4,), (1, 1, 4)])
def test_scales_are_folded_into_convolutions(shape: tuple[int, ...]) -> None:
    affine = Affine(normal(*shape), normal(*shape))
    for first in (conv(), Dense(normal(4, 4)), ConvTranspose(normal(3, 3, 4, 4))):
        before = graph([("c", first, ("x",)), ("y", affine, ("c",))])
        after = fold_scales(before)
        assert names(after) == ["x", "y"]
        assert_same_meaning(before, after)


def test_a_scale_along_other_axes_is_not_folded() -> None:
    affine = Affine(normal(4, 1), normal(4, 1))
    before = graph([("c", conv(), ("x",)), ("y", affine, ("c",))])
    assert names(fold_scales(before)) == names(before)


def test_the_scale_of_a_branch_is_folded() -> None:
    before = graph([("c", conv(padding="same"), ("x",)), ("y", ScaledAdd(0.25), ("x", "c"))])
    after = fold_branch_scales(before)
    assert isinstance(after["y"].op, Add)
    assert_same_meaning(before, after)


def test_rescaling_and_normalization_become_one() -> None:
    one = as_array(1.0).reshape(())
    steps: Steps = [
        ("a", Affine(one / 255, one / 2), ("x",)),
        ("b", Normalization(normal(4), normal(4) ** 2 + 1), ("a",)),
        ("c", Affine(normal(4) + 3, 0 * one), ("b",)),
    ]
    before = graph(steps, "c")
    after = merge_scales(before)
    assert names(after) == ["x", "c"]
    assert_same_meaning(before, after)


def test_scales_that_are_not_finite_stay() -> None:
    one = as_array(1.0).reshape(())
    infinite = as_array(np.inf).reshape(())
    steps: Steps = [("a", Affine(infinite, one), ("x",)), ("b", Affine(one, one), ("a",))]
    assert names(merge_scales(graph(steps, "b"))) == ["x", "a", "b"]


@pytest.mark.parametrize("op", [batch_norm(), Affine(normal(4), normal(4))])
def test_scales_apply_activations_that_clip(op: Op) -> None:
    for activation, count in ((RELU, 2), (Activation("tanh"), 3)):
        before = graph([("b", op, ("x",)), ("y", activation, ("b",))])
        after = fuse_activation(before)
        assert len(after.nodes) == count
        assert_same_meaning(before, after)
