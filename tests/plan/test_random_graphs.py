"""Whole random graphs: kernels, layouts and passes together against the references."""

import numpy as np
import pytest

from cnnkern.codegen.isa import available
from cnnkern.passes import optimise
from random_graphs import random_graph, random_input
from support import evaluate, run_kernels


@pytest.mark.parametrize("chunk", range(8))
def test_kernels_agree_with_the_references(chunk: int, always_parallel: None) -> None:
    for seed in range(40 * chunk, 40 * chunk + 40):
        graph, x = random_graph(seed), random_input(seed, count=seed % 4)
        isa = available()[seed % len(available())]
        expected = evaluate(graph, x)
        for planned in (graph, optimise(graph)):
            results = run_kernels(planned, x, isa=isa, n_threads=1 + seed % 3)
            for y, e in zip(results, expected, strict=True):
                assert y.shape == e.shape
                assert np.isfinite(y).all()
                scale = max(np.abs(e).max(initial=0), 1)
                assert np.abs(y - e).max(initial=0) <= 1e-5 * scale, f"seed {seed}, {isa.name}"
