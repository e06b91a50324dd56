"""Sums in parts: exact where sums are, the same bits whatever the tile, smaller errors."""

from __future__ import annotations

import numpy as np
import pytest

from cnnkern.codegen.isa import Isa, available
from cnnkern.graph import Array, Graph
from cnnkern.ops.conv import Conv
from cnnkern.ops.dense import Dense
from cnnkern.plan import Constants, make_plan
from cnnkern.plan.matrix import PART
from support import evaluate, graph_of, run_kernels

# taps, C, OC, groups: runs shorter than a part, as long, longer, of several parts and a rest
SHAPES = (
    (3, 8, 5, 1),
    (3, 50, 40, 1),
    (1, PART, 33, 1),
    (1, 3 * PART + 7, 70, 1),
    (3, 96, 8, 2),
)


def conv(taps: int, C: int, OC: int, groups: int, values: Array) -> Graph:
    """Return a SAME convolution of 9 x 7 pixels with filters and bias drawn from `values`."""
    filters = np.resize(values, (taps, taps, C // groups, OC))
    op = Conv(filters, np.resize(values, OC), padding="same", groups=groups)
    return graph_of({"x": (None, 9, 7, C)}, [("y", op, ("x",))])


@pytest.mark.parametrize("isa", available(), ids=lambda isa: isa.name)
@pytest.mark.parametrize("shape", SHAPES)
def test_exact_on_integers(isa: Isa, shape: tuple[int, int, int, int]) -> None:
    rng = np.random.default_rng(1)
    graph = conv(*shape, rng.integers(-3, 4, 4099).astype(np.float32))
    x = rng.integers(-3, 4, (2, 9, 7, shape[1])).astype(np.float32)
    (y,) = run_kernels(graph, x, isa=isa, n_threads=2, in_parts=True)
    np.testing.assert_array_equal(y, evaluate(graph, x)[0])


@pytest.mark.parametrize("shape", SHAPES)
def test_the_same_bits_in_every_tile(shape: tuple[int, int, int, int]) -> None:
    """One image ends in other tile heights than three."""
    rng = np.random.default_rng(2)
    graph = conv(*shape, rng.standard_normal(4099, np.float32))
    x = rng.standard_normal((3, 9, 7, shape[1]), np.float32)
    (y,) = run_kernels(graph, x, in_parts=True)
    (last,) = run_kernels(graph, x[2:], n_threads=3, in_parts=True)
    np.testing.assert_array_equal(last, y[2:])


def test_long_sums_round_less() -> None:
    rng = np.random.default_rng(3)
    weights, x = (rng.standard_normal(s, np.float32) for s in ((4096, 64), (32, 4096)))
    graph = graph_of({"x": (None, 4096)}, [("y", Dense(weights, None), ("x",))])
    exact = x.astype(np.float64) @ weights
    one, parts = (
        np.sqrt(np.mean((run_kernels(graph, x, in_parts=p)[0] - exact) ** 2))
        for p in (False, True)
    )
    assert 0 < parts < 0.4 * one


def test_part_of_a_plan() -> None:
    cases = (False, 200, 200), (True, PART, PART), (True, 200, PART), (True, 5000, 64)
    for in_parts, K, part in cases:
        graph = graph_of({"x": (None, K)}, [("y", Dense(np.ones((K, 3)), None), ("x",))])
        plan = make_plan(graph, {"x": (1, K)}, Constants(), in_parts=in_parts)
        assert [step.fields["part"] for step in plan.steps] == [part]
