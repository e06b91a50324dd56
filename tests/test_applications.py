"""Every model of ``keras.applications`` against ``model.predict``; see applications.py."""

from __future__ import annotations

import pytest

from applications import NAMES, holds, parity


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_model_matches(name: str) -> None:
    import keras

    row = parity(name)
    keras.backend.clear_session()
    assert holds(row), row


def test_all_models_of_keras_are_listed() -> None:
    import keras

    functions = {
        name
        for name, value in vars(keras.applications).items()
        if name[0].isupper() and callable(value)
    }
    assert functions == set(NAMES)
