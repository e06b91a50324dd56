"""Whole models against ``model.predict``, from a live model and from both file formats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cnnkern
from random_models import Builder

SEED_FILTER = np.float32(
    [[0.1985341, 0.27599618, 0.20717546], [-0.41702896, -0.21289168, 0.12980239],
     [-0.14379142, 0.55261314, -0.49706236]]
).reshape(3, 3, 1, 1)  # fmt: skip
SEED_IMAGE = np.array([[1, 2, 3, 3], [2, 3, 4, 5], [4, 5, 6, 7], [1, 3, 4, 6]]) / 9

DIRECT_BOUND = 1e-5  # of the largest output, direct kernels


def assert_matches(
    model: Any, x: np.ndarray, folder: Path, bound: float = DIRECT_BOUND
) -> None:
    """Assert parity with predict, and the same bits from the model and from its files."""
    expected = model.predict(x, verbose=0)
    assert np.std(expected) > 1e-3 * np.abs(expected).max(), "outputs do not vary"
    result = cnnkern.from_keras(model, precision="strict").predict(x)
    assert np.abs(result - expected).max() <= DIRECT_BOUND * np.abs(expected).max()
    for suffix in (".keras", ".h5"):
        path = folder / f"model{suffix}"
        model.save(path)
        np.testing.assert_array_equal(cnnkern.load(path, "strict").predict(x), result)


@pytest.fixture
def digits() -> tuple[Path, np.ndarray]:
    """The shipped model's file, and float32[360, 8, 8, 1] held-out images."""
    folder = Path(cnnkern.__file__).parent / "data"
    with np.load(folder / "digits.npz") as data:
        images = data["images"].astype(np.float32)
    return folder / "digits.keras", images


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_digits(digits: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    import keras

    path, x = digits
    model = keras.models.load_model(path)
    x = x.reshape(-1, *model.input_shape[1:])
    assert_matches(model, x, tmp_path)
    np.testing.assert_array_equal(
        cnnkern.load(path).predict(x), cnnkern.from_keras(model).predict(x)
    )


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_seed_model(tmp_path: Path) -> None:
    from keras import Input, Sequential, layers

    model = Sequential(
        [
            Input((4, 4, 1)),
            layers.Conv2D(1, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(1, activation="sigmoid"),
        ]
    )
    dense = [np.float32([[1.5805249]]), np.float32([-0.28272304])]
    model.set_weights([SEED_FILTER, np.float32([0.04198299]), *dense])
    x = np.stack([SEED_IMAGE, -SEED_IMAGE]).astype(np.float32).reshape(2, 4, 4, 1)
    assert_matches(model, x, tmp_path)
    assert float(cnnkern.from_keras(model).predict(x)[0, 0]) == pytest.approx(
        0.42994316, abs=5e-8
    )


@pytest.mark.parametrize("seed", range(50))
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_random_model(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    model = Builder(rng).build()
    x = rng.standard_normal((3, *model.input_shape[1:]), np.float32)
    assert_matches(model, x, tmp_path)
