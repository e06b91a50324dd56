"""A convolution may write over its residual: a row that a tile does twice adds it once."""

from __future__ import annotations

import numpy as np
import pytest

from cnnkern.codegen.isa import Isa, available
from cnnkern.ops.conv import Conv
from cnnkern.plan import Constants, make_plan
from support import evaluate, graph_of, run_kernels

C = 5


@pytest.mark.parametrize("isa", available(), ids=lambda isa: isa.name)
@pytest.mark.parametrize("missing", [0, 1], ids=["whole", "partial"])
@pytest.mark.parametrize("panels", [1, 3])
def test_every_number_of_rows(isa: Isa, panels: int, missing: int) -> None:
    """Of all columns of a tile, or of one less, which are stored under a mask."""
    rng = np.random.default_rng(panels)
    OC = panels * isa.tile_columns - missing

    def conv(adds_residual: bool) -> Conv:
        filters = rng.integers(-3, 4, (1, 1, C, OC)).astype(np.float32)
        return Conv(filters, np.arange(OC, dtype=np.float32), adds_residual=adds_residual)

    steps = [("r", conv(False), ("x",)), ("y", conv(True), ("x", "r"))]
    for n_rows in range(1, 2 * isa.heights[0] + 2):
        graph = graph_of({"x": (None, 1, n_rows, C)}, steps)
        x = rng.integers(-3, 4, (1, 1, n_rows, C)).astype(np.float32)
        plan = make_plan(graph, {"x": x.shape}, Constants(), isa=isa)
        assert set(plan.offsets) == {"x", "r"}
        (y,) = run_kernels(graph, x, isa=isa)
        np.testing.assert_array_equal(y, evaluate(graph, x)[0])
