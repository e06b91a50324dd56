"""Random Keras graphs of every registered class: kernels and references against predict."""

from __future__ import annotations

import numpy as np
import pytest

import cnnkern
from cnnkern import naive
from cnnkern.structure import leaves
from random_keras import random_keras_model, varies

N_GRAPHS, N_QUICK = 300, 60
BOUND = 1e-4  # of the largest output
SEEDS = [
    pytest.param(seed, marks=pytest.mark.slow if seed >= N_QUICK else ())
    for seed in range(N_GRAPHS)
]


@pytest.mark.parametrize("seed", SEEDS)
def test_kernels_and_references_match_predict(seed: int) -> None:
    model, x = random_keras_model(seed)
    given = x if len(x) > 1 else x[0]
    compiled = cnnkern.from_keras(model)
    expected = list(leaves(model.predict(given, verbose=0)))
    results = list(leaves(compiled.predict(given)))
    references = naive.run(compiled.graph, x)
    for y, reference, e in zip(results, references, expected, strict=True):
        assert varies(e), "outputs do not vary"
        bound = BOUND * np.abs(e).max()
        np.testing.assert_allclose(reference, e, atol=bound, rtol=0, err_msg="reference")
        np.testing.assert_allclose(y, e, atol=bound, rtol=0, err_msg="kernels")
