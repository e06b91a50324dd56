"""The seed network in Keras: built, trained on two samples, compared with cnnkern."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from .. import naive
from ..api import from_keras
from ..graph import Array
from .seed import LABELS, SAMPLES, SeedWeights, walk

N_EPOCHS = 50
SEED = 3  # a start from which the ReLU does not die


def trained_model() -> Any:
    """Return the Keras model after 50 epochs on the two samples."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow reports its build on stderr
    import keras

    keras.utils.set_random_seed(SEED)
    model = keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            keras.layers.Conv2D(1, 3, activation="relu"),
            keras.layers.MaxPooling2D(2),
            keras.layers.Flatten(),
            keras.layers.Dense(1, activation="sigmoid"),
        ],
        name="seed",
    )
    model.compile(optimizer=keras.optimizers.Adam(0.01), loss="binary_crossentropy")
    model.fit(SAMPLES, LABELS, epochs=N_EPOCHS, verbose=0)
    return model


def predictions(model: Any) -> dict[str, Array]:
    """Return float32[2] predictions of the samples by each of the three ways."""
    weights = SeedWeights(*model.get_weights())
    by_loops = [walk(naive, x[None], weights)["sigmoid"].item() for x in SAMPLES]
    return {
        "Naive loops": np.array(by_loops, np.float32),
        "Compiled kernels": from_keras(model).predict(SAMPLES)[:, 0],
        "model.predict": model.predict(SAMPLES, verbose=0)[:, 0],
    }


def print_comparison(console: Console) -> None:
    """Train the network and print the three ways side by side."""
    with console.status("training the same network in Keras ..."):
        results = predictions(trained_model())
    console.rule(f"The same network in Keras, {N_EPOCHS} epochs on two samples")
    table = Table("Sample", "Label", header_style="bold")
    for heading in results:
        table.add_column(heading, justify="right")
    for i, label in enumerate(LABELS):
        table.add_row(str(i + 1), f"{label:g}", *(f"{y[i]:.8f}" for y in results.values()))
    console.print(table)
    keras_y = results["model.predict"]
    largest = max(np.abs(y - keras_y).max() for y in results.values())
    console.print(f"Largest difference from model.predict: {largest:.1e}", highlight=False)
