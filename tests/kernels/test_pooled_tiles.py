"""Winograd tiles of which only the largest numbers are stored, against the two steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from cnnkern.codegen.isa import Isa, available
from cnnkern.graph import Array, Graph, Op
from cnnkern.ops import winograd
from cnnkern.ops.activation import Activation
from cnnkern.ops.conv import Conv
from cnnkern.ops.merge import Add
from cnnkern.ops.pairs import PooledConv
from cnnkern.ops.pool import AveragePool, MaxPool
from cnnkern.ops.prelu import PReLU
from cnnkern.passes import optimise, pair_with_readers
from cnnkern.plan import Constants, make_plan
from support import graph_of, run_kernels

pytestmark = pytest.mark.usefixtures("always_pays")

EACH = pytest.mark.parametrize("isa", available(), ids=lambda isa: isa.name)
SIZES = ((12, 16), (13, 29), (14, 18), (15, 19))
CHANNELS = ((32, 32), (33, 47), (80, 112))  # the last one in separate steps
WINDOWS = {  # of filter and pooling
    ((3, 3), (2, 2)), ((5, 5), (2, 2)), ((1, 3), (1, 2)), ((5, 1), (2, 1)),
}  # fmt: skip


def conv_of(taps: Sequence[int], C: int, OC: int, **options: object) -> Conv:
    rng = np.random.default_rng(OC)
    filters = rng.standard_normal((*taps, C, OC), np.float32) * np.float32(0.1)
    bias = rng.standard_normal(OC, np.float32)
    return Conv(filters, bias, **{"padding": "same"} | options)  # type: ignore[arg-type]


def graph_with(image: tuple[int, ...], *ops: Op) -> Graph:
    """Return a chain of ops on images of one size."""
    names = ["x", *(f"n{number}" for number in range(len(ops)))]
    nodes = [
        (name, op, (names[number],))
        for number, (name, op) in enumerate(zip(names[1:], ops, strict=True))
    ]
    return graph_of({"x": (None, *image)}, nodes)


def kernels(graph: Graph, x: Array) -> list[str]:
    return [step.kernel for step in make_plan(graph, {"x": x.shape}, Constants()).steps]


def assert_as_two_steps(conv: Conv, pool: MaxPool, x: Array, isa: Isa, *between: Op) -> None:
    """Compare the bits of a convolution's pooled tiles with those of its pooled image."""
    whole = optimise(graph_with(x.shape[1:], conv, *between), "fast")
    pooled = optimise(graph_with(x.shape[1:], conv, *between, pool), "fast")
    (image,) = run_kernels(whole, x, isa=isa)
    for n_threads in (1, 3):
        (y,) = run_kernels(pooled, x, isa=isa, n_threads=n_threads)
        np.testing.assert_array_equal(y, pool.reference(image))


@EACH
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize(("taps", "window"), sorted(WINDOWS))
@pytest.mark.usefixtures("always_parallel")
def test_the_same_bits(
    isa: Isa, size: tuple[int, int], channels: tuple[int, int],
    taps: tuple[int, int], window: tuple[int, int],
) -> None:  # fmt: skip
    """Tiles that the border of the image cuts, and last rows that no window has, included."""
    conv, pool = conv_of(taps, *channels), MaxPool(window, window)
    x = np.random.default_rng(1).standard_normal((2, *size, channels[0]), np.float32)
    x[0, 5, 5, 3], x[1, 2, 3, 0] = np.nan, np.inf
    steps = kernels(optimise(graph_with(x.shape[1:], conv, pool), "fast"), x)
    assert "f32_max_pool" not in steps
    assert_as_two_steps(conv, pool, x, isa)


@EACH
@pytest.mark.parametrize(
    "activation",
    [Activation("relu"), Activation("relu6"), PReLU(np.linspace(-2, 2, 40, dtype=np.float32))],
    ids=repr,
)
def test_activations_come_before(isa: Isa, activation: Op) -> None:
    """A negative slope turns the order of numbers round."""
    x = np.random.default_rng(2).standard_normal((1, 13, 18, 32), np.float32)
    conv, pool = conv_of((3, 3), 32, 40), MaxPool()
    fused = optimise(graph_with(x.shape[1:], conv, activation, pool), "fast")
    assert isinstance(fused.nodes[-1].op, PooledConv)
    assert_as_two_steps(conv, pool, x, isa, activation)


@EACH
def test_lines_and_volumes(isa: Isa) -> None:
    rng = np.random.default_rng(3)
    line = rng.standard_normal((2, 77, 32), np.float32)
    conv = conv_of((5,), 32, 40, strides=(1,), dilation_rate=(1,))
    assert_as_two_steps(conv, MaxPool((2,), (2,)), line, isa)
    video = rng.standard_normal((1, 5, 14, 15, 32), np.float32)
    conv = conv_of((3, 3, 3), 32, 40, strides=(1,) * 3, dilation_rate=(1,) * 3)
    assert_as_two_steps(conv, MaxPool((1, 2, 2), (1, 2, 2)), video, isa)
    assert_as_two_steps(conv, MaxPool((2, 2, 2), (2, 2, 2)), video, isa)


@pytest.mark.parametrize(
    ("ops", "size"),
    [
        ([conv_of((3, 3), 32, 32), MaxPool((2, 2), (2, 2), "same")], (13, 12)),  # padded
        ([conv_of((3, 3), 32, 32), MaxPool((3, 3), (3, 3))], (12, 12)),
        ([conv_of((3, 3), 32, 32), MaxPool((2, 2), (1, 1))], (12, 12)),
        ([conv_of((3, 3), 32, 32), MaxPool((2, 1), (2, 1))], (12, 12)),
        ([conv_of((4, 4), 32, 32), MaxPool()], (24, 24)),  # tiles of 3 x 3
        ([conv_of((3, 3), 32, 32, dilation_rate=(2, 2)), MaxPool()], (24, 24)),
        ([conv_of((3, 3), 32, 32), Activation("tanh"), MaxPool()], (12, 12)),
        ([conv_of((3, 3), 32, 32), AveragePool()], (12, 12)),
    ],
)
def test_poolings_that_stay_steps(
    ops: list[Op], size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(winograd, "LARGE_TILE_GAIN", np.inf)  # they round worse than the bound
    graph = graph_with((*size, 32), *ops)
    x = np.random.default_rng(4).standard_normal((1, *size, 32), np.float32)
    fast = optimise(graph, "fast")
    assert kernels(fast, x)[-1] in ("f32_max_pool", "f32_average_pool")
    expected = x
    for op in ops:
        expected = op.reference(expected)
    np.testing.assert_allclose(run_kernels(fast, x)[0], expected, atol=1e-5)


def test_tensors_that_others_need_are_stored() -> None:
    conv = replace(conv_of((3, 3), 32, 32), may_transform=True)
    shared = graph_of(
        {"x": (None, 12, 12, 32)}, [("c", conv, ("x",)), ("y", MaxPool(), ("c",))], "y", "c"
    )
    assert pair_with_readers(shared) == shared
    added = graph_of(
        {"x": (None, 12, 12, 32)},
        [("c", conv, ("x",)), ("a", Add(), ("c", "x")), ("y", MaxPool(), ("a",))],
    )
    assert not any(isinstance(node.op, PooledConv) for node in optimise(added, "fast").nodes)


def test_images_of_other_sizes_compile_nothing() -> None:
    open_graph = graph_of(
        {"x": (None, None, None, 32)},
        [("c", conv_of((3, 3), 32, 32), ("x",)), ("y", MaxPool(), ("c",))],
    )
    (pair,) = (n.op for n in optimise(open_graph, "fast").nodes if n.name == "y")
    for side in (4, 12, 13, 40):
        image = np.zeros((1, side, side, 32), np.float32)
        used = set(kernels(optimise(open_graph, "fast"), image)) - {"f32_halo"}
        assert used <= set(pair.size_kernels)
