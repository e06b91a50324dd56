"""Depthwise convolutions: pairs of rows, blocks of channels and bands of rows, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from cnnkern.codegen.depthwise import WIDTHS
from cnnkern.codegen.isa import ISAS, Isa, available
from cnnkern.graph import Array, Graph
from cnnkern.ops.activation import Activation
from cnnkern.ops.depthwise import DepthwiseConv
from cnnkern.ops.window import MAX_RATE, Padding
from cnnkern.passes import optimise
from cnnkern.plan import Constants, depthwise, make_plan
from support import evaluate, graph_of, integers, run_kernels

# Every mix of tile widths; window rows outside at the top, at the bottom, at both, nowhere.
WIDE = max(WIDTHS)
SIZES = [(H, W) for H in (1, 2, 3, 4, 5, 8) for W in (1, 3, 5, WIDE + 3, 2 * WIDE + 2)]
EACH = pytest.mark.parametrize("isa", available(), ids=lambda isa: isa.name)


def draw(
    H: int, W: int, C: int, taps: int, padding: Padding = "same", stride: int = 1,
    rates: tuple[int, int] = (1, 1),
) -> tuple[Graph, Array]:  # fmt: skip
    """Return a depthwise convolution of integers, with ReLU6, and an input of two images."""
    rng = np.random.default_rng(H * W + C)
    filters, bias = integers(rng, taps, taps, C, 1), integers(rng, C)
    op = DepthwiseConv(
        filters, bias, (stride, stride), padding, rates, activation=Activation("relu6")
    )
    return graph_of({"x": (None, H, W, C)}, [("y", op, ("x",))]), integers(rng, 2, H, W, C)


def field(graph: Graph, x: Array, isa: Isa, name: str) -> int:
    """Return a field of the depthwise call."""
    plan = make_plan(graph, {"x": x.shape}, Constants(), isa=isa)
    return next(s for s in plan.steps if "depthwise" in s.kernel).fields[name]


def assert_exact(graph: Graph, x: Array, isa: Isa, n_threads: int = 1) -> None:
    (y,) = run_kernels(graph, x, isa=isa, n_threads=n_threads)
    np.testing.assert_array_equal(y, evaluate(graph, x)[0])


@EACH
@pytest.mark.parametrize("taps", [3, 5, 7])
def test_rows_alone_and_in_pairs(isa: Isa, taps: int) -> None:
    for H, W in SIZES:
        for C in (isa.lanes - 1, 2 * isa.lanes + 3):
            graph, x = draw(H, W, C, taps)
            assert field(graph, x, isa, "rows_at_once") == isa.depthwise_rows(taps, 1)
            assert_exact(graph, x, isa)


def test_pairs_need_registers_for_both_rows() -> None:
    held = {
        isa.name: [taps for taps in (1, 3, 5, 7) if isa.depthwise_rows(taps, 1) == 2]
        for isa in ISAS
    }
    assert held == {"avx512f": [3, 5, 7], "avx2": [3], "generic": [3]}


@EACH
def test_pairs_of_windows_that_leave_no_border(isa: Isa) -> None:
    for H, W in ((3, 9), (4, 9), (9, 18)):
        assert_exact(*draw(H, W, 2 * isa.lanes, 3, "valid"), isa)


@EACH
@pytest.mark.parametrize("n_threads", [1, 3])
def test_threads_share_pairs_of_rows(isa: Isa, n_threads: int, always_parallel: None) -> None:
    for H in (3, 7, 8, 15):  # blocks of channels, too, where rows are few
        assert_exact(*draw(H, 6, 9 * isa.lanes + 1, 3), isa, n_threads)


@EACH
@pytest.mark.parametrize("rates", [(2, 2), (1, 2), (4, 3), (2, 1), (5, 5)])
@pytest.mark.parametrize("padding", ["same", "valid", ((10, 9), (11, 9))])
def test_dilated_filters_fall_apart(
    isa: Isa, rates: tuple[int, int], padding: Padding, always_parallel: None
) -> None:
    """Into dense ones on images of which some have fewer pixels, or none."""
    for H, W, taps in ((1, 1, 3), (3, 2, 5), (12, 15, 3), (22, WIDE + 25, 5)):
        if padding == "valid" and H < 12:
            continue
        graph, x = draw(H, W, isa.lanes + 3, taps, padding, rates=rates)
        plan = make_plan(graph, {"x": x.shape}, Constants(), isa=isa)
        names = {step.kernel for step in plan.steps if "depthwise" in step.kernel}
        is_near = max(rates) <= MAX_RATE
        assert names == {f"f32_depthwise_k{taps}s1" if is_near else "f32_depthwise"}
        assert_exact(graph, x, isa, n_threads=2)


@EACH
@pytest.mark.parametrize(("taps", "stride"), [(3, 2), (5, 1), (5, 2), (7, 1)])
@pytest.mark.parametrize("n_threads", [1, 3])
def test_large_windows_in_blocks_of_channels(
    isa: Isa, taps: int, stride: int, n_threads: int, monkeypatch: pytest.MonkeyPatch,
    always_parallel: None,
) -> None:  # fmt: skip
    monkeypatch.setattr(depthwise, "MAX_WINDOW_NBYTES", 0)
    monkeypatch.setattr(depthwise, "BLOCK_NBYTES", 8 * isa.lanes)
    for H in (1, 5, 15, 30):
        graph, x = draw(H, 8, 5 * isa.lanes + 3, taps, stride=stride)
        if isa.depthwise_rows(taps, stride) == 1:
            assert field(graph, x, isa, "channels_per_task") == 2 * isa.lanes
        assert_exact(graph, x, isa, n_threads)


@EACH
@pytest.mark.parametrize("taps", [3, 5])
def test_each_pixel_is_activated_once(
    isa: Isa, taps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(depthwise, "ACTIVATED_NBYTES", 0)
    for H, W in ((5, 4), (6, 2 * WIDE + 5)):
        graph, x = draw(H, W, 2 * isa.lanes + 1, taps)
        op = DepthwiseConv(graph["y"].op.filter, None, padding="same")
        steps = [("d", op, ("x",)), ("y", Activation("silu"), ("d",))]
        graph = optimise(graph_of({"x": (None, *x.shape[1:])}, steps))
        assert [node.name for node in graph.nodes] == ["x", "y"]
        (y,) = run_kernels(graph, x, isa=isa)
        np.testing.assert_allclose(y, evaluate(graph, x)[0], rtol=1e-6, atol=1e-6)


@EACH
@pytest.mark.parametrize("C", [32, 512])
def test_a_multiplier_that_divides_no_gap(isa: Isa, C: int) -> None:
    """Three of these channels make pixels (512) or rows (32) with a gap behind them."""
    rng = np.random.default_rng(C)
    op = DepthwiseConv(integers(rng, 3, 3, C, 3), None, padding="same")
    graph = graph_of({"x": (None, 3, 4, C)}, [("y", op, ("x",))])
    assert_exact(graph, integers(rng, 2, 3, 4, C), isa)
