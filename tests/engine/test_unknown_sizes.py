"""Fully convolutional models: any height and width, compiled once, in steady memory."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

import numpy as np
import pytest

import cnnkern
from cnnkern import kernels
from cnnkern.engine import MAX_PLANS
from random_models import randomise

SIZES = ((24, 32), (17, 40), (8, 8), (61, 13), (96, 64))
BOUND = 1e-4


@pytest.fixture(scope="module")
def model() -> Any:
    """A segmentation network: downwards, upwards, shortcuts, a squeeze and excitation."""
    import keras
    from keras import layers

    x = inputs = keras.Input((None, None, 3))
    for filters in (8, 16):
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.MaxPooling2D(2, padding="same")(x)
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = layers.Conv2D(16, 1, activation="sigmoid")(gate)
    x = layers.Multiply()([x, gate])
    x = layers.DepthwiseConv2D(3, padding="same", activation="silu")(x)
    x = layers.ZeroPadding2D(1)(x)
    x = layers.Conv2D(32, 3, dilation_rate=2, padding="same")(x)
    x = layers.Conv2D(32, 3, padding="same", activation="relu")(x)  # direct or in tiles
    x = layers.Conv2D(128, 1, activation="relu")(x)
    x = layers.Conv2D(128, 1)(x)  # whole or in halves
    x = layers.DepthwiseConv2D(3, padding="same")(x)
    x = layers.UpSampling2D(2)(x)
    x = layers.Conv2DTranspose(8, 3, strides=2, padding="same")(x)
    model = keras.Model(inputs, layers.Conv2D(5, 1)(x))
    randomise(model, np.random.default_rng(7))
    return model


def image(H: int, W: int, N: int = 2) -> np.ndarray:
    return np.random.default_rng(H * W).standard_normal((N, H, W, 3), np.float32)


@pytest.mark.usefixtures("always_parallel")
def test_one_load_serves_all_sizes(model: Any) -> None:
    cnnkern.set_num_threads(2)
    compiled = cnnkern.from_keras(model)
    counts = set()
    for H, W in SIZES:
        x = image(H, W)
        y, expected = compiled.predict(x), model.predict(x, verbose=0)
        assert np.std(expected) > 1e-2 * np.abs(expected).max(), "outputs do not vary"
        assert np.abs(y - expected).max() <= BOUND * np.abs(expected).max()
        counts.add((kernels.compiled(), kernels.linked()))
    assert len(counts) == 1, "a size compiled or linked a kernel"


def test_memory_levels_off(model: Any) -> None:
    """The plans of all sizes, then of ever new ones, beyond what is kept."""
    compiled = cnnkern.from_keras(model)

    def predict_all() -> int:
        for H, W in SIZES:
            compiled.predict(image(H, W))
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        first = predict_all()
        for _ in range(10):
            last = predict_all()
        assert last - first < 64 << 10
        for H in range(8, 8 + 2 * MAX_PLANS):
            compiled.predict(image(H, 8, N=1))
        assert len(compiled._plans) == MAX_PLANS
    finally:
        tracemalloc.stop()


def test_what_does_not_fit_is_refused(model: Any) -> None:
    compiled = cnnkern.from_keras(model)
    with pytest.raises(cnnkern.ShapeError, match=r"expected \(None, None, None, 3\)"):
        compiled.predict(np.zeros((1, 9, 9, 4), np.float32))
    compiled.predict(image(9, 9))
