"""Custom layers: mapped to ops or to NumPy functions, from live models and both formats."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cnnkern
from cnnkern import NumpyOp, naive
from cnnkern.engine import workspace
from cnnkern.errors import ModelFileError, ShapeError, UnsupportedLayerError
from cnnkern.ops.activation import Activation
from cnnkern.ops.norm import Affine
from cnnkern.reader import custom

pytestmark = pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")

NAME = "cnnkern_tests>Gain"


@pytest.fixture(autouse=True)
def only_this_tests_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(custom, "_factories", {})


@pytest.fixture(scope="module")
def model() -> Any:
    """Conv2D, the custom layer, Conv2D with a shortcut around both."""
    import keras
    from keras import layers

    @keras.saving.register_keras_serializable("cnnkern_tests")
    class Gain(layers.Layer):
        """``y = tanh(x * w * k)``."""

        def __init__(self, k: float = 2.0, **options: Any) -> None:
            super().__init__(**options)
            self.k = k

        def build(self, shape: Any) -> None:
            self.w = self.add_weight(shape=(shape[-1],), initializer="random_normal", name="w")

        def call(self, x: Any) -> Any:
            return keras.ops.tanh(x * self.w * self.k)

        def get_config(self) -> dict[str, Any]:
            return {**super().get_config(), "k": self.k}

    x = keras.Input((6, 5, 3))
    y = layers.Conv2D(8, 3, padding="same", name="first")(x)
    z = Gain(1.5, name="gain")(y)
    z = layers.Add()([layers.Conv2D(8, 3, padding="same", activation="relu")(z), y])
    return keras.Model(x, layers.Dense(4)(layers.Flatten()(Gain(name="again")(z))))


def to_ops(config: Any, weights: Any, shapes: Any) -> tuple[Any, ...]:
    factor = weights.take("w", (shapes[0][-1],)) * np.float32(config.number("k"))
    return Affine(factor, 0 * factor), Activation("tanh")


def to_function(config: Any, weights: Any, shapes: Any) -> NumpyOp:
    factor = weights.take("w", (shapes[0][-1],)) * np.float32(config.number("k"))
    return NumpyOp(lambda x: np.tanh(x * factor))


def forms(model: Any, folder: Path) -> Iterator[cnnkern.Model]:
    """Yield the model as cnnkern reads it: live and from both file formats."""
    yield cnnkern.from_keras(model)
    for suffix in (".keras", ".h5"):
        model.save(folder / f"model{suffix}")
        yield cnnkern.load(folder / f"model{suffix}")


@pytest.mark.parametrize("factory", [to_ops, to_function])
def test_a_custom_layer_matches_predict(model: Any, factory: Any, tmp_path: Path) -> None:
    cnnkern.register_layer(NAME, factory)
    x = np.random.default_rng(0).standard_normal((5, 6, 5, 3), np.float32)
    expected = model.predict(x, verbose=0)
    results = []
    for compiled in forms(model, tmp_path):
        results.append(compiled.predict(x, batch_size=2))
        (reference,) = naive.run(compiled.graph, [x])
        for y in (results[-1], reference):
            np.testing.assert_allclose(y, expected, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_array_equal(results[1], results[0])
    np.testing.assert_array_equal(results[2], results[0])


def test_an_unregistered_layer_is_named(model: Any, tmp_path: Path) -> None:
    fragment = r"Gain 'gain': class cnnkern_tests>Gain is not supported; cnnkern.register_layer"
    with pytest.raises(UnsupportedLayerError, match=fragment):
        cnnkern.from_keras(model)
    model.save(tmp_path / "model.keras")
    problems = cnnkern.check(tmp_path / "model.keras")
    assert [problem.layer for problem in problems] == ["gain", "again"]


def test_a_class_that_is_not_registered_with_keras_has_its_bare_name(tmp_path: Path) -> None:
    import keras

    class Twice(keras.layers.Layer):
        def call(self, x: Any, y: Any) -> Any:
            return 2 * x + y

    a, b = keras.Input((4,)), keras.Input((4,))
    model = keras.Model([a, b], Twice()(a, b))
    cnnkern.register_layer("Twice", lambda *_: NumpyOp(lambda x, y: 2 * x + y))
    x, y = np.arange(16, dtype=np.float32).reshape(2, 2, 4)
    for compiled in forms(model, tmp_path):
        np.testing.assert_array_equal(compiled.predict([x, y]), 2 * x + y)


def test_a_class_of_a_built_in_name_is_not_the_built_in(tmp_path: Path) -> None:
    import keras

    class ReLU(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return 2 * x

    x = keras.Input((4,))
    model = keras.Model(x, ReLU()(x))
    model.save(tmp_path / "model.keras")
    with pytest.raises(UnsupportedLayerError, match="class ReLU is not supported"):
        cnnkern.load(tmp_path / "model.keras")
    with pytest.raises(UnsupportedLayerError, match="class ReLU is not supported"):
        cnnkern.from_keras(model)


@pytest.mark.parametrize("name", ["keras.layers>Conv2D", "Conv2D"])
def test_layers_of_keras_cannot_be_replaced(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name!r} is a layer of Keras"):
        cnnkern.register_layer(name, to_ops)


def test_a_factory_must_be_callable() -> None:
    with pytest.raises(TypeError, match="must be callable"):
        cnnkern.register_layer(NAME, None)  # type: ignore[arg-type]


def fails(config: Any, weights: Any, shapes: Any) -> Any:
    raise KeyError("k")


def ignores_everything(config: Any, weights: Any, shapes: Any) -> Any:
    return Activation("tanh")


def ignores_the_option(config: Any, weights: Any, shapes: Any) -> Any:
    weights.take("w", (shapes[0][-1],))
    return Activation("tanh")


def ignores_the_weight(config: Any, weights: Any, shapes: Any) -> Any:
    config.take("k")
    return Activation("tanh")


@pytest.mark.parametrize(
    ("factory", "error", "fragment"),
    [
        (fails, UnsupportedLayerError, r"Gain 'gain': its registered factory failed: KeyError"),
        (lambda *_: len, UnsupportedLayerError, "returned <built-in function len>"),
        (lambda *_: (), UnsupportedLayerError, r"returned \(\)"),
        (ignores_everything, UnsupportedLayerError, "Gain 'gain': k=1.5 is not supported"),
        (ignores_the_option, UnsupportedLayerError, "Gain 'gain': k=1.5 is not supported"),
        (ignores_the_weight, ModelFileError, "Gain 'gain': 1 weights more"),
    ],
)
def test_bad_factories(model: Any, factory: Any, error: Any, fragment: str) -> None:
    cnnkern.register_layer(NAME, factory)
    with pytest.raises(error, match=fragment):
        cnnkern.from_keras(model)


def test_host_calls_stand_between_cut_segments(
    model: Any, monkeypatch: pytest.MonkeyPatch, always_parallel: None
) -> None:
    cnnkern.register_layer(NAME, to_function)
    compiled = cnnkern.from_keras(model)
    x = np.random.default_rng(0).standard_normal((5, 6, 5, 3), np.float32)
    expected = compiled.predict(x)
    monkeypatch.setattr(workspace, "SEGMENT_FLOPS", -1)
    cnnkern.set_num_threads(2)
    np.testing.assert_array_equal(cnnkern.from_keras(model).predict(x), expected)


def test_a_function_that_raises_leaves_the_model_usable() -> None:
    import keras

    class Checked(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return x

    def check(x: Any) -> Any:
        if (x < 0).any():
            raise RuntimeError("negative")
        assert not x.flags.writeable
        return x

    x = keras.Input((4,))
    cnnkern.register_layer("Checked", lambda *_: NumpyOp(check, lambda shape: shape))
    model = cnnkern.from_keras(keras.Model(x, keras.layers.ReLU()(Checked()(x))))
    ones = np.ones((3, 4), np.float32)
    with pytest.raises(RuntimeError, match="negative"):
        model.predict(-ones)
    np.testing.assert_array_equal(model.predict(ones), ones)


def test_a_function_that_returns_another_shape_is_refused() -> None:
    op = NumpyOp(lambda x: x[..., :2], lambda shape: shape)
    with pytest.raises(ShapeError, match=r"returned \(3, 2\), expected \(3, 4\)"):
        op.reference(np.ones((3, 4), np.float32))
