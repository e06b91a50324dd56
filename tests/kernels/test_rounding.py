"""Rounding quality: against float64, within the error that float32 sums must have."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cnnkern.codegen.isa import available
from cnnkern.graph import Array
from cnnkern.kernels import native, records
from cnnkern.ops.conv import Conv
from cnnkern.ops.dense import Dense
from integers import convolve
from support import graph_of, run_kernels

ISA_IDS = [isa.name for isa in available()]
each_isa = pytest.mark.parametrize("isa", available(), ids=ISA_IDS)
# exp leaves float32's normal range below this and is flushed to 0 at -86.6.
EXP_NORMAL = -86.6
# So does the sigmoid, below the first; it is 0 below the second.
SIGMOID_NORMAL, SIGMOID_ZERO = -87.3, -88.73


@each_isa
@pytest.mark.parametrize(
    ("sizes", "C", "OC"), [((1, 1), 64, 67), ((3, 3), 33, 40), ((5, 2), 7, 16), ((7, 7), 3, 35)]
)
def test_convolution(isa: Any, sizes: tuple[int, int], C: int, OC: int) -> None:
    rng = np.random.default_rng(C)
    shapes = (2, 17, 19, C), (*sizes, C, OC), (OC,)
    x, w, b = (rng.standard_normal(shape, np.float32) for shape in shapes)
    graph = graph_of({"x": (None, *x.shape[1:])}, [("y", Conv(w, b), ("x",))])
    (y,) = run_kernels(graph, x, isa=isa)
    exact, size = (_convolve64(f(x), f(w)) + f(b) for f in (np.positive, np.abs))
    assert_within(y, exact, size, w.size // OC)


@each_isa
@pytest.mark.parametrize(("N", "K", "units"), [(1, 2048, 100), (5, 35, 8), (33, 300, 67)])
def test_matrix_product(isa: Any, N: int, K: int, units: int) -> None:
    rng = np.random.default_rng(K)
    x, w, b = (rng.standard_normal(s, np.float32) for s in ((N, K), (K, units), units))
    (y,) = run_kernels(graph_of({"x": (None, K)}, [("y", Dense(w, b), ("x",))]), x, isa=isa)
    exact, size = (
        f(x).astype(np.float64) @ f(w).astype(np.float64) + f(b) for f in (np.positive, np.abs)
    )
    assert_within(y, exact, size, K)


@each_isa
def test_exp_is_within_2_ulp(isa: Any) -> None:
    exp = row_function("exponential", isa)
    x = sweep()
    normal = x[(x >= EXP_NORMAL) & (x <= 88.72)]
    assert ulps(exp(normal), np.exp(normal.astype(np.float64))).max() <= 2
    assert not exp(x[x < EXP_NORMAL]).any()
    assert np.isposinf(exp(x[x > 88.73])).all()
    special = exp(np.array([0, -0.0, np.inf, -np.inf, np.nan], np.float32))
    np.testing.assert_array_equal(special, np.array([1, 1, np.inf, 0, np.nan], np.float32))


@each_isa
def test_sigmoid_is_within_3_ulp(isa: Any) -> None:
    sigmoid = row_function("sigmoid", isa)
    x = sweep()
    normal = x[x >= SIGMOID_NORMAL]
    exact = 1 / (1 + np.exp(-normal.astype(np.float64)))
    assert ulps(sigmoid(normal), exact).max() <= 3
    nearly_zero = sigmoid(x[(x >= SIGMOID_ZERO) & (x < SIGMOID_NORMAL)])
    assert ((nearly_zero >= 0) & (nearly_zero < 1.001 * np.exp(SIGMOID_NORMAL))).all()
    assert not sigmoid(x[x < SIGMOID_ZERO]).any()
    special = sigmoid(np.array([0, -0.0, np.inf, -np.inf, np.nan], np.float32))
    np.testing.assert_array_equal(special, np.array([0.5, 0.5, 1, 0, np.nan], np.float32))


@each_isa
def test_silu_is_within_3_ulp(isa: Any) -> None:
    silu = row_function("silu", isa)
    x = sweep()
    normal = x[x >= SIGMOID_NORMAL]
    exact = normal.astype(np.float64) / (1 + np.exp(-normal.astype(np.float64)))
    is_normal = np.abs(exact) >= np.finfo(np.float32).tiny
    assert ulps(silu(normal), exact)[is_normal].max() <= 3
    special = silu(np.array([0, np.inf, -np.inf, np.nan], np.float32))
    np.testing.assert_array_equal(special, np.array([0, np.inf, np.nan, np.nan], np.float32))


@each_isa
def test_tanh_is_within_3_ulp(isa: Any) -> None:
    x = sweep()
    tanh = row_function("tanh", isa)
    assert ulps(tanh(x), np.tanh(x.astype(np.float64))).max() <= 3
    np.testing.assert_array_equal(tanh(-x), -tanh(x))


@each_isa
@pytest.mark.parametrize("name", ["sigmoid", "tanh", "silu", "gelu", "softplus", "mish"])
def test_bodies_and_tails_round_alike(isa: Any, name: str) -> None:
    function = row_function(name, isa)
    x = np.random.default_rng(3).standard_normal(67, np.float32) * np.float32(5)
    whole = function(x)
    for n in range(1, x.size):
        np.testing.assert_array_equal(function(x[:n]), whole[:n])


def assert_within(y: Array, exact: Any, size: Any, K: int) -> None:
    """Check ``|y - exact| <= (K + 8) * 2**-24 * (sum|w||x| + |b|)`` for every element."""
    assert (np.abs(y - exact) <= (K + 8) * 2.0**-24 * size).all()


def ulps(y: Array, exact: Any) -> Any:
    """Return the error in units of the last place of the exact result as float32."""
    unit = np.spacing(np.abs(exact).astype(np.float32)).astype(np.float64)
    return np.abs(y - exact) / unit


def sweep() -> Array:
    """Return a million normal float32 numbers of all exponents and both signs, sorted."""
    x = np.arange(0, 2**32, 4099, dtype=np.uint32).view(np.float32)
    x = x[np.isfinite(x) & (np.abs(x) >= np.finfo(np.float32).tiny)]
    near = np.linspace(-100, 100, 400_001, dtype=np.float32)
    return np.sort(np.concatenate([x, near[near != 0]]))


def row_function(name: str, isa: Any) -> Callable[[Array], Array]:
    """Return a row function of the catalogue as a function of float32[n]."""
    kernel, parameters = native(f"f32_{name}", isa), np.zeros(1, records.PARAMETERS)

    def function(x: Array) -> Array:
        x = np.ascontiguousarray(x)
        y = np.full_like(x, np.nan)
        kernel(parameters.ctypes.data, x.ctypes.data, y.ctypes.data, x.size)
        return y

    return function


def _convolve64(x: Any, w: Any) -> Any:
    x, w = x.astype(np.float64), w.astype(np.float64)
    return convolve(x, w, (1, 1), (1, 1), [(0, 0), (0, 0)], 1)
