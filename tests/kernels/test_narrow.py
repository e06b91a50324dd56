"""Convolutions to few columns, whose vectors lie along the sum.

Random ones are among the cases of test_exact.py.
"""

import numpy as np
import pytest

from cnnkern.codegen.isa import GENERIC, NARROW_COLUMNS, Isa, available, best
from cnnkern.graph import Graph, Op
from cnnkern.kernels.pack import pack_columns
from cnnkern.ops.conv import Conv
from cnnkern.ops.dense import Dense
from cnnkern.ops.merge import Concatenate
from cnnkern.ops.transpose import ConvTranspose
from cnnkern.plan import Constants, make_plan
from support import evaluate, graph_of, integers, run_kernels

LANES = best().lanes


def layer(C: int, op: Op) -> Graph:
    return graph_of({"x": (None, None, None, C)}, [("y", op, ("x",))])


def kernels(graph: Graph, *shape: int) -> set[str]:
    return {step.kernel for step in make_plan(graph, {"x": shape}, Constants()).steps}


def test_packed_by_hand() -> None:
    """Two runs of 5 floats in vectors of 4, two columns, the bias in front."""
    w = np.arange(1, 21, dtype=np.float32).reshape(10, 2)
    packed = pack_columns(w, np.array([7, 8], np.float32), 5, GENERIC)
    assert packed.tolist() == [
        [7, 8, 0, 0],
        [1, 3, 5, 7], [2, 4, 6, 8], [9, 0, 0, 0], [10, 0, 0, 0],
        [11, 13, 15, 17], [12, 14, 16, 18], [19, 0, 0, 0], [20, 0, 0, 0],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("C", "OC", "is_narrow"),
    [(LANES, 1, True), (LANES, 3, True), (LANES, 4, False), (LANES - 1, 1, False)],
)
def test_few_columns_of_many_channels(C: int, OC: int, is_narrow: bool) -> None:
    rng = np.random.default_rng(0)
    for op in (
        Conv(integers(rng, 3, 3, C, OC)),
        Dense(integers(rng, C, OC)),
        ConvTranspose(integers(rng, 3, 3, OC, C), strides=(2, 2)),
    ):
        assert ("f32_narrow_conv" in kernels(layer(C, op), 1, 4, 5, C)) == is_narrow


def test_long_sums_of_strict_precision_are_taken_in_parts() -> None:
    """A lane may have 128 products."""
    C = 128 * LANES
    for channels, kernel in ((C, "f32_narrow_conv"), (C + 1, "f32_conv")):
        graph = layer(channels, Dense(np.ones((channels, 1), np.float32)))
        (step,) = make_plan(graph, {"x": (1, 1, 1, channels)}, Constants(), in_parts=True).steps
        assert step.kernel == kernel


@pytest.mark.parametrize("isa", available(), ids=lambda isa: isa.name)
@pytest.mark.parametrize("OC", range(1, NARROW_COLUMNS + 1))
def test_transposed_on_integers(isa: Isa, OC: int) -> None:
    """Phases with one, two and four taps; one size leaves phases without any."""
    rng = np.random.default_rng(OC)
    for size in (1, 3):
        op = ConvTranspose(integers(rng, size, size, OC, 37), integers(rng, OC), (2, 2), "same")
        graph, x = layer(37, op), integers(rng, 2, 5, 6, 37)
        (y,) = run_kernels(graph, x, isa=isa)
        np.testing.assert_array_equal(y, evaluate(graph, x)[0])


@pytest.mark.parametrize("isa", available(), ids=lambda isa: isa.name)
def test_other_pixels_change_no_bit(isa: Isa) -> None:
    rng = np.random.default_rng(1)
    graph = layer(67, Conv(rng.standard_normal((3, 3, 67, 2), np.float32), padding="same"))
    x = rng.standard_normal((3, 7, 9, 67), np.float32)
    (y,) = run_kernels(graph, x, isa=isa, n_threads=2)
    for image, expected in zip(x, y, strict=True):
        np.testing.assert_array_equal(run_kernels(graph, image[None], isa=isa)[0][0], expected)


@pytest.mark.parametrize("isa", available(), ids=lambda isa: isa.name)
def test_what_stands_behind_a_run_does_not_count(isa: Isa) -> None:
    """The channels that are read have others, all NaN, beside them."""
    rng = np.random.default_rng(2)
    first, second = integers(rng, 1, 1, 4, 19), integers(rng, 1, 1, 4, 5)
    steps = [
        ("a", Conv(first), ("x",)),
        ("b", Conv(second, np.full(5, np.nan, np.float32)), ("x",)),
        ("ab", Concatenate(), ("a", "b")),
        ("y", Conv(integers(rng, 2, 2, 19, 1), padding="same"), ("a",)),
    ]
    graph = graph_of({"x": (None, None, None, 4)}, steps, "ab", "y")
    x = integers(rng, 1, 6, 6, 4)
    _, y = run_kernels(graph, x, isa=isa)
    np.testing.assert_array_equal(y, evaluate(graph, x)[1])
    assert np.isfinite(y).all()
