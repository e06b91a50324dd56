"""Models of several inputs and outputs, shared layers and nested models, against predict."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cnnkern
from cnnkern.errors import ShapeError
from cnnkern.structure import leaves
from random_models import randomise

pytestmark = pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")

RNG = np.random.default_rng(5)
A = RNG.standard_normal((3, 8, 8, 3), np.float32)
B = RNG.standard_normal((3, 6), np.float32)


def tensors() -> tuple[Any, Any, Any, Any]:
    """Return an image input, a vector input, a class score and a map."""
    from keras import Input, layers

    a, b = Input((8, 8, 3), name="image"), Input((6,), name="meta")
    image_map = layers.Conv2D(4, 3, activation="relu", name="map")(a)
    vector = layers.Dense(4, activation="tanh")(b)
    pooled = layers.GlobalAveragePooling2D()(image_map)
    score = layers.Dense(5, name="score")(layers.Concatenate()([pooled, vector]))
    return a, b, score, image_map


# Inputs of the model, outputs of the model, what predict is given: made from tensors.
GROUPINGS: dict[str, Callable[[Any, Any, Any, Any], tuple[Any, Any, Any]]] = {
    "lists": lambda a, b, s, m: ([a, b], [s, m], [A, B]),
    "tuple": lambda a, b, s, m: ([a, b], [s, m], (A, B)),
    "list of one output": lambda a, b, s, m: ([a, b], [s], [A, B]),
    "inputs by name": lambda a, b, s, m: ([a, b], [s, m], {"meta": B, "image": A}),
    "dicts": lambda a, b, s, m: (
        {"meta": b, "image": a}, {"score": s, "map": m}, {"image": A, "meta": B}
    ),
    "dict of one output": lambda a, b, s, m: ({"image": a, "meta": b}, {"y": m},
                                              {"image": A, "meta": B}),
    "nested": lambda a, b, s, m: ([a, {"meta": b}], {"z": [s, m], "y": {"x": m}},
                                  [A, {"meta": B}]),
}  # fmt: skip


def assert_same_structure(result: Any, expected: Any) -> None:
    """Assert equal lists and dicts of close arrays."""
    assert type(result) is type(expected)
    if isinstance(expected, dict):
        assert list(result) == list(expected)
        result, expected = list(result.values()), list(expected.values())
    if isinstance(expected, list):
        for y, e in zip(result, expected, strict=True):
            assert_same_structure(y, e)
        return
    assert np.std(expected) > 1e-3 * np.abs(expected).max()
    np.testing.assert_allclose(result, expected, atol=1e-5 * np.abs(expected).max(), rtol=0)


def assert_matches(model: Any, x: Any, folder: Path) -> cnnkern.Model:
    """Assert parity with predict in structure and values, and the same bits from files."""
    randomise(model, np.random.default_rng(6))
    expected = model.predict(x, verbose=0)
    compiled = cnnkern.from_keras(model)
    result = compiled.predict(x)
    assert_same_structure(result, expected)
    assert_same_structure(compiled(x), expected)
    assert_same_structure(compiled.predict(x, batch_size=2), expected)
    for suffix in (".keras", ".h5"):
        model.save(folder / f"model{suffix}")
        again = cnnkern.load(folder / f"model{suffix}").predict(x)
        for one, other in zip(leaves(again), leaves(result), strict=True):
            np.testing.assert_array_equal(one, other)
    return compiled


@pytest.mark.parametrize("grouping", GROUPINGS)
def test_groupings(grouping: str, tmp_path: Path) -> None:
    import keras

    inputs, outputs, x = GROUPINGS[grouping](*tensors())
    model = keras.Model(inputs, outputs)
    compiled = assert_matches(model, x, tmp_path)
    assert compiled.output_shape == model.output_shape
    assert compiled.input_shape == model.input_shape


@pytest.mark.parametrize(
    "x", [A, [A], (A,), {"image": A}], ids=["array", "list", "tuple", "dict"]
)
def test_one_input(x: Any) -> None:
    import keras

    a, _, _, image_map = tensors()
    model = keras.Model(a, {"map": image_map})
    expected = model.predict(A, verbose=0)
    assert_same_structure(cnnkern.from_keras(model).predict(x), expected)


@pytest.mark.filterwarnings("ignore:When providing `inputs` as a dict")
def test_keys_that_are_not_the_names_of_inputs(tmp_path: Path) -> None:
    import keras

    a, b, score, _ = tensors()
    model = keras.Model({"u": a, "v": b}, score)
    assert_matches(model, {"u": A, "v": B}, tmp_path)


def test_inputs_that_are_built_otherwise() -> None:
    import keras

    a, b, score, _ = tensors()
    model = cnnkern.from_keras(keras.Model({"meta": b, "image": a}, score))
    for x, fragment in (
        ([A, B], r"expected 2 inputs as {'meta': 'meta', 'image': 'image'}, got 2"),
        (A, "got ndarray"),
        ({"image": A}, r"expected inputs \['meta', 'image'\], got \['image'\]"),
        ({"image": A, "meta": B, "more": B}, "got .*'more'"),
    ):
        with pytest.raises(ShapeError, match=fragment):
            model.predict(x)


def test_a_shared_layer(tmp_path: Path) -> None:
    import keras
    from keras import layers

    one, other = keras.Input((8, 8, 3), name="one"), keras.Input((8, 8, 3), name="other")
    shared, norm = layers.Conv2D(4, 3), layers.BatchNormalization()
    y = layers.Subtract()([norm(shared(one)), norm(shared(other))])
    model = keras.Model([one, other], layers.Dense(3)(layers.GlobalMaxPooling2D()(y)))
    compiled = assert_matches(model, [A, A[::-1]], tmp_path)
    n_params = {layer.name: layer.n_params for layer in compiled.layers}
    assert sum(n_params.values()) == model.count_params()


@pytest.mark.filterwarnings("ignore:When providing `inputs` as a dict")
@pytest.mark.parametrize("grouping", ["lists", "dicts", "nested"])
def test_a_nested_model_of_several_inputs_and_outputs(grouping: str, tmp_path: Path) -> None:
    import keras
    from keras import layers

    inputs, outputs, x = GROUPINGS[grouping](*tensors())
    inner = keras.Model(inputs, outputs, name="inner")
    fresh = keras.tree.map_structure(
        lambda t: keras.Input(t.shape[1:], name=f"my_{t.name}"), inputs
    )
    score, image_map, *_ = reversed(keras.tree.flatten(inner(fresh)))
    y = layers.Flatten()(layers.Conv2D(2, 3)(image_map if len(image_map.shape) == 4 else score))
    model = keras.Model(fresh, [y, score])
    if grouping == "lists":
        assert_matches(model, x, tmp_path)
    else:
        named = {"my_image": A, "my_meta": B}
        compiled = cnnkern.from_keras(model)
        expected = model.predict(x, verbose=0)
        for y, e in zip(compiled.predict(named), expected, strict=True):
            np.testing.assert_allclose(y, e, atol=1e-5 * np.abs(e).max(), rtol=0)


def test_a_nested_model_that_is_applied_twice(tmp_path: Path) -> None:
    import keras
    from keras import Sequential, layers

    tower = Sequential([layers.Conv2D(4, 3, activation="relu"), layers.MaxPooling2D(2)])
    one, other = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    deep = keras.Model(one, layers.Flatten()(tower(one)), name="deep")
    y = layers.Maximum()([deep(one), deep(other)])
    model = keras.Model([one, other], layers.Dense(3)(y))
    assert_matches(model, [A, A[::-1]], tmp_path)
