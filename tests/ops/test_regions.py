"""Which taps reach the image, and convolutions that leave out the others."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnkern.graph import Graph, Node
from cnnkern.ops.conv import Conv
from cnnkern.ops.layout import Input
from cnnkern.ops.regions import Axis, Region, cut, reach
from cnnkern.plan import Constants, make_plan

AXES = st.builds(
    Axis, st.integers(1, 9), st.integers(1, 9), st.integers(1, 5), st.integers(1, 3),
    st.integers(1, 9), st.tuples(st.integers(0, 20), st.integers(0, 20)),
)  # fmt: skip


def products(axis: Axis, regions: list[Region]) -> set[tuple[int, int]]:
    """Return every (output, tap) of the regions whose input lies in the image."""
    return {
        (o, tap)
        for outputs, taps in regions
        for o in outputs
        for tap in taps
        if 0 <= o * axis.stride + tap * axis.dilation - axis.padding[0] < axis.length
    }


def everything(axis: Axis) -> list[Region]:
    return [Region(range(axis.n_out), range(axis.size))]


def test_regions_by_hand() -> None:
    """Three taps 6 apart on 8 pixels: the middle one counts everywhere."""
    axis = Axis(8, 8, 3, 1, 6, (6, 6))
    assert axis.regions() == [
        Region(range(2), range(1, 3)),
        Region(range(2, 6), range(1, 2)),
        Region(range(6, 8), range(2)),
    ]


@given(AXES)
def test_regions_hold_what_reaches_the_image_and_nothing_else(axis: Axis) -> None:
    regions = axis.regions()
    assert [o for r in regions for o in r.outputs] == list(range(axis.n_out))
    wanted = products(axis, everything(axis))
    assert products(axis, regions) == products(axis, [axis.whole]) == wanted
    assert sum(len(r.outputs) * len(r.taps) for r in regions) == len(wanted)


@given(st.lists(AXES, min_size=1, max_size=3), st.sampled_from((1, 10**7)))
def test_a_window_is_cut_or_whole(axes: list[Axis], n_floats: int) -> None:
    found = cut(axes, n_floats)
    for axis, regions, (before, after) in zip(axes, found, reach(axes, found), strict=True):
        assert products(axis, regions) == products(axis, everything(axis))
        reads = [
            o * axis.stride + tap * axis.dilation - axis.padding[0]
            for outputs, taps in regions
            for o in outputs
            for tap in taps
        ]
        assert -before <= min(reads) and max(reads) < axis.length + after


def test_filters_of_regions_do_not_grow_far() -> None:
    """Three taps 12 apart are 2 + 3 + 2 in three regions, along both axes 5.4 times as many."""
    axis = Axis(32, 32, 3, 1, 12, (12, 12))
    few, many = ([len(r) for r in cut([axis, axis], n)] for n in (1000, 10**7))
    assert (few, many) == ([3, 3], [3, 1])


def test_no_outputs_are_no_regions() -> None:
    axis = Axis(2, 0, 3, 1, 5, (0, 0))
    assert cut([axis], 1) == [everything(axis)]


@pytest.mark.parametrize(
    ("side", "size", "rate", "n_products"),
    [
        (16, 3, 18, 16),  # a filter of one tap
        (16, 3, 12, 24),  # per axis 16 + 4 + 4
        (32, 3, 18, 60),  # 32 + 14 + 14
        (1, 3, 1, 1),
        (2, 5, 1, 6),  # three taps at most
        (32, 3, 1, 96),
    ],
)
def test_padding_is_not_multiplied(side: int, size: int, rate: int, n_products: int) -> None:
    rng = np.random.default_rng(side)
    w = rng.integers(-4, 5, (size, size, 3, 8)).astype(np.float32)
    conv = Conv(w, np.arange(8, dtype=np.float32), padding="same", dilation_rate=(rate, rate))
    shape = (2, side, side, 3)
    graph = Graph((Node("x", Input(shape)), Node("y", conv, ("x",))), ("x",), ("y",))
    plan = make_plan(graph, {"x": shape}, Constants())
    assert plan.flops == 2 * 2 * 3 * 8 * n_products**2
