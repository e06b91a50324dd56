"""Element-wise activations."""

from __future__ import annotations

import numpy as np
import pytest

from cnnkern.errors import ModelFileError, UnsupportedLayerError
from cnnkern.graph import as_array
from cnnkern.ops.activation import FUNCTIONS, NAMES, Activation, by_name
from cnnkern.ops.config import TENSOR, LayerConfig
from cnnkern.ops.layout import Identity
from cnnkern.ops.softmax import Glu

from .case import Case, ListWeights, check, layer_case, op_case

SHAPE = (3, 7, 8)
RELUS = (
    {},
    {"max_value": 6.0},
    {"max_value": 1.5},
    {"negative_slope": 0.1},
    {"threshold": 0.5},
    {"max_value": 1.0, "negative_slope": 0.25},
    {"max_value": 1.0, "negative_slope": 0.25, "threshold": 0.5},
)
CASES = [
    *(layer_case("Activation", SHAPE, activation=name) for name in NAMES if name != "glu"),
    *(layer_case("ReLU", SHAPE, **options) for options in RELUS),
    *(Case("keras.activations.activations>ReLU", o, (SHAPE,), (TENSOR,)) for o in RELUS),
    layer_case("LeakyReLU", SHAPE),
    layer_case("LeakyReLU", SHAPE, negative_slope=0.0),
    layer_case("ELU", SHAPE),
    layer_case("ELU", SHAPE, alpha=0.5),
    *(
        op_case(f"nn>{name}", SHAPE)
        for name in (
            *("HardSigmoid", "HardSilu", "HardTanh", "LogSigmoid", "Relu", "Relu6", "Selu"),
            *("Sigmoid", "Silu", "Softplus", "Softsign", "SparsePlus", "SparseSigmoid"),
            "TanhShrink",
        )
    ),
    op_case("nn>Celu", SHAPE, alpha=0.5),
    op_case("nn>Elu", SHAPE, alpha=2.0),
    op_case("nn>Gelu", SHAPE),
    op_case("nn>Gelu", SHAPE, approximate=False),
    op_case("nn>HardShrink", SHAPE, threshold=0.25),
    op_case("nn>LeakyRelu", SHAPE, negative_slope=0.5),
    op_case("nn>SoftShrink", SHAPE, threshold=0.25),
    op_case("nn>Squareplus", SHAPE, b=2),
    op_case("nn>Threshold", SHAPE, threshold=0.5, default_value=-3.0),
    op_case("numpy>Exp", SHAPE),
    op_case("numpy>Tanh", SHAPE),
]
SPECIAL = as_array([np.nan, np.inf, -np.inf, -0.0, 0.0, 1e30, -1e30, 100, -100, 3, -3])
ONE_HOT_OUTPUT = ("softmax", "log_softmax", "sparsemax", "glu")  # mix elements


def test_activations_by_hand() -> None:
    x = as_array([-2, 0, 0.5, 8])
    assert Activation("relu").reference(x).tolist() == [0, 0, 0.5, 8]
    assert Activation("relu6").reference(x).tolist() == [0, 0, 0.5, 6]
    assert Activation("leaky_relu", (0.25,)).reference(x).tolist() == [-0.5, 0, 0.5, 8]
    # threshold 1, then clip at 3, then -0.5 * max(1 - x, 0)
    bounded = Activation("bounded_relu", (0.5, 3.0, 1.0))
    assert bounded.reference(x).tolist() == [-1.5, -0.5, -0.25, 3]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_activation_equals_keras(keras, case: Case) -> None:
    check(keras, case)


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ONE_HOT_OUTPUT])
def test_special_values_equal_keras(keras, name: str) -> None:
    expected = np.asarray(getattr(keras.activations, name)(SPECIAL))
    op = by_name(name) or Identity()
    np.testing.assert_allclose(op.reference(SPECIAL), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", RELUS, ids=str)
def test_special_values_of_relu_layers_equal_keras(keras, options: dict[str, float]) -> None:
    layer = keras.layers.ReLU(**options)
    config = LayerConfig("relu", "ReLU", dict(options))
    op = Activation.from_keras(config, ListWeights([]), [(None, 11)])
    expected = np.asarray(layer(SPECIAL[None]))[0]
    np.testing.assert_allclose(op.reference(SPECIAL), expected, rtol=1e-5, atol=1e-6)


def test_special_values_by_hand() -> None:
    x = as_array([np.nan, np.inf, -np.inf])
    threshold = Activation("bounded_relu", (0.0, np.inf, 1.0))
    assert threshold.reference(x).tolist() == [0, np.inf, 0]
    assert np.isnan(Activation("silu").reference(x)[2])
    assert not np.signbit(Activation("relu").reference(as_array([-0.0])))[0]


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_every_function_returns_float32(name: str) -> None:
    y = Activation(name).reference(np.linspace(-9, 9, 7, dtype=np.float32))
    assert y.dtype == np.float32
    assert y.shape == (7,)


def test_relu_layers_become_the_simplest_function() -> None:
    def read(**options: float) -> object:
        config = LayerConfig("relu", "ReLU", options)
        return Activation.from_keras(config, ListWeights([]), [(None, 4)])

    assert read() == Activation("relu")
    assert read(max_value=6) == Activation("relu6")
    assert read(negative_slope=0.5) == Activation("leaky_relu", (0.5,))
    assert read(threshold=1) == Activation("bounded_relu", (0.0, np.inf, 1.0))


def test_legacy_key_of_leaky_relu() -> None:
    config = LayerConfig("leaky", "LeakyReLU", {"alpha": 0.125})
    op = Activation.from_keras(config, ListWeights([]), [(None, 4)])
    assert op == Activation("leaky_relu", (0.125,))


def test_glu_by_name() -> None:
    """It has no case above: the Keras layer claims that it keeps the input's shape."""
    assert by_name("glu") == Glu()


def test_linear_is_the_identity() -> None:
    config = LayerConfig("act", "Activation", {"activation": "linear"})
    assert Activation.from_keras(config, ListWeights([]), [(None, 4)]) == Identity()
    assert by_name("linear") is None


def test_serialised_function() -> None:
    value = {"module": "builtins", "class_name": "function", "config": "relu"}
    config = LayerConfig("act", "Activation", {"activation": value})
    assert Activation.from_keras(config, ListWeights([]), [(None, 4)]) == Activation("relu")


def test_functions_of_other_modules_are_refused() -> None:
    value = {"module": "mine", "class_name": "function", "config": "relu"}
    config = LayerConfig("act", "Activation", {"activation": value})
    with pytest.raises(UnsupportedLayerError, match="Activation 'act': activation="):
        Activation.from_keras(config, ListWeights([]), [(None, 4)])


@pytest.mark.parametrize(
    ("class_name", "options", "error", "message"),
    [
        ("Activation", {"activation": "bounded_relu"}, UnsupportedLayerError, "bounded_relu"),
        (
            "Activation",
            {"activation": "os.system"},
            UnsupportedLayerError,
            "'os.system' is not",
        ),
        ("Activation", {"activation": ["relu"]}, UnsupportedLayerError, "activation="),
        ("Activation", {"activation": {"class_name": "X"}}, UnsupportedLayerError, "'X'"),
        ("ReLU", {"max_value": -1}, ModelFileError, "max_value=-1.0 must be a number of"),
        ("ReLU", {"threshold": "1"}, ModelFileError, "threshold='1' must be a finite number"),
        ("LeakyReLU", {"negative_slope": None}, ModelFileError, "negative_slope=None"),
        ("ELU", {"alpha": float("nan")}, ModelFileError, "alpha=nan"),
        ("ELU", {"beta": 2}, UnsupportedLayerError, "beta=2 is not supported"),
        ("Gelu", {"approximate": 1}, ModelFileError, "approximate=1 must be true or false"),
    ],
)
def test_refused_options_name_the_layer(
    class_name: str, options: dict[str, object], error: type[Exception], message: str
) -> None:
    config = LayerConfig("act", class_name, options)
    with pytest.raises(error, match=f"{class_name} 'act': .*{message}"):
        Activation.from_keras(config, ListWeights([]), [(None, 4)])
