"""Products in halves: exact where sums are, close to float64, over options and threads."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnkern.codegen.isa import AVX2, AVX512, ISAS, Isa, available
from cnnkern.engine import Model
from cnnkern.graph import Array, Graph, Op
from cnnkern.kernels.strassen import block_of
from cnnkern.ops.activation import Activation
from cnnkern.ops.conv import Conv
from cnnkern.ops.dense import Dense
from cnnkern.ops.depthwise import DepthwiseConv
from cnnkern.ops.merge import Add
from cnnkern.passes import STRASSEN_MIN_CHANNELS, allow_transforms, optimise
from cnnkern.plan import Constants, bands, make_plan, strassen
from cnnkern.plan.buffer import Buffer
from cnnkern.plan.strassen import (
    MAX_EXPONENT,
    MIN_PIXELS,
    PARTS,
    pack_halves,
    pays_in_halves,
    right_factors,
    task_blocks,
)
from support import evaluate, graph_of, integers, run_kernels

# N, H, W, C, OC: blocks of pixels that are even and odd, columns beyond the pairs of panels
SIZES = (
    (1, 16, 16, 128, 128),
    (2, 13, 11, 130, 200),
    (2, 27, 29, 128, 257),
    (1, 12, 12, 1024, 128),
    (3, 1, MIN_PIXELS, 140, 130),
)
ONES = np.ones((1, 1, 1, 128, 130), np.float32)
# Of the largest output: the rounding of three more additions of products.
BOUND = 3e-6


@pytest.fixture(autouse=True)
def halves_of_any_depth(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every instruction set multiply in halves where the widest one does."""
    monkeypatch.setattr(strassen, "NARROW_TILE_CHANNELS", 0)


def conv_graph(C: int, OC: int, rng: np.random.Generator, **options: object) -> Graph:
    """Return relu(conv(x) + r) with small integers for weights."""
    conv = Conv(integers(rng, 1, 1, C, OC), integers(rng, OC), **options)  # type: ignore[arg-type]
    return graph_of(
        {"x": (None, None, None, C), "r": (None, None, None, OC)},
        [("c", conv, ("x",)), ("a", Add(), ("r", "c")), ("y", Activation("relu"), ("a",))],
    )


def alone(op: Op, *shape: int) -> Graph:
    """Return a graph of one op, as it is planned with precision="fast"."""
    return optimise(graph_of({"x": (None, *shape)}, [("y", op, ("x",))]), "fast")


def kernels_of(graph: Graph, *shapes: tuple[int, ...]) -> list[str]:
    """Return the kernels that a plan calls."""
    inputs = dict(zip(graph.inputs, shapes, strict=True))
    return [step.kernel for step in make_plan(graph, inputs, Constants()).steps]


def filters(C: int, OC: int, rng: np.random.Generator) -> Array:
    return rng.standard_normal((1, 1, C, OC), np.float32) / np.float32(np.sqrt(C))


def test_small_register_tiles_need_more_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    y = Buffer.allocate("y", (1, 14, 14, 512))
    assert pays_in_halves(y, 512, AVX512)
    assert not pays_in_halves(y, 512, AVX2)
    assert pays_in_halves(y, 728, AVX2)


def test_the_seven_products_by_hand() -> None:
    """1 2, 3 4 times 5 6, 7 8 is 19 22, 43 50."""
    A11, A12, A21, A22 = 1, 2, 3, 4
    factors = right_factors(np.array([[5, 6]]), np.array([[7, 8]]))
    B11, B21, T2, T3, T4, T1, B22 = (int(factor.item()) for factor in factors)
    assert (B11, B21, B22) == (5, 7, 8)
    S1 = A21 + A22
    S2 = S1 - A11
    P1, P2, P3, P4 = A11 * B11, A12 * B21, (A12 - S2) * B22, A22 * T4
    P5, P6, P7 = S1 * T1, S2 * T2, (A11 - A21) * T3
    assert (P1 + P2, P1 + P6 + P5 + P3) == (19, 22)
    assert (P1 + P6 + P7 + P4, P1 + P6 + P7 + P5) == (43, 50)


def test_packed_halves_by_hand() -> None:
    """Two channels of which all but two columns are zero; the larger numbers are 7 and 15."""
    NR = AVX512.tile_columns
    w, b = np.zeros((2, 2 * NR + 5), np.float32), np.zeros(2 * NR + 5, np.float32)
    w[:, 3], w[:, NR + 3] = (5, 7), (12, 15)
    b[3], b[NR + 3] = 16, 4
    packed = pack_halves(w, b, AVX512)
    panels, scales = packed[: 7 * 2 * NR].reshape(7, 2, NR), packed[7 * 2 * NR :]
    assert (scales[3], scales[NR + 3], scales[0]) == (8, 16, 2.0**-MAX_EXPONENT)
    B11, B12, B21, B22 = 5 / 8, 12 / 16, 7 / 8, 15 / 16
    T1 = B12 - B11
    T2 = B22 - T1
    assert panels[:, 1, 3].tolist() == [B11, B21, T2, B22 - B12, B21 - T2, T1, B22]
    assert panels[:, 0, 3].tolist() == [0, 2, 0, 0, 2, 0.25, 0]


def test_small_columns_beside_large_ones_round_well() -> None:
    """Each column's errors are small beside itself, whatever its neighbours' size."""
    rng = np.random.default_rng(9)
    sizes = (10 ** rng.uniform(-9, 9, 256)).astype(np.float32)
    sizes[rng.permutation(256)[:9]] = 0
    conv = Conv(filters(128, 256, rng) * sizes, rng.standard_normal(256, np.float32) * sizes)
    x = rng.standard_normal((1, 13, 13, 128), np.float32)
    (y,) = run_kernels(alone(conv, 13, 13, 128), x)
    exact = x.astype(np.float64) @ conv.filter[0, 0] + conv.bias  # type: ignore[index]
    errors, largest = (np.abs(v).max(axis=(0, 1, 2)) for v in (y - exact, exact))
    assert (errors <= BOUND * largest + 1e-15).all()
    assert errors.max() > 0


@pytest.mark.parametrize("isa", available(), ids=lambda isa: isa.name)
@pytest.mark.parametrize("strides", [(1, 1), (2, 1)])
@pytest.mark.parametrize("size", SIZES)
def test_exact_on_integers(
    isa: Isa, strides: tuple[int, int], size: tuple[int, int, int, int, int]
) -> None:
    rng = np.random.default_rng(1)
    N, H, W, C, OC = size
    graph = conv_graph(C, OC, rng, strides=strides)
    halved = optimise(graph, "fast")
    x, r = integers(rng, N, H * strides[0], W, C), integers(rng, N, H, W, OC)
    assert kernels_of(halved, x.shape, r.shape)[0] == "f32_strassen"
    for n_threads in (1, 3):
        (y,) = run_kernels(halved, x, r, isa=isa, n_threads=n_threads)
        np.testing.assert_array_equal(y, evaluate(graph, x, r)[0])


@pytest.mark.parametrize(
    ("op", "shape"),
    [
        (Conv(ONES[0, 0], ONES[0, 0, 0, 0], (1,), "valid", (1,)), (2, 131, 128)),
        (Conv(ONES, None, (1, 1, 2), "same", (1, 1, 1)), (1, 6, 7, 9, 128)),
        (Dense(np.ones((128, 128), np.float32)), (2, 12, 12, 128)),
        (Dense(np.ones((200, 130), np.float32), np.ones(130, np.float32)), (2, 130, 200)),
    ],
    ids=["Conv1D", "Conv3D", "Dense of images", "Dense of rows"],
)
def test_other_ranks(op: Op, shape: tuple[int, ...]) -> None:
    x = integers(np.random.default_rng(2), *shape)
    graph = alone(op, *shape[1:])
    assert kernels_of(graph, shape)[0] == "f32_strassen"
    np.testing.assert_array_equal(run_kernels(graph, x)[0], evaluate(graph, x)[0])


@pytest.mark.parametrize("isa", available(), ids=lambda isa: isa.name)
@pytest.mark.parametrize(("C", "OC"), [(128, 300), (256, 128), (728, 200)])
def test_close_to_float64(isa: Isa, C: int, OC: int) -> None:
    rng = np.random.default_rng(3)
    conv = Conv(filters(C, OC, rng), rng.standard_normal(OC, np.float32))
    x = rng.standard_normal((2, 19, 17, C), np.float32)
    (y,) = run_kernels(alone(conv, 19, 17, C), x, isa=isa)
    exact = x.astype(np.float64) @ conv.filter[0, 0] + conv.bias  # type: ignore[index]
    assert 0 < np.abs(y - exact).max() <= BOUND * np.abs(exact).max()


def test_other_activations_come_last() -> None:
    rng = np.random.default_rng(4)
    conv = Conv(integers(rng, 1, 1, 128, 200), activation=Activation("softsign"))
    x = integers(rng, 1, 13, 11, 128)
    (y,) = run_kernels(alone(conv, 13, 11, 128), x)
    np.testing.assert_allclose(y, conv.reference(x), rtol=1e-6)


def test_batch_and_threads_change_no_bit() -> None:
    rng = np.random.default_rng(5)
    graph = alone(Conv(filters(256, 140, rng)), 17, 19, 256)
    x = rng.standard_normal((5, 17, 19, 256), np.float32)
    (together,) = run_kernels(graph, x, n_threads=3)
    for i in range(5):
        np.testing.assert_array_equal(run_kernels(graph, x[i : i + 1])[0], together[i : i + 1])


def test_a_nan_stays_in_its_image() -> None:
    rng = np.random.default_rng(6)
    graph = alone(Conv(filters(128, 128, rng)), 13, 13, 128)
    x = rng.standard_normal((3, 13, 13, 128), np.float32)
    clean = run_kernels(graph, x)[0]
    x[1, 4, 4, 7] = np.nan
    (y,) = run_kernels(graph, x)
    assert np.isnan(y[1, 4, 4]).all()
    np.testing.assert_array_equal(y[[0, 2]], clean[[0, 2]])


@pytest.mark.parametrize(
    ("op", "space"),
    [
        (Conv(np.ones((1, 1, 128, 128), np.float32)), (MIN_PIXELS - 1, 1)),
        (Conv(np.ones((1, 1, 129, 128), np.float32)), (16, 16)),
        (Conv(np.ones((1, 1, STRASSEN_MIN_CHANNELS - 2, 512), np.float32)), (16, 16)),
        (Conv(np.ones((1, 1, 128, 256), np.float32), groups=2), (16, 16)),
        (Conv(np.ones((1, 1, 128, 128), np.float32), padding=((1, 0), (0, 0))), (16, 16)),
        (Dense(np.ones((128, 128), np.float32)), ()),
    ],
    ids=["few pixels", "odd", "few channels", "groups", "padded", "rows"],
)
def test_other_products_stay_whole(op: Op, space: tuple[int, ...]) -> None:
    C = op.in_channels if isinstance(op, Conv) else 128
    assert "f32_strassen" not in kernels_of(alone(op, *space, C), (256, *space, C))


def test_strict_precision_multiplies_whole() -> None:
    graph = graph_of({"x": (None, 16, 16, 128)},
                     [("y", Conv(np.ones((1, 1, 128, 128), np.float32)), ("x",))])  # fmt: skip
    kernels = [kernels_of(optimise(graph, p), (1, 16, 16, 128)) for p in ("fast", "strict")]
    assert kernels == [["f32_strassen"], ["f32_conv"]]


def test_in_front_of_a_depthwise_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the two are joined in bands, the first multiplies whole; else in halves."""
    rng = np.random.default_rng(7)
    nodes = [
        ("c", Conv(integers(rng, 1, 1, 128, 256)), ("x",)),
        ("y", DepthwiseConv(integers(rng, 3, 3, 256, 1), padding="same"), ("c",)),
    ]
    graph = graph_of({"x": (None, None, None, 128)}, nodes)
    monkeypatch.setattr(bands, "MAX_K", 128)
    for side, kernel in ((56, "f32_bands"), (14, "f32_strassen")):
        x = integers(rng, 1, side, side, 128)
        assert kernel in kernels_of(optimise(graph, "fast"), x.shape)
        (y,) = run_kernels(optimise(graph, "fast"), x)
        np.testing.assert_array_equal(y, evaluate(graph, x)[0])


def test_an_empty_batch_is_empty() -> None:
    graph = alone(Conv(ONES[0]), 16, 16, 128)
    assert run_kernels(graph, np.zeros((0, 16, 16, 128), np.float32))[0].shape[0] == 0


def test_sizes_share_an_op() -> None:
    """Whole and halved filters are different constants."""
    rng = np.random.default_rng(8)
    conv = Conv(integers(rng, 1, 1, 128, 160), integers(rng, 160))
    model = Model(graph_of({"x": (None, None, None, 128)}, [("y", conv, ("x",))]))
    for side in (4, 16, 4, 15):
        x = integers(rng, 1, side, side, 128)
        np.testing.assert_array_equal(model(x), conv.reference(x))


@given(
    st.integers(MIN_PIXELS, 10**5), st.integers(1, 64),
    st.integers(32, 2048), st.sampled_from(ISAS),
)  # fmt: skip
def test_blocks_cover_everything_once(pixels: int, n_panels: int, C: int, isa: Isa) -> None:
    most, blocks = task_blocks(pixels, n_panels, 2 * C, isa)
    part_blocks, panels = blocks["part_blocks"], blocks["panels_per_task"]
    unit, first = isa.heights[0] // 2, 0
    for block in range(PARTS * part_blocks):
        begin, n_pairs = block_of.py_func(block, part_blocks, pixels, unit)
        assert begin == first and 1 <= n_pairs <= most
        first += n_pairs
    assert first == -(-pixels // 2)
    assert (blocks["panel_blocks"] - 1) * panels < n_panels <= blocks["panel_blocks"] * panels


def test_the_pass_sets_and_clears_the_permission() -> None:
    graph = graph_of(
        {"x": (None, 4, 4, 128)},
        [("a", Conv(np.ones((1, 1, 128, 256), np.float32)), ("x",)),
         ("b", Dense(np.ones((256, 32), np.float32)), ("a",))],
    )  # fmt: skip
    a, b = (allow_transforms(graph)[name].op for name in "ab")
    assert isinstance(a, Conv) and isinstance(b, Dense)
    assert a.may_transform and not b.may_transform
