"""Train the digit classifier that ships in cnnkern/data and store what Keras predicts.

    python scripts/train_digits.py      # needs: pip install .[test]

Writes ``digits.keras`` (the model) and ``digits.npz``: `images` uint8[360, 8, 8] held-out
digits with pixels 0..16, `labels` uint8[360], and `predictions` float32[360, 10], the
result of ``model.predict(images[..., None] / 16)``.

References
----------
Data: scikit-learn's ``load_digits``, from E. Alpaydin and C. Kaynak, "Optical Recognition
of Handwritten Digits", UCI Machine Learning Repository (1998), CC BY 4.0.
"""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

DATA = Path(__file__).parent.parent / "cnnkern" / "data"
SEED = 0
N_HELD_OUT = 360  # a fifth of the 1797 digits
N_EPOCHS = 60
PIXEL_MAX = 16


def build_model() -> keras.Model:
    """Return the untrained network, 8x8 pixels to 10 probabilities."""
    return keras.Sequential(
        [
            keras.Input((8, 8, 1), name="pixels"),
            keras.layers.Conv2D(16, 3, padding="same", use_bias=False, name="conv_1"),
            keras.layers.BatchNormalization(name="normalize"),
            keras.layers.ReLU(name="relu"),
            keras.layers.MaxPooling2D(2, name="pool_1"),
            keras.layers.Conv2D(32, 3, padding="same", activation="relu", name="conv_2"),
            keras.layers.MaxPooling2D(2, name="pool_2"),
            keras.layers.Flatten(name="flatten"),
            keras.layers.Dropout(0.4, name="dropout"),
            keras.layers.Dense(10, activation="softmax", name="digit"),
        ],
        name="digits",
    )


def train(model: keras.Model, x: np.ndarray, labels: np.ndarray) -> None:
    """Fit the model in place; the step size falls along a cosine to zero."""
    n_steps = N_EPOCHS * -(-len(x) // 32)
    model.compile(
        optimizer=keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(3e-3, n_steps)),
        loss="sparse_categorical_crossentropy",
    )
    model.fit(x, labels, batch_size=32, epochs=N_EPOCHS, verbose=0)


def without_optimizer(model: keras.Model) -> keras.Model:
    """Return a copy that saves its layers only."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def main() -> None:
    """Train, report the accuracy on the held-out digits, write both files."""
    keras.utils.set_random_seed(SEED)
    tf.config.experimental.enable_op_determinism()
    digits = load_digits()
    train_images, images, train_labels, labels = train_test_split(
        digits.images.astype(np.uint8),
        digits.target.astype(np.uint8),
        test_size=N_HELD_OUT,
        random_state=SEED,
        stratify=digits.target,
    )
    model = build_model()
    train(model, train_images[..., None] / PIXEL_MAX, train_labels)
    model = without_optimizer(model)
    predictions = model.predict(images[..., None] / PIXEL_MAX, verbose=0)
    accuracy = (predictions.argmax(axis=1) == labels).mean()
    model.save(DATA / "digits.keras")
    np.savez_compressed(
        DATA / "digits.npz", images=images, labels=labels, predictions=predictions
    )
    print(
        f"{len(train_images)} digits learnt, accuracy on {len(images)} others: {accuracy:.2%}"
    )


if __name__ == "__main__":
    main()
