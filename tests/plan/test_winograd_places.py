"""Where V and M of Winograd convolutions stand that are a step per stage."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from cnnkern.graph import Graph
from cnnkern.ops.conv import Conv
from cnnkern.plan import Constants, make_plan
from support import graph_of

SIZE, CHANNELS = 14, 256  # few tiles, many filters


def network(n_layers: int) -> Graph:
    """Return 3x3 convolutions, one after the other."""
    weights = np.ones((3, 3, CHANNELS, CHANNELS), np.float32)
    names = ["x", *(f"conv_{i}" for i in range(n_layers))]
    steps = [
        (name, Conv(weights, padding="same", may_transform=True), (last,))
        for last, name in pairwise(names)
    ]
    return graph_of({"x": (None, SIZE, SIZE, CHANNELS)}, steps)


def places(n_layers: int) -> list[tuple[int, int]]:
    """Return the offsets of V and M in the arena, for each convolution."""
    plan = make_plan(network(n_layers), {"x": (1, SIZE, SIZE, CHANNELS)}, Constants())
    return [
        (plan.offsets[step.fields["v"].storage], plan.offsets[step.fields["m"].storage])
        for step in plan.steps
        if step.kernel.startswith("f32_winograd_input")
    ]


def test_v_stands_where_the_last_m_was_read():
    (v1, m1), (v2, m2), (v3, m3) = places(3)
    assert v1 != m1
    assert (v2, m2) == (m1, v1)
    assert (v3, m3) == (v1, m1)
