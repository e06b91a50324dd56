"""Channels scaled inside of the convolution that reads them: the same bits as two steps."""

from __future__ import annotations

import numpy as np
import pytest

from cnnkern.codegen.isa import Isa, available
from cnnkern.errors import ShapeError
from cnnkern.graph import Graph, Op
from cnnkern.ops.activation import Activation
from cnnkern.ops.conv import Conv
from cnnkern.ops.merge import Add, Multiply
from cnnkern.ops.pairs import GatedConv
from cnnkern.passes import gate_convolutions, optimise
from support import evaluate, graph_of, integers, run_kernels

SIZES = ((1, 5, 7, 20, 9), (3, 14, 14, 48, 70), (2, 7, 7, 512, 16))  # N, H, W, C, OC


def block(C: int, OC: int, rng: np.random.Generator, **options: object) -> Graph:
    """Return relu(conv(gate * x) + r) with small integers for weights."""
    conv = Conv(integers(rng, 1, 1, C, OC), integers(rng, OC), **options)  # type: ignore[arg-type]
    return graph_of(
        {"x": (None, None, None, C), "g": (None, 1, 1, C), "r": (None, None, None, OC)},
        [
            ("scaled", Multiply(), ("g", "x")),
            ("c", conv, ("scaled",)),
            ("sum", Add(), ("c", "r")),
            ("y", Activation("relu"), ("sum",)),
        ],
    )


@pytest.mark.parametrize("isa", available(), ids=lambda isa: isa.name)
@pytest.mark.parametrize("strides", [(1, 1), (2, 1)])
@pytest.mark.parametrize("size", SIZES)
def test_exact_on_integers(
    isa: Isa, strides: tuple[int, int], size: tuple[int, int, int, int, int]
) -> None:
    rng = np.random.default_rng(3)
    N, H, W, C, OC = size
    graph = block(C, OC, rng, strides=strides, padding="same")
    gated = optimise(graph)
    assert [type(node.op) for node in gated.nodes[3:]] == [GatedConv]
    OH = -(-H // strides[0])
    inputs = integers(rng, N, H, W, C), integers(rng, N, 1, 1, C), integers(rng, N, OH, W, OC)
    for n_threads in (1, 3):
        (y,) = run_kernels(gated, *inputs, isa=isa, n_threads=n_threads)
        np.testing.assert_array_equal(y, evaluate(graph, *inputs)[0])
    np.testing.assert_array_equal(evaluate(gated, *inputs)[0], evaluate(graph, *inputs)[0])


def test_the_same_bits_as_two_steps() -> None:
    rng = np.random.default_rng(4)
    graph = block(96, 24, rng)
    shapes = (2, 13, 9, 96), (2, 1, 1, 96), (2, 13, 9, 24)
    inputs = [rng.standard_normal(shape, np.float32) for shape in shapes]
    (y,) = run_kernels(optimise(graph), *inputs, n_threads=2)
    np.testing.assert_array_equal(y, run_kernels(graph, *inputs)[0])


@pytest.mark.parametrize(
    ("gate", "conv"),
    [
        ((None, 1, 1, 8), Conv(np.ones((3, 3, 8, 4), np.float32))),
        ((None, 1, 1, 8), Conv(np.ones((1, 1, 4, 4), np.float32), groups=2)),
        (
            (None, 1, 1, 8),
            Conv(np.ones((1, 1, 8, 4), np.float32), padding=((1, 0), (0, 0))),
        ),
        ((None, 9, 1, 8), Conv(np.ones((1, 1, 8, 4), np.float32))),
        ((None, 1, 1, 1), Conv(np.ones((1, 1, 8, 4), np.float32))),
        ((None, 9, 9, 8), Conv(np.ones((1, 1, 8, 4), np.float32))),
    ],
)
def test_products_that_stay(gate: tuple[int | None, ...], conv: Op) -> None:
    inputs = {"x": (None, 9, 9, 8), "g": gate}
    graph = graph_of(inputs, [("p", Multiply(), ("x", "g")), ("y", conv, ("p",))])
    assert gate_convolutions(graph) == graph


def test_a_product_that_others_read_stays() -> None:
    conv = Conv(np.ones((1, 1, 8, 4), np.float32))
    steps = [("p", Multiply(), ("x", "g")), ("y", conv, ("p",))]
    graph = graph_of({"x": (None, 9, 9, 8), "g": (None, 1, 1, 8)}, steps, "y", "p")
    assert gate_convolutions(graph) == graph


def test_a_gate_of_another_shape_is_refused() -> None:
    op = GatedConv(Conv(np.ones((1, 1, 8, 4), np.float32)))
    with pytest.raises(ShapeError, match="one pixel of 8 factors"):
        op.infer_shape((None, 9, 9, 8), (None, 1, 9, 8))
