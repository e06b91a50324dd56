"""Depthwise convolutions that leave the sums of their rows to a global mean."""

import numpy as np
import pytest

from cnnkern.codegen.isa import available
from cnnkern.graph import Array, Graph
from cnnkern.ops.activation import Activation
from cnnkern.ops.conv import Conv
from cnnkern.ops.depthwise import DepthwiseConv
from cnnkern.ops.merge import Concatenate
from cnnkern.ops.pool import GlobalAveragePool, GlobalMaxPool
from cnnkern.passes import optimise
from cnnkern.plan import Constants, Plan, make_plan
from support import evaluate, graph_of, run_kernels


def normal(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).standard_normal(shape, np.float32)


def squeezed(C: int, side: int, strides: int = 1, pool: type = GlobalAveragePool) -> Graph:
    """Return a depthwise convolution, an activation and a global pooling; both are outputs."""
    filtered = DepthwiseConv(normal(3, 3, C, 1), normal(C), (strides, strides), "same")
    steps = [
        ("d", filtered, ("x",)),
        ("a", Activation("silu"), ("d",)),
        ("y", pool(), ("a",)),
    ]
    return graph_of({"x": (None, side, side, C)}, steps, "a", "y")


def plan_of(graph: Graph, *shape: int) -> Plan:
    return make_plan(graph, {"x": shape}, Constants())


def pooling_steps(plan: Plan) -> int:
    return sum("global" in step.kernel for step in plan.steps)


@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize(("C", "side", "strides"), [(5, 9, 1), (40, 16, 2), (70, 3, 1)])
def test_means_of_summed_rows(
    C: int, side: int, strides: int, n_threads: int, always_parallel: None
) -> None:
    graph, x = optimise(squeezed(C, side, strides)), normal(2, side, side, C)
    assert pooling_steps(plan_of(graph, *x.shape)) == 1
    expected = evaluate(graph, x)
    for isa in available():
        for y, e in zip(
            run_kernels(graph, x, isa=isa, n_threads=n_threads), expected, strict=True
        ):
            np.testing.assert_allclose(y, e, rtol=1e-5, atol=1e-6)


def test_rows_are_summed_in_bands() -> None:
    steps = [
        ("c", Conv(normal(1, 1, 8, 48), normal(48)), ("x",)),
        ("d", DepthwiseConv(normal(3, 3, 48, 1), normal(48), padding="same"), ("c",)),
        ("y", GlobalAveragePool(), ("d",)),
    ]
    graph, x = optimise(graph_of({"x": (None, 64, 64, 8)}, steps)), normal(2, 64, 64, 8)
    plan = plan_of(graph, *x.shape)
    assert "f32_bands" in [step.kernel for step in plan.steps]
    assert pooling_steps(plan) == 1
    np.testing.assert_allclose(
        run_kernels(graph, x)[0], evaluate(graph, x)[0], rtol=1e-4, atol=1e-5
    )


def test_a_maximum_needs_the_pixels() -> None:
    graph, x = optimise(squeezed(5, 9, pool=GlobalMaxPool)), normal(1, 9, 9, 5)
    assert pooling_steps(plan_of(graph, *x.shape)) == 2
    np.testing.assert_allclose(run_kernels(graph, x)[1], evaluate(graph, x)[1], rtol=1e-5)


def test_another_tensor_than_the_last_one_is_read() -> None:
    """Here the mean is of a concatenation, of which the last step wrote a part."""
    steps = [
        ("a", Activation("tanh"), ("x",)),
        ("d", DepthwiseConv(normal(3, 3, 6, 1), padding="same"), ("x",)),
        ("both", Concatenate(), ("a", "d")),
        ("y", GlobalAveragePool(), ("both",)),
    ]
    graph, x = graph_of({"x": (None, 8, 8, 6)}, steps), normal(2, 8, 8, 6)
    np.testing.assert_allclose(
        run_kernels(graph, x)[0], evaluate(graph, x)[0], rtol=1e-4, atol=1e-6
    )
