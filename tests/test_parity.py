"""Whole models against ``model.predict``, from a live model and from both file formats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cnnkern
from random_models import Builder

DIRECT_BOUND = 1e-5  # of the largest output, direct kernels


def assert_matches(model: Any, x: np.ndarray, folder: Path, bound: float = DIRECT_BOUND) -> None:
    """Assert parity with predict, and the same bits from the model and from its files."""
    expected = model.predict(x, verbose=0)
    assert np.std(expected) > 1e-3 * np.abs(expected).max(), "outputs do not vary"
    result = cnnkern.from_keras(model).predict(x)
    assert np.abs(result - expected).max() <= bound * np.abs(expected).max()
    for suffix in (".keras", ".h5"):
        path = folder / f"model{suffix}"
        model.save(path)
        np.testing.assert_array_equal(cnnkern.load(path).predict(x), result)


@pytest.mark.parametrize("seed", range(50))
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_random_model(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    model = Builder(rng).build()
    x = rng.standard_normal((3, *model.input_shape[1:]), np.float32)
    assert_matches(model, x, tmp_path)
