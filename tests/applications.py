"""The 40 models of ``keras.applications``, with weights that keep activations alive.

    python tests/applications.py [--rounding] [NAME ...]

prints a parity table: cnnkern against ``model.predict`` for each model, before and after
the softmax and without the top, from the live model and from both file formats. With
`--rounding` it compares the errors that cnnkern and TensorFlow make against float64.
"""

from __future__ import annotations

import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import cnnkern

PARITY_BOUND = 1e-4  # of the largest output
ROUNDING_BOUND = 1.5  # times TensorFlow's error, with precision="strict"

NAMES = (
    "ConvNeXtBase", "ConvNeXtLarge", "ConvNeXtSmall", "ConvNeXtTiny", "ConvNeXtXLarge",
    "DenseNet121", "DenseNet169", "DenseNet201",
    "EfficientNetB0", "EfficientNetB1", "EfficientNetB2", "EfficientNetB3", "EfficientNetB4",
    "EfficientNetB5", "EfficientNetB6", "EfficientNetB7",
    "EfficientNetV2B0", "EfficientNetV2B1", "EfficientNetV2B2", "EfficientNetV2B3",
    "EfficientNetV2L", "EfficientNetV2M", "EfficientNetV2S",
    "InceptionResNetV2", "InceptionV3",
    "MobileNet", "MobileNetV2", "MobileNetV3Large", "MobileNetV3Small",
    "NASNetLarge", "NASNetMobile",
    "ResNet101", "ResNet101V2", "ResNet152", "ResNet152V2", "ResNet50", "ResNet50V2",
    "VGG16", "VGG19", "Xception",
)  # fmt: skip

SIZES = {"InceptionResNetV2": 107, "InceptionV3": 107, "Xception": 107, "NASNetLarge": 107}
DEFAULT_SIZE = 96
CALIBRATION_IMAGES = 8


def build(name: str, rng: np.random.Generator, include_top: bool = True) -> Any:
    """Return a model with random weights and BatchNorm statistics that fit its activations."""
    import keras

    keras.utils.set_random_seed(int(rng.integers(1 << 30)))
    size = SIZES.get(name, DEFAULT_SIZE)
    top: dict[str, Any] = {"include_top": True, "classifier_activation": None}
    if not include_top:
        top = {"include_top": False, "pooling": str(rng.choice(["avg", "max"]))}
    model = getattr(keras.applications, name)(weights=None, input_shape=(size, size, 3), **top)
    spread(model, images(model, CALIBRATION_IMAGES, rng), rng)
    return model


def images(model: Any, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return float32[count, ..., C] pixels of 0..255, smooth enough to look like images."""
    _, *lengths, C = model.input_shape
    smooth = rng.uniform(0, 255, (count, *(n // 8 + 1 for n in lengths), C))
    for axis, n in enumerate(lengths, 1):
        smooth = smooth.repeat(8, axis).take(range(n), axis)
    return (0.7 * smooth + 0.3 * rng.uniform(0, 255, smooth.shape)).astype(np.float32)


def spread(model: Any, x: np.ndarray, rng: np.random.Generator) -> None:
    """Draw scales and offsets, then set the statistics near those of the activations.

    Random deep networks are chaotic: they multiply a rounding error as they multiply any
    other difference. Small scales and positive offsets keep that factor low, as training
    does, so that a comparison measures the arithmetic and not the chaos.
    """
    import keras

    layers = [layer for layer in model._flatten_layers(include_self=False)]
    norms = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
    for weight in model.weights:
        role, shape = weight.path.rsplit("/", 1)[-1], tuple(weight.shape)
        if role == "gamma":
            weight.assign(rng.uniform(0.2, 0.7, shape))
        elif role in ("beta", "bias"):
            weight.assign(rng.normal(0.3, 0.3, shape))
    dropouts = [layer for layer in layers if isinstance(layer, keras.layers.Dropout)]
    rates = [layer.rate for layer in dropouts]
    for layer in dropouts:
        layer.rate = 0.0  # statistics of a network without dropout, as at inference
    for layer in norms:
        layer.momentum = 0.0
    if norms:
        model(x, training=True)
    for layer, rate in zip(dropouts, rates, strict=True):
        layer.rate = rate
    for layer in norms:
        # A channel that hardly varies over a few images would be blown up on the next one.
        variance = np.asarray(layer.moving_variance)
        layer.moving_variance.assign(np.maximum(variance, 0.5 * variance.mean()))
        deviation = np.sqrt(np.asarray(layer.moving_variance) + layer.epsilon)
        shift = deviation * rng.normal(0, 0.1, deviation.shape)
        layer.moving_mean.assign(np.asarray(layer.moving_mean) + shift)
        factor = rng.uniform(0.8, 1.25, deviation.shape)
        layer.moving_variance.assign(np.asarray(layer.moving_variance) * factor)


def difference(result: np.ndarray, expected: np.ndarray) -> float:
    """Return max|d| / max|y|; infinite where the outputs prove nothing."""
    if np.std(expected) < 1e-3 * np.abs(expected).max():
        return float("inf")
    return float(np.abs(result - expected).max() / np.abs(expected).max())


def softmax(x: np.ndarray) -> np.ndarray:
    """Return the probabilities of logits, in float64."""
    z = np.exp(x.astype(np.float64) - x.max(axis=-1, keepdims=True))
    return z / z.sum(axis=-1, keepdims=True)


def parity(name: str, seed: int = 0) -> dict[str, Any]:
    """Compare one model in every way; returns the differences and whether files agree."""
    rng = np.random.default_rng(seed)
    row: dict[str, Any] = {"name": name}
    for key, include_top in (("logits", True), ("features", False)):
        model = build(name, rng, include_top)
        x = images(model, 2, rng)
        expected = np.asarray(model.predict(x, verbose=0))
        result = cnnkern.from_keras(model).predict(x)
        row[key] = difference(result, expected)
        if include_top:
            row["probabilities"] = float(np.abs(softmax(result) - softmax(expected)).max())
        row[f"{key} files"] = all(
            np.array_equal(loaded.predict(x), result) for loaded in from_files(model)
        )
    return row


def from_files(model: Any) -> Iterator[cnnkern.Model]:
    """Yield the model as read from a .keras and from an .h5 file."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for suffix in (".keras", ".h5"):
            path = Path(folder) / f"model{suffix}"
            model.save(path)
            yield cnnkern.load(path)


def holds(row: dict[str, Any]) -> bool:
    """Tell whether a row of the table is within the bound, files included."""
    worst = max(row["logits"], row["features"])
    return worst <= PARITY_BOUND and row["logits files"] and row["features files"]


def rounding(name: str, seed: int = 0) -> dict[str, float]:
    """Return the RMS errors of the logits against a float64 evaluation, of their RMS."""
    import keras

    rng = np.random.default_rng(seed)
    model = build(name, rng)
    x = images(model, 2, rng)
    results = {
        precision: cnnkern.from_keras(model, precision=precision).predict(x)
        for precision in ("strict", "fast")
    }
    results["tensorflow"] = np.asarray(model.predict(x, verbose=0))
    policy = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("float64")
        exact_model = build(name, np.random.default_rng(seed))
        exact_model.set_weights(model.get_weights())
        exact = np.asarray(exact_model.predict(x.astype(np.float64), verbose=0))
    finally:
        keras.config.set_dtype_policy(policy)
    assert exact.dtype == np.float64
    scale = np.sqrt(np.mean(exact**2))
    return {
        key: float(np.sqrt(np.mean((y - exact) ** 2)) / scale) for key, y in results.items()
    }


def print_rounding(names: list[str]) -> int:
    """Print the errors; return in how many models "strict" is beyond its bound."""
    import keras

    failures = 0
    print(f"{'model':20} {'strict':>9} {'fast':>9} {'predict':>9} {'strict/predict':>15}")
    for name in names or NAMES:
        row = rounding(name)
        keras.backend.clear_session()
        ratio = row["strict"] / row["tensorflow"]
        failures += ratio > ROUNDING_BOUND
        errors = " ".join(f"{row[key]:9.1e}" for key in ("strict", "fast", "tensorflow"))
        print(f"{name:20} {errors} {ratio:15.2f}", flush=True)
    return failures


def main(names: list[str]) -> int:
    """Print the table; return the number of models that do not match."""
    import keras

    failures = 0
    print(f"{'model':20} {'logits':>9} {'probab.':>9} {'features':>9} {'files':>6} {'s':>5}")
    for name in names or NAMES:
        start = time.perf_counter()
        row = parity(name)
        keras.backend.clear_session()
        failures += not holds(row)
        files = "equal" if row["logits files"] and row["features files"] else "DIFFER"
        print(
            f"{name:20} {row['logits']:9.1e} {row['probabilities']:9.1e} "
            f"{row['features']:9.1e} {files:>6} {time.perf_counter() - start:5.0f}"
            f"{'' if holds(row) else '   FAILS'}",
            flush=True,
        )
    print(f"{len(names or NAMES) - failures} of {len(names or NAMES)} models match")
    return failures


if __name__ == "__main__":
    if sys.argv[1:2] == ["--rounding"]:
        sys.exit(print_rounding(sys.argv[2:]))
    sys.exit(main(sys.argv[1:]))
