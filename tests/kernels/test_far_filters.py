"""Filters that no cache keeps are asked for ahead of time, which changes no bit."""

from __future__ import annotations

import numpy as np
import pytest

from cnnkern.codegen.isa import Isa, available
from cnnkern.ops.conv import Conv
from cnnkern.plan import Constants, ahead, make_plan
from support import graph_of, run_kernels


@pytest.mark.parametrize("isa", available(), ids=lambda isa: isa.name)
@pytest.mark.parametrize(("H", "W"), [(1, 1), (2, 4), (5, 5), (9, 11)])
@pytest.mark.parametrize(("taps", "C", "OC"), [(1, 70, 40), (3, 67, 24)])
def test_the_same_bits_from_afar(
    isa: Isa, H: int, W: int, taps: int, C: int, OC: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One register tile per panel, two, more; one run of floats and several."""
    rng = np.random.default_rng(H)
    op = Conv(rng.standard_normal((taps, taps, C, OC), np.float32), padding="same")
    graph = graph_of({"x": (None, H, W, C)}, [("y", op, ("x",))])
    x, results = rng.standard_normal((1, H, W, C), np.float32), []
    for limit, is_far in ((1 << 40, False), (0, H > 1)):
        monkeypatch.setattr(ahead, "FAR_NBYTES", limit)
        monkeypatch.setattr(ahead, "LEAST_NBYTES", limit)
        plan = make_plan(graph, {"x": x.shape}, Constants(), isa=isa)
        assert ("ahead" in plan.steps[-1].fields) == is_far
        results += run_kernels(graph, x, isa=isa)
    np.testing.assert_array_equal(*results)
