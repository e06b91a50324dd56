"""Convolutions of one channel to few, whose vectors lie along the rows of the image.

Random ones are among the cases of test_exact.py, between guard pages too.
"""

import numpy as np
import pytest

from cnnkern.codegen.isa import PLANE_VECTORS, Isa, available, best
from cnnkern.graph import Graph, Op
from cnnkern.kernels.pack import pack_rows
from cnnkern.ops.activation import Activation
from cnnkern.ops.conv import Conv
from cnnkern.ops.depthwise import DepthwiseConv
from cnnkern.ops.merge import Add, Concatenate
from cnnkern.passes import optimise
from cnnkern.plan import Constants, make_plan
from support import evaluate, graph_of, integers, run_kernels

FEW = best().plane_columns
ISAS = pytest.mark.parametrize("isa", available(), ids=lambda isa: isa.name)


def layer(op: Op, C: int = 1, rank: int = 2) -> Graph:
    return graph_of({"x": (*[None] * (1 + rank), C)}, [("y", op, ("x",))])


def kernels(graph: Graph, *shape: int, in_parts: bool = False) -> list[str]:
    plan = make_plan(graph, {"x": shape}, Constants(), in_parts=in_parts)
    return [step.kernel for step in plan.steps]


def test_packed_by_hand() -> None:
    w = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
    assert pack_rows(w, np.array([7, 8, 9], np.float32)).tolist() == [
        [7, 8, 9], [1, 2, 3], [4, 5, 6],
    ]  # fmt: skip
    assert pack_rows(w, None).tolist() == [[0, 0, 0], [1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize(
    ("C", "OC", "strides", "is_plane"),
    [
        (1, 1, (1, 1), True), (1, FEW, (1, 1), True), (1, FEW, (3, 1), True),
        (1, FEW + 1, (1, 1), False), (2, 1, (1, 1), False), (1, 1, (1, 2), False),
    ],
)  # fmt: skip
def test_few_columns_of_one_channel(
    C: int, OC: int, strides: tuple[int, int], is_plane: bool
) -> None:
    op = Conv(np.ones((2, 3, C, OC), np.float32), strides=strides)
    assert ("f32_plane_conv" in kernels(layer(op, C), 1, 9, 9, C)) == is_plane


def test_one_product_is_no_plane() -> None:
    assert kernels(layer(Conv(np.ones((1, 1, 1, 2), np.float32))), 1, 9, 9, 1) == ["f32_conv"]


def test_pixels_must_touch() -> None:
    """Those of a part of a concatenation do not; two such parts are two convolutions."""
    ops = [Conv(np.ones((3, 3, 1, 2), np.float32)) for _ in range(2)]
    steps = [("a", ops[0], ("x",)), ("b", ops[1], ("x",)), ("y", Concatenate(), ("a", "b"))]
    graph = graph_of({"x": (None, None, None, 1)}, steps)
    assert kernels(graph, 1, 9, 9, 1) == ["f32_conv", "f32_conv"]


def test_a_residual_is_added_by_others() -> None:
    rng = np.random.default_rng(0)
    first, second = integers(rng, 1, 1, 1, 2), integers(rng, 3, 3, 1, 2)
    steps = [
        ("a", Conv(first), ("x",)),
        ("b", Conv(second, padding="same"), ("x",)),
        ("y", Add(), ("a", "b")),
    ]
    graph = optimise(graph_of({"x": (None, None, None, 1)}, steps))
    assert set(kernels(graph, 1, 9, 9, 1)) == {"f32_conv", "f32_halo"}
    x = integers(rng, 2, 9, 9, 1)
    np.testing.assert_array_equal(run_kernels(graph, x)[0], evaluate(graph, x)[0])


def test_long_sums_of_strict_precision_are_taken_in_parts() -> None:
    for taps, kernel in ((128, "f32_plane_conv"), (129, "f32_conv")):
        w = np.ones((taps, 1, 2), np.float32)
        graph = layer(Conv(w, strides=(1,), dilation_rate=(1,)), rank=1)
        assert kernels(graph, 1, 200, 1, in_parts=True) == [kernel]


@ISAS
def test_every_width_on_integers(isa: Isa) -> None:
    """Whole vectors, fewer of them, and pixels left over, in the last row and elsewhere."""
    rng = np.random.default_rng(1)
    for OC in range(1, isa.plane_columns + 1):
        op = Conv(integers(rng, 2, 3, 1, OC), integers(rng, OC))
        for OW in range(1, 2 * PLANE_VECTORS * isa.lanes + 2):
            graph, x = layer(op), integers(rng, 1, 4, OW + 2, 1)
            (y,) = run_kernels(graph, x, isa=isa)
            np.testing.assert_array_equal(y, evaluate(graph, x)[0], err_msg=f"{OC} {OW}")


@ISAS
@pytest.mark.parametrize(
    ("rank", "options"),
    [
        (1, {"padding": "causal", "strides": (1,), "dilation_rate": (3,)}),
        (2, {"padding": "same", "strides": (2, 1)}),
        (2, {"padding": "same", "dilation_rate": (2, 2)}),
        (3, {"padding": "same", "strides": (2, 3, 1), "dilation_rate": (1, 1, 1)}),
    ],
)
def test_windows_on_integers(isa: Isa, rank: int, options: dict) -> None:
    """All rows at once and shared by two threads."""
    rng = np.random.default_rng(2)
    op = Conv(integers(rng, *[3] * rank, 1, 5), **options)
    graph, x = layer(op, rank=rank), integers(rng, 3, *[7] * (rank - 1), 21, 1)
    assert "f32_plane_conv" in kernels(graph, *x.shape)
    for n_threads in (1, 2):
        (y,) = run_kernels(graph, x, isa=isa, n_threads=n_threads)
        np.testing.assert_array_equal(y, evaluate(graph, x)[0])


@ISAS
@pytest.mark.parametrize("name", ["relu", "tanh"])
def test_rounds_like_the_other_tiles(isa: Isa, name: str) -> None:
    """More columns change no bit of the first ones."""
    rng = np.random.default_rng(3)
    few, w = isa.plane_columns, rng.standard_normal((5, 5, 1, 32), np.float32)
    b, x = rng.standard_normal(32, np.float32), rng.standard_normal((2, 11, 29, 1), np.float32)
    results = [
        run_kernels(
            layer(Conv(w[..., :n], b[:n], padding="same", activation=Activation(name))),
            x, isa=isa,
        )[0]
        for n in (few, 32)
    ]  # fmt: skip
    np.testing.assert_array_equal(results[0], results[1][..., :few])


@ISAS
def test_before_a_depthwise_convolution_in_bands(isa: Isa, monkeypatch) -> None:
    monkeypatch.setattr("cnnkern.plan.bands.MIN_IMAGE_FLOATS", 0)
    rng = np.random.default_rng(4)
    steps = [
        ("a", Conv(integers(rng, 3, 3, 1, 4), padding="same"), ("x",)),
        ("y", DepthwiseConv(integers(rng, 3, 3, 4, 1), padding="same"), ("a",)),
    ]
    graph = optimise(graph_of({"x": (None, None, None, 1)}, steps))
    x = integers(rng, 2, 96, 40, 1)
    plan = make_plan(graph, {"x": x.shape}, Constants(), isa=isa)
    bands = [step for step in plan.steps if step.kernel == "f32_bands"]
    assert [step.fields["conv"].kernel for step in bands] == ["f32_plane_conv"]
    np.testing.assert_array_equal(run_kernels(graph, x, isa=isa)[0], evaluate(graph, x)[0])
