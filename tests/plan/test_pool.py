"""How the pixels of a global pooling are shared out."""

import numpy as np
import pytest

from cnnkern.ops.pool import GlobalAveragePool, GlobalMaxPool, GlobalPool
from cnnkern.plan import Constants, make_plan
from support import evaluate, graph_of, integers, run_kernels


@pytest.mark.parametrize("pool", [GlobalAveragePool, GlobalMaxPool])
@pytest.mark.parametrize(
    ("shape", "tiles"),
    [
        ((2, 70, 5), [16, 2]),
        ((1, 7, 5), [1]),
        ((1, 30, 2, 80), [8, 2]),
        ((1, 3, 1, 9, 5), [5, 1]),
    ],
)
def test_long_axes_are_folded_in_blocks(
    pool: type[GlobalPool], shape: tuple[int, ...], tiles: list[int]
) -> None:
    """A sequence like an image of one column."""
    graph = graph_of({"x": (None, *shape[1:])}, [("y", pool(rank=len(shape) - 2), ("x",))])
    plan = make_plan(graph, {"x": shape}, Constants())
    assert [step.n_tiles for step in plan.steps] == tiles
    x = integers(np.random.default_rng(1), *shape)
    (y,) = run_kernels(graph, x, n_threads=2)
    np.testing.assert_array_equal(y, evaluate(graph, x)[0])
