"""A convolution and its reader as one step: the same bits as two steps, less memory."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from cnnkern.codegen.isa import Isa, available
from cnnkern.graph import Graph
from cnnkern.ops.activation import Activation
from cnnkern.ops.conv import Conv
from cnnkern.ops.depthwise import DepthwiseConv
from cnnkern.ops.pairs import ConvInBands
from cnnkern.ops.pool import AveragePool, MaxPool, Pool
from cnnkern.ops.window import RowWindow
from cnnkern.passes import optimise, pair_with_readers, pair_with_tiles
from cnnkern.plan import Constants, bands, make_plan
from cnnkern.plan import winograd as winograd_plan
from support import evaluate, graph_of, integers, run_kernels

WINDOWS = (
    ((3, 3), (1, 1)),
    ((3, 3), (2, 2)),
    ((5, 5), (1, 1)),
    ((5, 5), (2, 2)),
    ((2, 3), (3, 1)),  # rows that no window reads
    ((3, 3), (2, 1)),
)
SIZES = ((1, 9, 7), (2, 17, 16), (3, 30, 5))  # N, H, W


@pytest.fixture(autouse=True)
def _narrow_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every pair be one step, of several tiles of a few rows."""
    monkeypatch.setattr(bands, "MIN_IMAGE_FLOATS", 0)
    monkeypatch.setattr(bands, "MAX_SHARE_ANEW", 99)
    monkeypatch.setattr(bands, "MIN_TILES", 3)
    monkeypatch.setattr(bands, "BAND_NBYTES", 6000)


def pair(
    size: tuple[int, int, int], window: tuple[tuple[int, ...], ...], padding: str,
    function: str, rng: np.random.Generator, taps: int = 1, C: int = 24, channels: int = 4,
) -> Graph:  # fmt: skip
    """Return depthwise(activation(conv(x))) with small integers for weights."""
    sizes, strides = window
    _, H, W = size
    options = {"strides": strides, "padding": padding}
    conv = Conv(integers(rng, taps, taps, channels, C), integers(rng, C), padding="same")
    depthwise = DepthwiseConv(integers(rng, *sizes, C, 1), integers(rng, C), **options)  # type: ignore[arg-type]
    steps = [
        ("c", conv, ("x",)),
        ("a", Activation(function), ("c",)),
        ("d", depthwise, ("a",)),
        ("y", Activation("relu"), ("d",)),
    ]
    return graph_of({"x": (None, H, W, channels)}, steps)


def kernels(graph: Graph, shape: tuple[int, ...]) -> list[str]:
    return [step.kernel for step in make_plan(graph, {"x": shape}, Constants()).steps]


@pytest.mark.parametrize("isa", available(), ids=lambda isa: isa.name)
@pytest.mark.parametrize(("size", "padding"), list(product(SIZES, ("same", "valid"))))
def test_exact_on_integers(isa: Isa, size: tuple[int, int, int], padding: str) -> None:
    rng = np.random.default_rng(3)
    for number, window in enumerate(WINDOWS):
        C = (24, 32)[number // 2 % 2]  # rows without and with a gap
        graph = pair(size, window, padding, "relu6", rng, taps=1 + 2 * (number % 2), C=C)
        paired = optimise(graph, "strict")
        x = integers(rng, *size, 4)
        assert "f32_bands" in kernels(paired, x.shape)
        for n_threads in (1, 3):
            (y,) = run_kernels(paired, x, isa=isa, n_threads=n_threads)
            np.testing.assert_array_equal(y, evaluate(graph, x)[0], err_msg=str(window))


@pytest.mark.parametrize("isa", available(), ids=lambda isa: isa.name)
@pytest.mark.parametrize("kernel", ["f32_plane_conv", "f32_narrow_conv"])
def test_convolutions_to_few_columns(isa: Isa, kernel: str) -> None:
    rng, size = np.random.default_rng(10), (2, 17, 16)
    taps, channels, C = (3, 1, isa.plane_columns) if "plane" in kernel else (1, 16, 2)
    graph = pair(size, WINDOWS[1], "same", "relu6", rng, taps, C, channels)
    paired, x = optimise(graph, "strict"), integers(rng, *size, channels)
    plan = make_plan(paired, {"x": x.shape}, Constants(), isa=isa)
    assert [s.fields["conv"].kernel for s in plan.steps if s.kernel == "f32_bands"] == [kernel]
    (y,) = run_kernels(paired, x, isa=isa, n_threads=2)
    np.testing.assert_array_equal(y, evaluate(graph, x)[0])


@pytest.mark.parametrize("isa", available(), ids=lambda isa: isa.name)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "pool",
    [
        MaxPool(), MaxPool((2, 2), (2, 2), "same"), MaxPool((3, 3), (3, 3), "same"),
        MaxPool((2, 3), (2, 1)), MaxPool((1, 2), (3, 1)), MaxPool((4, 2), (5, 1), "same"),
        AveragePool((2, 2), (2, 2), "same"), AveragePool((4, 4), (4, 3)),
    ],
    ids=repr,
)  # fmt: skip
def test_pooled_on_integers(isa: Isa, size: tuple[int, int, int], pool: Pool) -> None:
    rng = np.random.default_rng(8)
    conv = Conv(integers(rng, 3, 3, 3, 24), integers(rng, 24), padding="same")
    graph = graph_of({"x": (None, None, None, 3)}, [("c", conv, ("x",)), ("y", pool, ("c",))])
    paired, x = optimise(graph, "strict"), integers(rng, *size, 3)
    assert kernels(paired, x.shape)[-1] == "f32_bands"
    for n_threads in (1, 3):
        (y,) = run_kernels(paired, x, isa=isa, n_threads=n_threads)
        np.testing.assert_array_equal(y, evaluate(graph, x)[0])


def test_pooled_as_two_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bands, "MAX_K", 0)
    rng = np.random.default_rng(9)
    conv = Conv(integers(rng, 3, 3, 3, 8))
    graph = graph_of({"x": (None, 9, 9, 3)}, [("c", conv, ("x",)), ("y", MaxPool(), ("c",))])
    x = integers(rng, 2, 9, 9, 3)
    assert kernels(optimise(graph), x.shape) == ["f32_conv", "f32_max_pool"]
    np.testing.assert_array_equal(run_kernels(optimise(graph), x)[0], evaluate(graph, x)[0])


def test_the_same_bits_as_two_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    graph = optimise(pair((2, 33, 18), WINDOWS[0], "same", "silu", rng))
    x = rng.standard_normal((2, 33, 18, 4), np.float32)
    (y,) = run_kernels(graph, x, n_threads=2)
    monkeypatch.setattr(bands, "MAX_K", 0)
    assert "f32_bands" not in kernels(graph, x.shape)
    np.testing.assert_array_equal(y, run_kernels(graph, x, n_threads=2)[0])


@pytest.mark.parametrize(
    ("OH", "rows"),
    [(56, 4), (112, 4), (28, 2), (100, 5), (90, 5), (14, 1), (7, 1), (75, 5), (17, 1)],
)
def test_tiles_that_threads_share_evenly(
    monkeypatch: pytest.MonkeyPatch, OH: int, rows: int
) -> None:
    """Bands of up to 5 output rows, 14 of them in an image."""
    monkeypatch.setattr(bands, "MIN_TILES", 14)
    assert bands._rows_per_tile(OH, 6000 // 7, RowWindow(3, 1, 1)) == rows


def test_an_empty_batch_has_no_steps() -> None:
    graph = optimise(pair((1, 33, 18), WINDOWS[0], "same", "relu", np.random.default_rng(7)))
    assert kernels(graph, (0, 33, 18, 4)) == []
    assert run_kernels(graph, np.zeros((0, 33, 18, 4), np.float32))[0].shape == (0, 33, 18, 24)


@pytest.mark.parametrize("isa", available(), ids=lambda isa: isa.name)
@pytest.mark.parametrize(
    ("size", "rows_per_tile"), [((1, 24, 16), 1), ((2, 29, 33), 1), ((3, 117, 20), 3)]
)
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(
    ("taps", "stride", "is_pooled"), [(3, 1, False), (3, 1, True), (5, 1, False), (5, 2, False)]
)
@pytest.mark.usefixtures("always_parallel")
def test_rows_of_tiles_have_the_same_bits_as_two_steps(
    isa: Isa, size: tuple[int, int, int], rows_per_tile: int, padding: str, taps: int,
    stride: int, is_pooled: bool, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(bands, "MIN_TILED_FLOATS", 0)
    monkeypatch.setattr(bands, "BAND_NBYTES", rows_per_tile * 50_000 - 44_000)
    monkeypatch.setattr(winograd_plan, "BLOCK_NBYTES", 1)  # several blocks per row of tiles
    rng = np.random.default_rng(11)
    N, H, W = size
    first = Conv(integers(rng, 3, 3, 3, 33), integers(rng, 33), padding="same")
    filters = rng.standard_normal((taps, taps, 33, 40), np.float32)
    steps = [
        ("c", first, ("x",)),
        ("a", Activation("relu"), ("c",)),
        ("d", Conv(filters, integers(rng, 40), (stride, stride), padding), ("a",)),
        ("y", MaxPool() if is_pooled else Activation("relu"), ("d",)),
    ]
    graph = optimise(graph_of({"x": (None, H, W, 3)}, steps))
    x = integers(rng, N, H, W, 3)
    *_, step = make_plan(graph, {"x": x.shape}, Constants(), isa=isa).steps
    assert step.kernel == "f32_bands"
    assert (step.fields["rows_per_tile"] > 1) == (rows_per_tile > 1)
    results = [run_kernels(graph, x, isa=isa, n_threads=n)[0] for n in (1, 2, 3)]
    monkeypatch.setattr(bands, "MAX_K", 0)
    two_steps = kernels(graph, x.shape)
    assert "f32_bands" not in two_steps and "f32_conv" in two_steps
    expected = run_kernels(graph, x, isa=isa)[0]
    for y in results:
        np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"groups": 2}, {}),
        ({"dilation_rate": (2, 2)}, {}),
        ({"may_transform": True}, {}),
        ({}, {"dilation_rate": (2, 2)}),
        ({}, {"may_transform": False}),
        ({}, {"border": np.ones(40, np.float32)}),
    ],
)
def test_tiles_that_stay_apart(first: dict[str, object], second: dict[str, object]) -> None:
    channels = 8 // (2 if "groups" in first else 1)
    convs = (
        Conv(np.ones((3, 3, channels, 40), np.float32), **first),  # type: ignore[arg-type]
        Conv(np.ones((3, 3, 40, 40), np.float32), **{"may_transform": True} | second),  # type: ignore[arg-type]
    )
    steps = [("c", convs[0], ("x",)), ("y", convs[1], ("c",))]
    graph = graph_of({"x": (None, 32, 32, 8)}, steps)
    assert pair_with_tiles(graph) == graph


def test_filters_from_afar_are_not_read_for_each_row() -> None:
    shape = (1, 224, 224, 80)
    near, far = (
        Conv(np.ones((3, 3, 80, OC), np.float32), may_transform=True) for OC in (64, 96)
    )
    assert near.rows(shape) == RowWindow(8, 6, 0, in_tiles=True)
    assert far.rows(shape) is None


def test_the_tensor_between_has_no_storage() -> None:
    graph = pair((1, 64, 64), WINDOWS[0], "same", "relu", np.random.default_rng(5))
    paired = optimise(graph, "strict")
    assert [type(node.op) for node in paired.nodes[1:]] == [ConvInBands]
    plans = [make_plan(g, {"x": (1, 64, 64, 4)}, Constants()) for g in (graph, paired)]
    assert plans[1].arena_nbytes < 0.6 * plans[0].arena_nbytes


@pytest.mark.parametrize(
    ("conv", "depthwise"),
    [
        ({"groups": 2}, {}),
        ({"may_transform": True}, {}),
        ({}, {"filter": np.ones((3, 3, 4, 2), np.float32)}),
    ],
)
def test_pairs_that_stay_two(conv: dict[str, object], depthwise: dict[str, object]) -> None:
    groups = 2 if "groups" in conv else 1
    first = Conv(np.ones((3, 3, 4 // groups, 4), np.float32), **conv)  # type: ignore[arg-type]
    second = DepthwiseConv(**{"filter": np.ones((3, 3, 4, 1), np.float32)} | depthwise)  # type: ignore[arg-type]
    graph = graph_of({"x": (None, 9, 9, 4)}, [("c", first, ("x",)), ("y", second, ("c",))])
    assert pair_with_readers(graph) == graph


def test_poolings_that_stay_apart() -> None:
    conv = Conv(np.ones((3, 3, 4, 4), np.float32))
    for pool in (MaxPool((3, 3), (2, 2)), AveragePool((2, 1), (1, 1))):
        graph = graph_of({"x": (None, 9, 9, 4)}, [("c", conv, ("x",)), ("y", pool, ("c",))])
        assert pair_with_readers(graph) == graph


def test_a_convolution_that_others_read_stays() -> None:
    graph = pair((1, 9, 9), WINDOWS[0], "same", "relu", np.random.default_rng(6))
    shared = graph_of(
        {"x": (None, 9, 9, 4)},
        [("c", graph["c"].op, ("x",)), ("y", graph["d"].op, ("c",))],
        "y", "c",
    )  # fmt: skip
    assert pair_with_readers(shared) == shared


@pytest.mark.parametrize("size", SIZES)
def test_the_border_of_a_scaled_input(size: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(8)
    graph = pair(size, WINDOWS[1], "same", "relu6", rng, taps=3)
    conv = replace(graph["c"].op, border=integers(rng, 4))
    nodes = tuple(replace(n, op=conv) if n.name == "c" else n for n in graph.nodes)
    graph, x = replace(graph, nodes=nodes), integers(rng, *size, 4)
    paired = optimise(graph, "strict")
    assert kernels(paired, x.shape) == ["f32_halo", "f32_bands"]
    np.testing.assert_array_equal(run_kernels(paired, x), evaluate(graph, x))
