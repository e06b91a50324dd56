"""Every model of ``keras.applications`` against ``model.predict``; see applications.py."""

from __future__ import annotations

import pytest

from applications import NAMES, ROUNDING_BOUND, holds, parity, rounding


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_model_matches(name: str) -> None:
    import keras

    row = parity(name)
    keras.backend.clear_session()
    assert holds(row), row


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["DenseNet121", "EfficientNetB0", "MobileNetV2", "ResNet50", "VGG16", "Xception"]
)
def test_strict_rounds_like_tensorflow(name: str) -> None:
    import keras

    errors = rounding(name)
    keras.backend.clear_session()
    assert 0 < errors["strict"] <= ROUNDING_BOUND * errors["tensorflow"], errors


def test_all_models_of_keras_are_listed() -> None:
    import keras

    functions = {
        name
        for name, value in vars(keras.applications).items()
        if name[0].isupper() and callable(value)
    }
    assert functions == set(NAMES)
