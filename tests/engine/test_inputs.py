"""What predict takes: anything that is real numbers of the right shape."""

from typing import Any

import numpy as np
import pytest

from cnnkern import engine
from cnnkern.engine import MAX_PLANS, Model
from cnnkern.errors import DTypeError, ShapeError
from cnnkern.graph import Array
from cnnkern.ops.activation import Activation
from cnnkern.ops.layout import Flatten
from cnnkern.ops.merge import Add, Concatenate
from cnnkern.plan import Constants
from support import evaluate, graph_of, images, small_cnn

INTEGERS = np.random.default_rng(4).integers(0, 2, (5, 12, 12, 3))


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(small_cnn())


@pytest.fixture(scope="module")
def pair() -> Model:
    """Two inputs, two outputs."""
    steps = [
        ("sum", Add(), ("a", "b")),
        ("y", Activation("tanh"), ("sum",)),
        ("z", Concatenate(), ("a", "sum")),
    ]
    return Model(graph_of({"a": (None, 3), "b": (None, 3)}, steps, "y", "z"))


def unaligned(x: Array) -> Array:
    raw = np.empty(x.nbytes + 1, np.uint8)
    view = raw[1:].view(np.float32).reshape(x.shape)
    view[...] = x
    return view


def strided(x: Array) -> Array:
    wide = np.full((*x.shape[:-1], 2 * x.shape[-1]), np.nan, np.float32)
    wide[..., ::2] = x
    return wide[..., ::2]


def read_only(x: Array) -> Array:
    x.flags.writeable = False
    return x


MAKERS: dict[str, Any] = {
    "float64": lambda x: x.astype(np.float64),
    "float16": lambda x: x.astype(np.float16),
    "uint8": lambda x: x.astype(np.uint8),
    "int64": lambda x: x.astype(np.int64),
    "bool": lambda x: x.astype(bool),
    "list": lambda x: x.tolist(),
    "list of arrays": list,
    "Fortran order": np.asfortranarray,
    "strided": strided,
    "reversed": lambda x: np.ascontiguousarray(x[::-1, ::-1])[::-1, ::-1],
    "byte-swapped": lambda x: x.astype(">f4"),
    "read-only": read_only,
    "unaligned": unaligned,
    "broadcast": lambda x: np.broadcast_to(x[:1], x.shape),
    "transposed": lambda x: np.ascontiguousarray(x.transpose(3, 1, 2, 0)).transpose(3, 1, 2, 0),
    "subclass": lambda x: x.view(np.ma.MaskedArray),
}


@pytest.mark.parametrize("name", MAKERS)
def test_equals_contiguous_float32(model: Model, name: str) -> None:
    x = INTEGERS.astype(np.float32)
    if name == "broadcast":
        x = np.repeat(x[:1], len(x), axis=0)
    given = MAKERS[name](x.copy())
    before = given.copy() if isinstance(given, np.ndarray) else None
    expected = model(x)
    for y in (model(given), model.predict(given), model.predict(given, batch_size=2)):
        np.testing.assert_array_equal(y, expected)
        assert type(y) is np.ndarray
        assert y.dtype == np.float32
        assert y.flags.c_contiguous
    if before is not None:
        np.testing.assert_array_equal(given, before)


@pytest.mark.parametrize(
    "shape",
    [(), (3,), (12, 12, 3), (1, 12, 12), (1, 12, 12, 4), (1, 11, 12, 3), (1, 1, 12, 12, 3)],
)
def test_shapes_that_do_not_fit(model: Model, shape: tuple[int, ...]) -> None:
    for call in (model, model.predict):
        with pytest.raises(ShapeError, match=r"'x': got shape .* expected \(None, 12, 12, 3\)"):
            call(np.zeros(shape, np.float32))


@pytest.mark.parametrize(
    "x",
    [
        np.zeros((1, 12, 12, 3), complex),
        np.zeros((1, 12, 12, 3), "U1"),
        np.full((1, 12, 12, 3), None),
        np.zeros((1, 12, 12, 3), "datetime64[s]"),
        "text",
        None,
        object(),
    ],
    ids=["complex", "text array", "objects", "dates", "text", "None", "object"],
)
def test_elements_that_are_not_real_numbers(model: Model, x: Any) -> None:
    for call in (model, model.predict):
        with pytest.raises(DTypeError, match="expected real numbers"):
            call(x)


def test_a_ragged_list(model: Model) -> None:
    with pytest.raises(ShapeError, match="ragged"):
        model([[1, 2], [3]])


def test_float64_beyond_float32_becomes_infinite() -> None:
    graph = graph_of({"x": (None, 2)}, [("y", Activation("relu"), ("x",))])
    assert Model(graph)(np.array([[1e300, -1e300]])).tolist() == [[np.inf, 0]]


def test_no_images(model: Model) -> None:
    empty = np.zeros((0, 12, 12, 3), np.float32)
    for y in (model(empty), model.predict(empty), model.predict(empty, batch_size=1)):
        assert y.shape == (0, 10)
        assert y.dtype == np.float32


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 31, 32, 33, 1000])
def test_batches_do_not_change_the_bits(model: Model, batch_size: int) -> None:
    x = images(33)
    singles = np.concatenate([model(x[i : i + 1]) for i in range(len(x))])
    np.testing.assert_array_equal(model.predict(x, batch_size=batch_size), singles)
    np.testing.assert_array_equal(model(x), singles)


@pytest.mark.parametrize(("cache_nbytes", "size"), [(1, 1), (3 * 10**5, 3), (1 << 30, 7)])
def test_groups_of_images_do_not_change_the_bits(
    monkeypatch: pytest.MonkeyPatch, cache_nbytes: int, size: int
) -> None:
    """Activations of 3 images fit: 7 images are groups of 3, 3 and 1."""
    x, model = images(7), Model(small_cnn())
    expected = model(x)
    single = model.plan((1, *x.shape[1:]))
    scale = single.arena_nbytes / 10**5
    monkeypatch.setattr(engine, "CACHE_NBYTES", int(cache_nbytes * scale))
    monkeypatch.setattr(Constants, "nbytes", 0)  # weights alone would speak for one group
    grouped = Model(small_cnn())
    np.testing.assert_array_equal(grouped(x), expected)
    assert (size, *x.shape[1:]) in {shape for (shape,) in grouped._plans}
    np.testing.assert_array_equal(grouped(x), expected)


@pytest.mark.parametrize("batch_size", [0, -1, 1.0, "2", True])
def test_batch_size_is_checked(model: Model, batch_size: Any) -> None:
    with pytest.raises(ValueError, match="batch_size"):
        model.predict(images(1), batch_size=batch_size)


def test_results_belong_to_the_caller(model: Model) -> None:
    x = images(1)
    first = model(x)
    kept = first.copy()
    first[:] = 7
    np.testing.assert_array_equal(model(x), kept)
    np.testing.assert_array_equal(model(images(1, seed=9)) == kept, False)


def test_several_inputs_and_outputs(pair: Model) -> None:
    a, b = images(2)[:, 0, 0], images(2)[:, 1, 0]
    expected = evaluate(pair.graph, a, b)
    for given in ([a, b], (a, b), {"b": b, "a": a}):
        for result in (pair(given), pair.predict(given), pair.predict(given, batch_size=1)):
            assert isinstance(result, list)
            for y, e in zip(result, expected, strict=True):
                np.testing.assert_allclose(y, e, rtol=1e-6)
    assert pair.input_shape == [(None, 3), (None, 3)]
    assert pair.output_shape == [(None, 3), (None, 6)]


def test_an_input_can_be_an_output() -> None:
    model = Model(graph_of({"x": (None, 2, 2)}, [("y", Flatten(), ("x",))], "x", "y"))
    x = images(3)[:, :2, :2, 0]
    same, flat = model(x)
    np.testing.assert_array_equal(same, x)
    np.testing.assert_array_equal(flat, x.reshape(3, 4))


def test_several_inputs_are_checked(pair: Model) -> None:
    a = np.zeros((2, 3), np.float32)
    with pytest.raises(ShapeError, match="expected 2 inputs, got 1"):
        pair([a])
    with pytest.raises(ShapeError, match="expected 2 inputs, got 3"):
        pair([a, a, a])
    with pytest.raises(ShapeError, match=r"expected inputs \['a', 'b'\], got \['a', 'c'\]"):
        pair({"a": a, "c": a})
    with pytest.raises(ShapeError, match=r"batch sizes differ: \[2, 1\]"):
        pair([a, a[:1]])
    with pytest.raises(DTypeError, match="'b'"):
        pair([a, a.astype(complex)])


def test_any_height_and_width() -> None:
    graph = small_cnn()
    steps = [(n.name, n.op, n.inputs) for n in graph.nodes if n.name in ("conv1", "relu1")]
    model = Model(graph_of({"x": (None, None, None, 3)}, steps))
    for side in (1, 2, 9, 40):
        x = images(1, side)
        np.testing.assert_allclose(model(x), evaluate(model.graph, x)[0], rtol=1e-4, atol=1e-5)


def test_plans_are_bounded(model: Model) -> None:
    for count in range(1, MAX_PLANS + 10):
        model(images(count))
    assert len(model._plans) == MAX_PLANS
    np.testing.assert_array_equal(model(images(1)), model.predict(images(1)))


def test_what_a_model_says_of_itself(model: Model) -> None:
    assert model.input_shape == (None, 12, 12, 3)
    assert model.output_shape == (None, 10)
    assert repr(model) == "<cnnkern.Model 'model' (None, 12, 12, 3) -> (None, 10)>"
