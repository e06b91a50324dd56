"""A single pixel takes several panels at once and gets the same bits as among others."""

from __future__ import annotations

import numpy as np
import pytest

from cnnkern.codegen.isa import Isa, available
from cnnkern.ops.conv import Conv
from support import graph_of, run_kernels


@pytest.mark.parametrize("in_parts", [False, True])
@pytest.mark.parametrize("isa", available(), ids=lambda isa: isa.name)
@pytest.mark.parametrize(("taps", "C"), [(1, 3), (1, 203), (3, 61)])
def test_the_same_bits_alone(isa: Isa, taps: int, C: int, in_parts: bool) -> None:
    """Whole panels from none to two tiles full, with and without a narrow one behind them."""
    rng = np.random.default_rng(C)
    for whole, rest in np.ndindex(2 * isa.panels_of_pixel + 1, 2):
        OC = max(isa.tile_columns * whole + 3 * rest, 1)
        filters = rng.standard_normal((taps, taps, C, OC), np.float32)
        op = Conv(filters, rng.standard_normal(OC, np.float32), adds_residual=True)
        graph = graph_of(
            {"x": (None, taps, taps, C), "r": (None, 1, 1, OC)}, [("y", op, ("x", "r"))]
        )
        x, r = (
            rng.standard_normal((3, *shape), np.float32)
            for shape in ((taps, taps, C), (1, 1, OC))
        )
        (together,) = run_kernels(graph, x, r, isa=isa, in_parts=in_parts)
        (alone,) = run_kernels(graph, x[1:2], r[1:2], isa=isa, n_threads=2, in_parts=in_parts)
        np.testing.assert_array_equal(alone, together[1:2])
