"""Winograd tiles against float64, over instruction sets, threads, sizes and epilogues."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from cnnkern.codegen.isa import Isa, available
from cnnkern.codegen.transform import SIZES as TILES
from cnnkern.codegen.transform import Size, Transform
from cnnkern.graph import Array, Graph
from cnnkern.kernels import KERNELS
from cnnkern.ops import winograd
from cnnkern.ops.activation import Activation
from cnnkern.ops.conv import Conv
from cnnkern.ops.merge import Add
from cnnkern.ops.transpose import ConvTranspose
from cnnkern.passes import allow_transforms, optimise
from cnnkern.plan import Constants, make_plan
from cnnkern.plan.winograd import filter_parts, transform_filters
from support import graph_of, run_kernels

# Of the largest output: a few times the rounding of 8 x 6 points with factors up to 5.
BOUND = 1e-5

SIZES = ((5, 6), (7, 7), (11, 9), (12, 16), (13, 29))  # the first two in tiles of 2 x 2
CHANNELS = ((32, 32), (33, 47), (64, 80), (80, 112))  # the last one in separate steps
FEW_CHANNELS = ((8, 16), (13, 11), (40, 5))
MANY_CHANNELS = (256, 720)  # filters too many for the blocks of any size
WHOLE_TAPS = ((2, 2), (4, 4), (5, 5), (1, 3), (3, 1), (1, 4), (1, 5))
CUT_TAPS = ((6, 6), (7, 7), (3, 7), (9, 4), (1, 7), (7, 1), (1, 16))  # into parts
CASES = [
    *itertools.product(SIZES, CHANNELS, [(3, 3)]),
    *itertools.product([(11, 9), (12, 16), (13, 29)], FEW_CHANNELS, [(3, 3)]),
    *itertools.product([(11, 9), (13, 29)], CHANNELS[1:3], WHOLE_TAPS),
    *itertools.product([(15, 18), (16, 29)], CHANNELS[1:3], CUT_TAPS),
    *itertools.product([(9, 9)], [MANY_CHANNELS], WHOLE_TAPS),
    ((15, 18), MANY_CHANNELS, (7, 7)),
]


def conv_graph(
    size: tuple[int, int], C: int, OC: int, rng: np.random.Generator, padding: str = "same",
    taps: tuple[int, int] = (3, 3),
) -> Graph:  # fmt: skip
    """Return relu(conv(x) + s), the addition and the activation still nodes of their own."""
    filters = rng.standard_normal((*taps, C, OC), np.float32)
    filters *= np.float32(np.sqrt(2 / C / taps[0] / taps[1]))
    conv = Conv(filters, rng.standard_normal(OC, np.float32), padding=padding)
    lost = taps if padding == "valid" else (1, 1)
    H, W = (n - tap + 1 for n, tap in zip(size, lost, strict=True))
    return graph_of(
        {"x": (None, *size, C), "s": (None, H, W, OC)},
        [("c", conv, ("x",)), ("a", Add(), ("s", "c")), ("y", Activation("relu"), ("a",))],
    )


def exact(graph: Graph, x: Array, s: Array) -> np.ndarray:
    """Return the output in float64."""
    conv = graph["c"].op
    assert isinstance(conv, Conv) and conv.bias is not None
    (top, bottom), (left, right) = conv.paddings(x.shape[1:3])
    padded = np.pad(x.astype(np.float64), ((0, 0), (top, bottom), (left, right), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, conv.taps, (1, 2))
    y = np.einsum("nhwcij,ijco->nhwo", windows, conv.filter, optimize=True)
    return np.maximum(y + conv.bias + s, 0)


def kernels_of(graph: Graph, shapes: dict[str, tuple[int, ...]]) -> set[str]:
    """Return the kernels that a plan calls."""
    return {step.kernel for step in make_plan(graph, shapes, Constants()).steps}


def is_winograd(kernel: str) -> bool:
    return kernel.startswith("f32_winograd")


def assert_only_tiles(graph: Graph, shapes: dict[str, tuple[int, ...]]) -> None:
    """Check that nothing is summed directly: f32_conv multiplies the V of the step before."""
    steps = [step.kernel for step in make_plan(graph, shapes, Constants()).steps]
    steps = [kernel for kernel in steps if kernel != "f32_halo"]
    for before, kernel in itertools.pairwise(["", *steps]):
        is_product = kernel == "f32_conv" and before.startswith("f32_winograd_input")
        assert is_winograd(kernel) or is_product, steps


def assert_close_everywhere(graph: Graph, *inputs: Array, expected: np.ndarray) -> None:
    """Compare two threads of every instruction set with a result in float64."""
    for isa in available():
        (y,) = run_kernels(graph, *inputs, isa=isa, n_threads=2)
        assert np.abs(y - expected).max() <= BOUND * np.abs(expected).max()


@pytest.mark.parametrize("isa", available(), ids=lambda isa: isa.name)
@pytest.mark.parametrize(("size", "channels", "taps"), CASES)
@pytest.mark.usefixtures("always_parallel", "always_pays")
def test_tiles_match_float64(
    isa: Isa, size: tuple[int, int], channels: tuple[int, int], taps: tuple[int, int]
) -> None:
    rng = np.random.default_rng(hash((size, channels)) % 1000)
    padding = "same" if size[0] % 2 else "valid"
    graph = conv_graph(size, *channels, rng, padding, taps)
    x, s = (
        rng.standard_normal((2, *graph.shapes()[name][1:]), np.float32)  # type: ignore[arg-type]
        for name in graph.inputs
    )
    fast = optimise(graph, "fast")
    assert any(map(is_winograd, kernels_of(fast, {"x": x.shape, "s": s.shape})))
    expected = exact(graph, x, s)
    (alone,) = run_kernels(fast, x, s, isa=isa, n_threads=1)
    assert np.abs(alone - expected).max() <= BOUND * np.abs(expected).max()
    for n_threads in (2, 3):
        (shared,) = run_kernels(fast, x, s, isa=isa, n_threads=n_threads)
        np.testing.assert_array_equal(shared, alone)


@pytest.mark.parametrize("isa", available(), ids=lambda isa: isa.name)
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("tiles", winograd.sizes((3, 3)), ids=lambda tiles: tiles.name)
@pytest.mark.usefixtures("always_parallel", "always_pays")
def test_every_size_of_tiles(
    isa: Isa, channels: tuple[int, int], tiles: Size, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(winograd, "best_size", lambda *_: tiles)
    for size, padding in (((13, 29), "same"), ((11, 17), "valid"), ((18, 8), "same")):
        rng = np.random.default_rng(sum(size))
        graph = conv_graph(size, *channels, rng, padding)
        x, s = (
            rng.standard_normal((2, *graph.shapes()[name][1:]), np.float32)  # type: ignore[arg-type]
            for name in graph.inputs
        )
        fast, expected = optimise(graph, "fast"), exact(graph, x, s)
        (y,) = run_kernels(fast, x, s, isa=isa, n_threads=2)
        assert np.abs(y - expected).max() <= BOUND * np.abs(expected).max()


@pytest.mark.parametrize("n_outputs", [60, 64])
@pytest.mark.parametrize("rate", [1, 2, 5])
@pytest.mark.parametrize("taps", [3, 5, 11])
@pytest.mark.parametrize("padding", ["same", "valid", "causal"])
@pytest.mark.usefixtures("always_parallel", "always_pays")
def test_lines_may_be_dilated(rate: int, taps: int, padding: str, n_outputs: int) -> None:
    """Lines of 64 have rows of two lengths where the rate is 5."""
    rng = np.random.default_rng(rate)
    length = n_outputs + (padding == "valid") * rate * (taps - 1)
    filters = rng.standard_normal((taps, 32, 40), np.float32) * np.float32(0.1)
    bias, relu = rng.standard_normal(40, np.float32), Activation("relu")
    conv = Conv(
        filters, bias, (1,), padding, (rate,), relu, adds_residual=True, may_transform=True
    )
    shapes = {"x": (None, length, 32), "s": (None, n_outputs, 40)}
    graph = graph_of(shapes, [("y", conv, ("x", "s"))])
    x, s = (
        rng.standard_normal((2, *shape[1:]), np.float32)
        for shape in ((2, length, 32), (2, n_outputs, 40))
    )
    assert_only_tiles(graph, {"x": x.shape, "s": s.shape})
    expected = conv.reference(x.astype(np.float64), s)  # type: ignore[arg-type]
    assert_close_everywhere(graph, x, s, expected=expected)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(
    ("rates", "taps"),
    [((2, 2), (3, 3)), ((3, 1), (3, 3)), ((4, 3), (3, 3)), ((2, 2), (5, 5)), ((1, 2), (1, 7))],
)
@pytest.mark.usefixtures("always_parallel", "always_pays")
def test_images_may_be_dilated(
    rates: tuple[int, int], taps: tuple[int, int], padding: str
) -> None:
    """37 x 41 pixels: the images that the filter meets differ in size."""
    rng = np.random.default_rng(sum(rates))
    filters = rng.standard_normal((*taps, 33, 40), np.float32) * np.float32(0.1)
    bias = rng.standard_normal(40, np.float32)
    conv = Conv(filters, bias, padding=padding, dilation_rate=rates, adds_residual=True)
    H, W = (
        n if padding == "same" else n - rate * (tap - 1)
        for n, rate, tap in zip((37, 41), rates, taps, strict=True)
    )
    shapes = {"x": (None, 37, 41, 33), "s": (None, H, W, 40)}
    fast = allow_transforms(graph_of(shapes, [("y", conv, ("x", "s"))]))
    x = rng.standard_normal((2, 37, 41, 33), np.float32)
    s = rng.standard_normal((2, H, W, 40), np.float32)
    assert_only_tiles(fast, {"x": x.shape, "s": s.shape})
    expected = conv.reference(x.astype(np.float64), s)  # type: ignore[arg-type]
    assert_close_everywhere(fast, x, s, expected=expected)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(
    ("sizes", "C", "OC"),
    [((3, 3, 3), 32, 40), ((2, 3, 3), 13, 11), ((1, 5, 5), 33, 40), ((3, 3, 3), 96, 320)],
)
@pytest.mark.usefixtures("always_parallel", "always_pays")
def test_taps_along_depth(sizes: tuple[int, int, int], C: int, OC: int, padding: str) -> None:
    """Volumes of 5 x 11 x 14; the last filter is one of separate steps."""
    rng = np.random.default_rng(C)
    filters = rng.standard_normal((*sizes, C, OC), np.float32) * np.float32(0.05)
    bias = rng.standard_normal(OC, np.float32)
    conv = Conv(filters, bias, (1, 1, 1), padding, (1, 1, 1), Activation("relu"), True)
    space = [
        n if padding == "same" else n - tap + 1
        for n, tap in zip((5, 11, 14), sizes, strict=True)
    ]
    x = rng.standard_normal((2, 5, 11, 14, C), np.float32)
    s = rng.standard_normal((2, *space, OC), np.float32)
    shapes = {"x": (None, *x.shape[1:]), "s": (None, *s.shape[1:])}
    fast = allow_transforms(graph_of(shapes, [("y", conv, ("x", "s"))]))
    kernels = kernels_of(fast, {"x": x.shape, "s": s.shape})
    assert ("f32_winograd" in kernels, "f32_conv" in kernels) == (OC < 320, OC == 320)
    expected = conv.reference(x.astype(np.float64), s)  # type: ignore[arg-type]
    assert_close_everywhere(fast, x, s, expected=expected)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(
    ("sizes", "strides"),
    [
        ((4, 4), (2, 2)), ((3, 3), (2, 2)), ((5, 5), (2, 2)), ((6, 2), (2, 2)),
        ((2, 2), (1, 1)), ((3, 3), (1, 1)), ((5, 5), (1, 1)), ((1, 7), (1, 1)),
        ((9, 9), (3, 3)), ((7, 7), (1, 1)), ((12, 8), (2, 1)), ((1, 16), (1, 2)),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("always_parallel", "always_pays")
def test_phases_of_transposed_convolutions(
    sizes: tuple[int, int], strides: tuple[int, int], padding: str
) -> None:
    rng = np.random.default_rng(sum(sizes))
    filters = rng.standard_normal((*sizes, 40, 36), np.float32) * np.float32(0.1)
    bias = rng.standard_normal(40, np.float32)
    conv = ConvTranspose(filters, bias, strides, padding, activation=Activation("relu"))
    graph = graph_of({"x": (None, 11, 14, 36)}, [("y", conv, ("x",))])
    fast = optimise(graph, "fast")
    x = rng.standard_normal((2, 11, 14, 36), np.float32)
    assert any(map(is_winograd, kernels_of(fast, {"x": x.shape})))
    expected = conv.reference(x.astype(np.float64))  # type: ignore[arg-type]
    assert_close_everywhere(fast, x, expected=expected)


@pytest.mark.usefixtures("always_parallel", "always_pays")
def test_lines_longer_than_their_input() -> None:
    """Of 61 inputs and 64 outputs the rows of a rate of 5 differ in other places."""
    rng = np.random.default_rng(0)
    filters = rng.standard_normal((3, 32, 40), np.float32) * np.float32(0.1)
    conv = Conv(filters, None, (1,), ((6, 7),), (5,))
    x = rng.standard_normal((2, 61, 32), np.float32)
    fast = allow_transforms(graph_of({"x": (None, 61, 32)}, [("y", conv, ("x",))]))
    assert any(map(is_winograd, kernels_of(fast, {"x": x.shape})))
    expected = conv.reference(x.astype(np.float64))  # type: ignore[arg-type]
    assert expected.shape == (2, 64, 40)
    assert_close_everywhere(fast, x, expected=expected)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(
    ("taps", "strides"),
    [
        ((4, 4), (2, 2)), ((5, 5), (2, 2)), ((6, 7), (2, 2)), ((7, 7), (3, 3)),
        ((3, 5), (1, 2)), ((9, 1), (2, 1)), ((1, 16), (3, 4)), ((5, 2), (1, 3)),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("always_parallel", "always_pays")
def test_strides(taps: tuple[int, int], strides: tuple[int, int], padding: str) -> None:
    """Every other tap meets the pixels of every other output."""
    rng = np.random.default_rng(sum(taps))
    filters = rng.standard_normal((*taps, 33, 40), np.float32) * np.float32(0.05)
    bias = rng.standard_normal(40, np.float32)
    conv = Conv(filters, bias, strides, padding, adds_residual=True)
    H, W = conv.infer_shape((None, 47, 50, 33), (None, None, None, 40))[1:3]
    fast = allow_transforms(
        graph_of({"x": (None, 47, 50, 33), "s": (None, H, W, 40)}, [("y", conv, ("x", "s"))])
    )
    x = rng.standard_normal((2, 47, 50, 33), np.float32)
    s = rng.standard_normal((2, H, W, 40), np.float32)  # type: ignore[arg-type]
    assert_only_tiles(fast, {"x": x.shape, "s": s.shape})
    expected = conv.reference(x.astype(np.float64), s)  # type: ignore[arg-type]
    assert_close_everywhere(fast, x, s, expected=expected)


def test_parts_of_a_filter() -> None:
    assert winograd.cut_taps(3, 1, 3) == [range(3)]
    assert winograd.cut_taps(7, 1, 4) == [range(4), range(4, 7)]
    assert winograd.cut_taps(5, 2, 2) == [range(0, 4, 2), range(4, 5, 2), range(1, 5, 2)]
    assert winograd.cut_taps(1, 2, 4) == [range(0, 1, 2)]


@pytest.mark.parametrize("n_taps", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("axis", {axis for size in TILES.values() for axis in size.axes})
def test_each_tap_is_in_one_part_and_within_reach(
    n_taps: int, stride: int, axis: Transform
) -> None:
    parts = winograd.cut_taps(n_taps, stride, axis.taps)
    assert sorted(tap for part in parts for tap in part) == list(range(n_taps))
    last_patch = (3 * axis.tile - axis.tile) * stride + (axis.patch - 1) * stride
    span = winograd.reach(2 * axis.tile + 1, n_taps, stride, axis)
    assert span == max(part.start for part in parts) + last_patch + 1


@pytest.mark.parametrize(
    ("C", "OC", "taps", "pays"),
    [
        (3, 64, (3, 3), False), (8, 8, (3, 3), False), (8, 16, (3, 3), True),
        (12, 12, (3, 3), True), (16, 4, (3, 3), True), (64, 64, (6, 6), True),
        (8, 16, (5, 5), False), (12, 16, (5, 5), True),
        (12, 12, (1, 3), False), (32, 32, (1, 3), True), (16, 16, (1, 7), True),
        (64, 64, (11, 11), True), (32, 32, (1, 41), True), (64, 64, (1, 1), False),
    ],
)  # fmt: skip
def test_transforms_must_save_their_time(
    C: int, OC: int, taps: tuple[int, int], pays: bool
) -> None:
    assert winograd.pays(C, OC, taps) == pays


@pytest.mark.parametrize(
    ("size", "C", "tile"),
    [
        ((8, 8), 64, (4, 4)),  # few tiles of few filters
        ((6, 6), 64, (2, 2)),  # 9 of 16 products: as many as 4 of 36, of which less is idle
        ((7, 7), 128, (2, 2)),  # the filters of the larger tile stay in no L2 cache
        ((14, 14), 128, (4, 4)),
        ((4, 4), 128, (2, 2)),
        ((4, 4), 256, None),
    ],
)
def test_size_of_tiles(size: tuple[int, int], C: int, tile: tuple[int, int] | None) -> None:
    conv = Conv(np.ones((3, 3, C, C), np.float32), None, padding="same", may_transform=True)
    chosen = conv.winograd_size(size)
    assert (chosen and chosen.tile) == tile


def test_filters_may_not_grow_without_limit() -> None:
    """Seven taps each way of 512 channels for 4096, as in fully convolutional networks."""
    assert winograd.best_size(32, 32, 512, 512, (7, 7)) is not None
    assert winograd.best_size(32, 32, 512, 4096, (7, 7)) is None


def test_every_size_of_tile_has_kernels() -> None:
    every = itertools.product(range(1, 10), repeat=2)
    kernels = {
        name
        for taps in every
        for name in winograd.kernels(taps) + winograd.pooled_kernels(taps)
    }
    assert kernels <= set(KERNELS)
    assert {name for name in KERNELS if is_winograd(name)} <= kernels


def test_batch_does_not_change_bits() -> None:
    rng = np.random.default_rng(0)
    graph = optimise(conv_graph((13, 13), 32, 40, rng), "fast")
    x, s = (
        rng.standard_normal((3, 13, 13, 32), np.float32),
        np.zeros((3, 13, 13, 40), np.float32),
    )
    (together,) = run_kernels(graph, x, s)
    for i in range(3):
        (single,) = run_kernels(graph, x[i : i + 1], s[i : i + 1])
        np.testing.assert_array_equal(together[i : i + 1], single)


def test_other_activations_come_last() -> None:
    rng = np.random.default_rng(0)
    graph = conv_graph((12, 12), 32, 32, rng)
    conv = graph["c"].op
    plain = graph_of(
        {"x": (None, 12, 12, 32)}, [("c", conv, ("x",)), ("y", Activation("tanh"), ("c",))]
    )
    x = rng.standard_normal((1, 12, 12, 32), np.float32)
    (result,) = run_kernels(optimise(plain, "fast"), x)
    np.testing.assert_allclose(result, np.tanh(conv.reference(x)), atol=BOUND)


def test_a_filter_of_one_tap_evaluates_to_products_of_powers() -> None:
    """A single tap (0, 0) has G = 1/gap per point, and no other tap reaches infinity."""
    for size in TILES.values():
        filters = np.zeros((np.prod(size.taps), 1), np.float32)
        filters[-1] = 1
        lengths = (1, *size.taps)
        parts = filter_parts(lengths, (1, 1, 1), size)
        U = transform_filters(filters, lengths, parts, size, available()[-1])
        assert U[-1].max() == 1  # both axes at infinity, where only the last tap counts
        assert U[0].max() == 0  # both axes at the point 0, where it does not


def test_strict_precision_sums_directly() -> None:
    graph = conv_graph((12, 12), 32, 32, np.random.default_rng(0))
    shapes = {"x": (1, 12, 12, 32), "s": (1, 12, 12, 32)}
    kernels = {
        precision: {
            s.kernel for s in make_plan(optimise(graph, precision), shapes, Constants()).steps
        }
        for precision in ("fast", "strict")
    }
    assert any(map(is_winograd, kernels["fast"]))
    assert not any(map(is_winograd, kernels["strict"]))


@pytest.mark.parametrize(
    ("options", "C", "OC", "side"),
    [
        pytest.param({"strides": (3, 3)}, 32, 32, 24, id="strided"),
        pytest.param({"dilation_rate": (5, 5)}, 32, 32, 60, id="dilated far"),
        pytest.param({}, 3, 32, 24, id="few channels"),
        pytest.param({}, 64, 3, 24, id="few columns"),
        pytest.param({}, 12, 32, 7, id="few channels in small tiles"),
        pytest.param({}, 32, 32, 2 * int(winograd.MIN_NEAR_TILES**0.5) - 2, id="small image"),
    ],
)
def test_other_convolutions_stay_direct(
    options: dict[str, tuple[int, int]], C: int, OC: int, side: int
) -> None:
    conv = Conv(np.zeros((3, 3, C, OC), np.float32), padding="same", **options)  # type: ignore[arg-type]
    graph = graph_of({"x": (None, side, side, C)}, [("y", conv, ("x",))])
    plan = make_plan(allow_transforms(graph), {"x": (1, side, side, C)}, Constants())
    assert {step.kernel for step in plan.steps} <= {"f32_conv", "f32_narrow_conv", "f32_halo"}
