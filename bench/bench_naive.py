"""The same computation at every level: compiled, NumPy windows, plain loops, Keras.

    pytest bench/bench_naive.py --benchmark-group-by=group

Results are compared before they are timed. The plain loops of the largest convolution
take seconds, so they run a few rounds only.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import cnnkern
import windows
from cnnkern import naive

rng = np.random.default_rng(0)
X = rng.standard_normal((1, 28, 28, 32), np.float32)
W = rng.standard_normal((3, 3, 32, 64), np.float32) / np.float32(17)
B = rng.standard_normal(64, np.float32)
ROWS = rng.standard_normal((16, 512), np.float32)
MATRIX = rng.standard_normal((512, 256), np.float32) / np.float32(22)

KERNELS: dict[str, dict[str, Callable[[], np.ndarray]]] = {
    "conv2d 28x28x32->64 3x3": {
        "compiled": lambda: cnnkern.conv2d(X, W, B),
        "windows": lambda: windows.conv2d(X, W, B),
        "naive": lambda: naive.conv2d(X, W, B),
    },
    "im2col 28x28x32 3x3": {
        "compiled": lambda: cnnkern.im2col(X, 3),
        "naive": lambda: naive.im2col(X, 3),
    },
    "max_pool2d 28x28x32": {
        "compiled": lambda: cnnkern.max_pool2d(X, 2),
        "windows": lambda: windows.max_pool2d(X, 2),
        "naive": lambda: naive.max_pool2d(X, 2),
    },
    "average_pool2d 28x28x32": {
        "compiled": lambda: cnnkern.average_pool2d(X, 2),
        "naive": lambda: naive.average_pool2d(X, 2),
    },
    "dense 16x512->256": {
        "compiled": lambda: cnnkern.dense(ROWS, MATRIX),
        "naive": lambda: naive.dense(ROWS, MATRIX),
    },
    **{
        f"{name} 25088 elements": {
            "compiled": lambda name=name: getattr(cnnkern, name)(X),
            "naive": lambda name=name: getattr(naive, name)(X),
        }
        for name in ("relu", "sigmoid", "tanh", "softmax")
    },
}
CASES = [(group, level) for group, levels in KERNELS.items() for level in levels]


@pytest.mark.parametrize(("group", "level"), CASES, ids=[f"{g}-{lv}" for g, lv in CASES])
def test_kernel(benchmark: Any, group: str, level: str) -> None:
    benchmark.group = group
    run, compiled = KERNELS[group][level], KERNELS[group]["compiled"]
    cnnkern.set_num_threads(1)
    expected = compiled()
    if level == "compiled":
        benchmark(run)
        return
    result = benchmark.pedantic(run, rounds=3, iterations=1)
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)


MODEL_LEVELS = ("compiled", "onnxruntime", "naive", "predict_on_batch", "predict")


@pytest.mark.parametrize("level", MODEL_LEVELS)
def test_seed_model(
    benchmark: Any, level: str, seed_keras: Any, seed_image: np.ndarray, seed_onnx: Any
) -> None:
    benchmark.group = "seed model, one image"
    model = cnnkern.from_keras(seed_keras)
    run: Callable[[], Any] = {
        "compiled": lambda: model(seed_image),
        "onnxruntime": lambda: seed_onnx(seed_image),
        "naive": lambda: naive.run(model.graph, [seed_image])[0],
        "predict_on_batch": lambda: seed_keras.predict_on_batch(seed_image),
        "predict": lambda: seed_keras.predict(seed_image, verbose=0),
    }[level]
    np.testing.assert_allclose(run(), model(seed_image), rtol=1e-5)
    if level == "compiled":
        benchmark.pedantic(model, (seed_image,), rounds=200, iterations=500, warmup_rounds=20)
    else:
        benchmark(run)


@pytest.mark.parametrize("level", ("compiled", "naive", "predict_on_batch", "predict"))
def test_digits_model(benchmark: Any, level: str, digits_file: Any) -> None:
    import keras

    benchmark.group = "digit classifier, one image"
    model = cnnkern.load(digits_file)
    x = rng.random((1, *model.input_shape[1:]), np.float32)
    keras_model = keras.models.load_model(digits_file)
    run: Callable[[], Any] = {
        "compiled": lambda: model(x),
        "naive": lambda: naive.run(model.graph, [x])[0],
        "predict_on_batch": lambda: keras_model.predict_on_batch(x),
        "predict": lambda: keras_model.predict(x, verbose=0),
    }[level]
    np.testing.assert_allclose(run(), model(x), rtol=1e-4, atol=1e-6)
    benchmark(run)
