"""Which convolutions ask for what they write before they multiply."""

from __future__ import annotations

import numpy as np
import pytest

from cnnkern.graph import Graph
from cnnkern.ops.conv import Conv
from cnnkern.ops.depthwise import DepthwiseConv
from cnnkern.ops.merge import Add
from cnnkern.passes import optimise
from cnnkern.plan import Constants, Step, make_plan
from cnnkern.plan.matrix import ASKING_SUM, FAR_NBYTES
from support import graph_of

FAR_SIDE = 160  # 32 floats per pixel are more than FAR_NBYTES
assert FAR_SIDE**2 * 32 * 4 > FAR_NBYTES


def weights(C: int) -> np.ndarray:
    return np.ones((1, 1, C, 32), np.float32)


def step_of(graph: Graph, side: int, kernel: str = "f32_conv") -> Step:
    shapes = {name: (1, side, side, graph[name].op.shape[-1]) for name in graph.inputs}
    steps = make_plan(optimise(graph, "strict"), shapes, Constants()).steps
    (step,) = (step for step in steps if step.kernel == kernel)
    return step


@pytest.mark.parametrize(
    ("side", "C", "asks"),
    [(8, ASKING_SUM, 1), (8, ASKING_SUM - 1, 0), (FAR_SIDE, 8, 1), (FAR_SIDE // 2, 8, 0)],
)
def test_long_sums_ask_and_short_ones_of_large_images(side: int, C: int, asks: int) -> None:
    graph = graph_of({"x": (None, None, None, C)}, [("y", Conv(weights(C)), ("x",))])
    assert step_of(graph, side).fields["asks_output"] == asks


def test_an_output_that_replaces_a_residual_is_not_asked_for() -> None:
    graph = graph_of(
        {"x": (None, None, None, 8), "r": (None, None, None, 32)},
        [("c", Conv(weights(8)), ("x",)), ("y", Add(), ("c", "r"))],
    )
    assert step_of(graph, FAR_SIDE).fields["asks_output"] == 0


def test_a_band_is_not_asked_for() -> None:
    depthwise = DepthwiseConv(np.ones((3, 3, 32, 1), np.float32), padding="same")
    graph = graph_of(
        {"x": (None, None, None, 8)},
        [("c", Conv(weights(8)), ("x",)), ("y", depthwise, ("c",))],
    )
    step = step_of(graph, FAR_SIDE, "f32_bands")
    assert step.fields["conv"].fields["asks_output"] == 0
