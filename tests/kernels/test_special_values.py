"""NaN, infinities and signed zeros: what TensorFlow gives, at every length of a row."""

from typing import Any

import numpy as np
import pytest

from cnnkern.codegen.isa import available
from cnnkern.graph import Array, Op
from cnnkern.ops.activation import Activation
from cnnkern.ops.conv import Conv
from cnnkern.ops.depthwise import DepthwiseConv
from cnnkern.ops.pool import AveragePool, GlobalAveragePool, MaxPool
from cnnkern.ops.prelu import PReLU
from support import graph_of, run_kernels

NAN, INF = float("nan"), float("inf")
LOWEST = float(np.finfo(np.float32).min)
INPUTS = (NAN, INF, -INF, -0.0)
THRESHOLD_1 = (0.0, INF, 1.0)  # slope, max_value, threshold
# Measured on TensorFlow 2.21: the results for INPUTS.
TABLE = [
    (Activation("relu"), (NAN, INF, 0.0, 0.0)),
    (Activation("relu6"), (NAN, 6.0, 0.0, 0.0)),
    (Activation("bounded_relu", THRESHOLD_1), (0.0, INF, 0.0, 0.0)),
    (Activation("leaky_relu", (0.3,)), (NAN, INF, -INF, -0.0)),
    (Activation("sigmoid"), (NAN, 1.0, 0.0, 0.5)),
    (Activation("tanh"), (NAN, 1.0, -1.0, -0.0)),
    (Activation("silu"), (NAN, INF, NAN, -0.0)),
    (Activation("hard_silu"), (NAN, INF, NAN, -0.0)),
    (Activation("gelu"), (NAN, INF, NAN, -0.0)),
    (Activation("mish"), (NAN, INF, NAN, -0.0)),
    (Activation("softplus"), (NAN, INF, 0.0, float(np.float32(np.log(2))))),
    (Activation("softsign"), (NAN, NAN, NAN, -0.0)),
]

each_isa = pytest.mark.parametrize("isa", available(), ids=lambda isa: isa.name)


@each_isa
@pytest.mark.parametrize(
    ("activation", "expected"), TABLE, ids=[activation.function for activation, _ in TABLE]
)
def test_activations(isa: Any, activation: Activation, expected: tuple[float, ...]) -> None:
    for n in range(1, 68):
        x = np.resize(np.array(INPUTS, np.float32), (1, n))
        y = apply(activation, x, isa)
        assert_same_bits(y, np.resize(np.array(expected, np.float32), (1, n)))


@each_isa
@pytest.mark.parametrize(("activation", "expected"), TABLE[:2], ids=["relu", "relu6"])
def test_clips_in_the_epilogue_of_a_convolution(
    isa: Any, activation: Activation, expected: tuple[float, ...]
) -> None:
    identity = Conv(np.ones((1, 1, 1, 1), np.float32), None, activation=activation)
    for n in range(1, 68):
        x = np.resize(np.array(INPUTS, np.float32), (1, n, 1, 1))
        y = apply(identity, x, isa)
        np.testing.assert_array_equal(y, np.resize(np.array(expected, np.float32), x.shape))


@each_isa
def test_slopes_in_an_epilogue(isa: Any) -> None:
    slopes = np.full(1, 0.3, np.float32)
    for n in range(4, 68):
        x = np.resize(np.array(INPUTS, np.float32), (1, 1, 1, n))
        op = DepthwiseConv(np.ones((1, 1, n, 1), np.float32), activation=PReLU(slopes))
        expected = np.resize(np.array((NAN, INF, -INF, 0.0), np.float32), x.shape)
        np.testing.assert_array_equal(apply(op, x, isa), expected)


@each_isa
def test_max_pooling_drops_nan(isa: Any) -> None:
    windows = [[NAN, 1], [NAN, NAN], [-INF, -INF], [INF, NAN], [-INF, -5]]
    x = np.array(windows, np.float32).reshape(1, -1, 1, 1)
    for n in range(1, 68):
        y = apply(MaxPool((2, 1), (2, 1)), np.repeat(x, n, axis=-1), isa)
        assert y[0, :, 0].tolist() == [[v] * n for v in (1, LOWEST, LOWEST, INF, -5)]


@each_isa
@pytest.mark.parametrize("op", [AveragePool((2, 1), (2, 1)), GlobalAveragePool()])
def test_averages_keep_nan(isa: Any, op: Op) -> None:
    for n in range(1, 68):
        x = np.full((1, 2, 1, n), NAN, np.float32)
        x[:, 1] = 1
        assert np.isnan(apply(op, x, isa)).all()
        x[:, 0] = INF
        assert np.isposinf(apply(op, x, isa)).all()


@each_isa
def test_zero_weights_times_infinity(isa: Any) -> None:
    """The infinity reaches its receptive field; implicit padding adds nothing."""
    x = np.zeros((1, 5, 5, 1), np.float32)
    x[0, 0, 0] = INF
    y = apply(Conv(np.zeros((3, 3, 1, 33), np.float32), None, padding="same"), x, isa)
    assert np.isnan(y[0, :2, :2]).all()
    y[0, :2, :2] = 0
    assert not y.any()


def apply(op: Op, x: Array, isa: Any) -> Array:
    (y,) = run_kernels(graph_of({"x": (None, *x.shape[1:])}, [("y", op, ("x",))]), x, isa=isa)
    return y


def assert_same_bits(y: Array, expected: Array) -> None:
    """Compare numbers and the signs of zeros; any NaN equals any other."""
    np.testing.assert_array_equal(y, expected)
    numbers = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(y[numbers]), np.signbit(expected[numbers]))
