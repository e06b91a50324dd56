"""One model, three ways in: live, `.keras` and `.h5` give the same graph, bit for bit."""

import dataclasses

import numpy as np
import pytest

from cnnkern.errors import CnnkernError, ModelFileError, UnsupportedLayerError
from cnnkern.reader import check, from_keras, load

# Keras 3.15 reads its variables through an interface that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def keras():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
        return pytest.importorskip("keras")


def randomise(model):
    """Give every variable values of its own, variances positive ones."""
    rng = np.random.default_rng(0)
    for variable in model.variables:
        if variable.dtype == "float32":
            variable.assign(rng.uniform(0.5, 1.5, variable.shape).astype(np.float32))
    for layer in model._flatten_layers():
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()


def block(keras, name, channels):
    layers = keras.layers
    x = keras.Input((6, 6, channels), name=f"{name}_in")
    y = layers.Conv2D(4, 3, padding="same", name=f"{name}_c1")(x)
    y = layers.BatchNormalization(name=f"{name}_n")(y)
    y = layers.ReLU(name=f"{name}_r")(y)
    y = layers.Conv2D(4, 1, use_bias=False, name=f"{name}_c2")(y)
    return keras.Model(x, y, name=name)


def sequential(keras):
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((6, 6, 3), name="image"),
            layers.Rescaling(1 / 255, name="scale"),
            layers.Conv2D(4, 3, activation="relu", name="conv"),
            layers.BatchNormalization(scale=False, name="norm"),
            layers.MaxPooling2D(2, name="pool"),
            layers.Dropout(0.5, name="drop"),
            layers.Flatten(name="flat"),
            layers.Dense(3, activation="softmax", name="dense"),
        ],
        name="sequence",
    )


def lazy_sequential(keras):
    """Sequential models without Input, one in the other, built afterwards."""
    layers = keras.layers
    inner = keras.Sequential(
        [layers.Conv2D(2, 3, name="c"), layers.BatchNormalization(name="n")]
    )
    model = keras.Sequential([inner, layers.Flatten(name="f"), layers.Dense(2, name="d")])
    model.build((None, 5, 5, 1))
    return model


def branches(keras):
    """Two inputs, a nested model and a layer that are applied twice, three outputs."""
    layers = keras.layers
    a, b = keras.Input((6, 6, 3), name="a"), keras.Input((6, 6, 3), name="b")
    nested, shared = (
        block(keras, "block", 3),
        layers.Conv2D(4, 3, padding="same", name="shared"),
    )
    tail = keras.Sequential(
        [keras.Input((6, 6, 4)), layers.DepthwiseConv2D(3, name="dw")], name="tail"
    )
    left, right = shared(nested(a)), shared(nested(b))
    merged = layers.Concatenate(name="cat")([left, right])
    pooled = layers.GlobalAveragePooling2D(name="gap")(merged)
    outputs = [layers.Dense(2, name="head")(pooled), tail(left), tail(right)]
    return keras.Model([a, b], outputs, name="branches")


def operators(keras):
    """Python operators on tensors, with tensors and with numbers."""
    x = keras.Input((4, 4, 2), name="x")
    y = keras.layers.Conv2D(2, 1, name="c")(x)
    y = keras.layers.Add(name="add_layer")([y + x, y * 2.0])
    return keras.Model(x, 1.0 - y, name="operators")


def frozen(keras):
    """A nested model with one frozen layer in a model without any frozen one."""
    x = keras.Input((6, 6, 3), name="x")
    inner = block(keras, "inner", 3)
    inner.get_layer("inner_c1").trainable = False
    outer_in = keras.Input((6, 6, 3), name="o")
    outer = keras.Model(outer_in, block(keras, "deep", 4)(inner(outer_in)), name="outer")
    return keras.Model(x, outer(x), name="frozen")


def normalised(keras):
    x = keras.Input((4, 4, 3), name="x")
    normalise = keras.layers.Normalization(name="z")
    normalise.adapt(np.random.default_rng(1).standard_normal((8, 4, 4, 3)))
    return keras.Model(x, keras.layers.Conv2D(1, 1, name="c")(normalise(x)), name="normalised")


MODELS = [sequential, lazy_sequential, branches, operators, frozen, normalised]


@pytest.fixture(scope="module", params=MODELS, ids=lambda make: make.__name__)
def graphs(request, keras, tmp_path_factory):
    """A model, and its graphs from the live model, the `.keras` and the `.h5` file."""
    keras.utils.clear_session()
    model = request.param(keras)
    randomise(model)
    folder = tmp_path_factory.mktemp("models")
    model.save(folder / "model.keras")
    model.save(folder / "model.h5")
    paths = [folder / "model.keras", folder / "model.h5"]
    assert [check(source) for source in (model, *paths)] == [[], [], []]
    return model, [from_keras(model), *map(load, paths)]


def assert_same_op(one, other):
    assert type(one) is type(other)
    for field in dataclasses.fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(a, np.ndarray):
            assert (a.dtype, a.shape) == (np.float32, b.shape)
            assert a.tobytes() == b.tobytes(), field.name
        else:
            assert a == b, field.name


def test_three_ways_give_one_graph(graphs):
    _, (live, *others) = graphs
    for graph in others:
        assert dataclasses.replace(graph, nodes=()) == dataclasses.replace(live, nodes=())
        for one, other in zip(live.nodes, graph.nodes, strict=True):
            assert (one.name, one.inputs) == (other.name, other.inputs)
            assert_same_op(one.op, other.op)


def test_shapes_and_parameters_are_those_of_keras(graphs):
    model, (live, *_) = graphs
    shapes = live.shapes()
    assert [shapes[name] for name in live.inputs] == [tuple(t.shape) for t in model.inputs]
    assert [shapes[name] for name in live.outputs] == [tuple(t.shape) for t in model.outputs]
    assert sum(row.n_params for row in live.layers) == model.count_params()
    named = {layer.name: layer.count_params() for layer in model.layers}
    assert {row.name: row.n_params for row in live.layers if row.name in named} == named


def test_the_reference_computes_what_keras_predicts(graphs):
    model, (live, *_) = graphs
    rng = np.random.default_rng(2)
    shapes = [(2, *tensor.shape[1:]) for tensor in model.inputs]
    inputs = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    values = dict(zip(live.inputs, inputs, strict=True))
    for node in live.nodes:
        if node.inputs:
            values[node.name] = node.op.reference(*(values[name] for name in node.inputs))
    expected = model(inputs[0] if len(inputs) == 1 else inputs)
    expected = expected if isinstance(expected, (list, tuple)) else [expected]
    for name, y in zip(live.outputs, expected, strict=True):
        np.testing.assert_allclose(values[name], y.numpy(), rtol=1e-4, atol=1e-4)


def test_rows_are_those_of_the_summary(keras):
    rows = from_keras(operators(keras)).layers
    assert [row.class_name for row in rows[:2]] == ["InputLayer", "Conv2D"]
    assert sorted(row.class_name for row in rows[2:]) == ["Add", "Add", "Multiply", "Subtract"]
    assert [row.name for row in from_keras(sequential(keras)).layers][:2] == ["scale", "conv"]


def test_shared_layers_share_their_op(keras):
    graph = from_keras(branches(keras))
    assert graph["shared"].op is graph["shared_1"].op
    assert graph["block/block_c1"].op is graph["block/block_c1_1"].op


def test_a_live_normalization_uses_what_it_computes_with(keras, tmp_path):
    """Assigning the variables changes the file, and the layer only after finalize_state."""
    model = normalised(keras)
    layer = model.get_layer("z")
    before = from_keras(model)["z"].op
    layer.adapt_mean.assign([5.0, 6.0, 7.0])
    assert_same_op(from_keras(model)["z"].op, before)
    model.save(tmp_path / "model.keras")
    layer.finalize_state()
    assert_same_op(from_keras(model)["z"].op, load(tmp_path / "model.keras")["z"].op)


def test_a_layer_shared_by_two_nested_models(keras, tmp_path):
    """Keras stores its weights once, and cannot read the `.keras` file itself."""
    shared = keras.layers.Conv2D(3, 1, name="shared")

    def inner(name):
        x = keras.Input((4, 4, 3))
        return keras.Model(x, shared(x), name=name)

    x = keras.Input((4, 4, 3), name="x")
    model = keras.Model(x, inner("two")(inner("one")(x)))
    model.save(tmp_path / "model.keras")
    model.save(tmp_path / "model.h5")
    for graph in (from_keras(model), load(tmp_path / "model.h5")):
        assert_same_op(graph["one/shared"].op, graph["two/shared"].op)
    with pytest.raises(ModelFileError, match="'shared': weight 'kernel' is missing"):
        load(tmp_path / "model.keras")


def test_a_compiled_and_trained_model(keras, tmp_path):
    model = sequential(keras)
    model.compile("adam", "mse")
    model.fit(np.zeros((2, 6, 6, 3)), np.zeros((2, 3)), verbose=0)
    model.save(tmp_path / "model.keras")
    model.save(tmp_path / "model.h5")
    for source in ("model.keras", "model.h5"):
        assert_same_op(
            load(tmp_path / source)["dense/dense"].op, from_keras(model)["dense/dense"].op
        )


def test_subclasses_are_unsupported(keras):
    class Mine(keras.Model):
        def call(self, x):
            return x

    class Alike(keras.Sequential):
        pass

    mine = Mine()
    mine(np.zeros((1, 2)))
    alike = Alike([keras.Input((2,)), keras.layers.ReLU()])
    for model in (mine, alike):
        with pytest.raises(UnsupportedLayerError, match="accepted: Sequential or Functional"):
            from_keras(model)


def test_unbuilt_models_are_refused(keras):
    with pytest.raises(UnsupportedLayerError, match=r"not built: call model\.build"):
        from_keras(keras.Sequential([keras.layers.Dense(1)]))


@pytest.mark.parametrize("value", [None, 3, object(), b"model.keras"], ids=repr)
def test_other_things_are_refused(keras, value):
    with pytest.raises(UnsupportedLayerError, match=r"expected a keras\.Model"):
        from_keras(value)


def test_problems_of_a_live_model(keras, tmp_path):
    layers = keras.layers
    x = keras.Input((8, 8, 3), name="x")
    y = layers.Conv2D(4, 3, dtype="mixed_float16", name="half")(x)
    y = layers.Lambda(lambda t: t, output_shape=(6, 6, 4), name="lambda")(y)
    y = layers.Conv2D(4, 3, name="fine")(y)
    y = layers.Reshape((16, 4), name="shape")(y)
    y = layers.LSTM(3, name="lstm")(y)
    model = keras.Model(x, layers.Dense(1, name="dense")(y))
    model.save(tmp_path / "model.keras")
    for problems in (check(model), check(tmp_path / "model.keras")):
        assert [(p.layer, p.class_name) for p in problems] == [
            ("half", "Conv2D"), ("lambda", "Lambda"), ("lstm", "LSTM"),
        ]  # fmt: skip
        assert "mixed_float16" in problems[0].message


def test_errors_are_typed(keras, tmp_path):
    assert issubclass(ModelFileError, CnnkernError)
    with pytest.raises(ModelFileError, match="none"):
        check(tmp_path / "none")
