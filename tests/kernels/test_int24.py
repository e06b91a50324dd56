"""Filters of 24 bits: exact where 24 bits are enough, else rounded less than a sum is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnkern import passes
from cnnkern.codegen.isa import Isa, available
from cnnkern.graph import Graph
from cnnkern.ops.activation import Activation
from cnnkern.ops.dense import Dense
from cnnkern.ops.merge import Add
from cnnkern.passes import optimise
from cnnkern.plan import Constants, make_plan
from support import evaluate, graph_of, integers, run_kernels

KERNEL = "f32_int24_conv"
each_isa = pytest.mark.parametrize("isa", available(), ids=lambda isa: isa.name)


def graph_with(dense: Dense, *rows: int) -> Graph:
    return graph_of({"x": (None, *rows, dense.weight.shape[0])}, [("y", dense, ("x",))])


def kernels_of(graph: Graph, *shape: int) -> list[str]:
    plan = make_plan(graph, {"x": shape}, Constants())
    return [step.kernel for step in plan.steps]


@each_isa
@given(st.data())
def test_integers_give_the_same_bits(isa: Isa, data: st.DataObject) -> None:
    """Rows of one tile and of several, panels that are full and not, both epilogues."""
    rows, N = data.draw(st.integers(1, 31)), data.draw(st.integers(1, 5 * isa.tile_columns + 3))
    K, seed = data.draw(st.integers(1, 90)), data.draw(st.integers(0, 99))
    rng = np.random.default_rng(seed)
    dense = Dense(integers(rng, K, N), integers(rng, N), may_round=True)
    graph = graph_of(
        {"x": (None, K), "r": (None, N)},
        [("d", dense, ("x",)), ("a", Add(), ("r", "d")), ("y", Activation("relu"), ("a",))],
    )
    inputs = integers(rng, rows, K), integers(rng, rows, N)
    (y,) = run_kernels(optimise(graph, "strict"), *inputs, isa=isa, n_threads=2)
    np.testing.assert_array_equal(y, *evaluate(graph, *inputs))


@each_isa
@pytest.mark.parametrize("activation", ["leaky_relu", "sigmoid"])
def test_epilogues(isa: Isa, activation: str) -> None:
    rng = np.random.default_rng(3)
    w, x = rng.standard_normal((200, 70), np.float32), rng.standard_normal((3, 200), np.float32)
    graphs = [graph_with(Dense(w, None, Activation(activation), may_round=r)) for r in (0, 1)]
    assert kernels_of(graphs[1], *x.shape) == [KERNEL]
    float32, int24 = (run_kernels(graph, x, isa=isa)[0] for graph in graphs)
    np.testing.assert_allclose(int24, float32, rtol=1e-5, atol=1e-5)


@each_isa
def test_the_same_bits_alone(isa: Isa) -> None:
    """One row takes several panels at once."""
    rng = np.random.default_rng(4)
    for n_panels in range(1, 2 * isa.panels_of_pixel + 1):
        N = n_panels * isa.tile_columns - 5
        dense = Dense(rng.standard_normal((61, N), np.float32), may_round=True)
        x = rng.standard_normal((15, 61), np.float32)
        (together,) = run_kernels(graph_with(dense), x, isa=isa)
        (alone,) = run_kernels(graph_with(dense), x[2:3], isa=isa, n_threads=2)
        np.testing.assert_array_equal(alone, together[2:3])


def test_a_long_sum_rounds_more() -> None:
    """Against float64, with a number in each column that is ten times as large as most."""
    rng = np.random.default_rng(5)
    w, x = rng.standard_normal((8192, 96), np.float32), rng.random((4, 8192), np.float32)
    w[rng.integers(0, 8192, 96), np.arange(96)] *= 10
    exact = x.astype(np.float64) @ w

    def error(may_round: bool) -> float:
        (y,) = run_kernels(graph_with(Dense(w, may_round=may_round)), x)
        return float(np.sqrt(np.mean((y - exact) ** 2)))

    assert error(True) < 1.2 * error(False)


@each_isa
def test_columns_of_any_size(isa: Isa) -> None:
    rng = np.random.default_rng(6)
    sizes = (10 ** rng.uniform(-20, 20, 48)).astype(np.float32)
    sizes[[3, 40]] = 0
    w, b = rng.standard_normal((300, 48), np.float32) * sizes, sizes * np.float32(0.5)
    x = rng.standard_normal((2, 300), np.float32)
    (y,) = run_kernels(graph_with(Dense(w, b, may_round=True)), x, isa=isa)
    exact = x.astype(np.float64) @ w + b
    assert (np.abs(y - exact) <= 1e-5 * np.abs(exact).max(axis=0)).all()


@each_isa
@pytest.mark.parametrize("special", [np.nan, np.inf])
def test_a_column_that_is_not_finite(isa: Isa, special: float) -> None:
    w = np.ones((40, 37), np.float32)
    w[7, 35] = special
    (y,) = run_kernels(
        graph_with(Dense(w, may_round=True)), np.ones((1, 40), np.float32), isa=isa
    )
    assert np.flatnonzero(y != 40).tolist() == [35]
    assert np.isnan(y[0, 35])


def test_where_they_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large matrices of few rows per sample, with precision="fast", whatever the batch."""
    monkeypatch.setattr(passes, "INT24_MIN_NBYTES", 4 * 64 * 64)
    large, small = (Dense(np.ones((64, N), np.float32)) for N in (64, 63))
    for batch in (1, 50):
        assert kernels_of(optimise(graph_with(large)), batch, 64) == [KERNEL]
    assert kernels_of(optimise(graph_with(large, 7)), 1, 7, 64) == [KERNEL]
    assert kernels_of(optimise(graph_with(large, 8)), 1, 8, 64) == ["f32_conv"]
    assert kernels_of(optimise(graph_with(large), "strict"), 1, 64) == ["f32_conv"]
    assert kernels_of(optimise(graph_with(small)), 1, 64) == ["f32_conv"]
