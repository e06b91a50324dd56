"""The jit wrapper: the contract of kernels is enforced when they are compiled."""

import ctypes
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cnnkern.codegen import loader
from cnnkern.codegen.isa import Isa, available, best
from cnnkern.codegen.jit import compile_object
from cnnkern.codegen.vector import floats
from cnnkern.errors import PlanError
from cnnkern.kernels.records import PARAMETERS

each_isa = pytest.mark.parametrize("isa", available(), ids=lambda isa: isa.name)


def compiled(body: Callable[..., None], isa: Isa) -> Any:
    symbol = f"test_{body.__name__}__{isa.name}"
    address = loader.link(symbol, compile_object(body, PARAMETERS, symbol, isa))
    return ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)(address)


def multiply_by_a(p, x_row, y_row, n):  # type: ignore[no-untyped-def]
    x, y = floats(x_row), floats(y_row)
    for i in range(n):
        y[i] = p.a * x[i]


def allocate(p, x_row, y_row, n):  # type: ignore[no-untyped-def]
    table = np.zeros(n, np.float32)
    for i in range(n):
        floats(y_row)[i] = table[i // 2]


def raise_error(p, x_row, y_row, n):  # type: ignore[no-untyped-def]
    if n > 3:
        raise ValueError("too many")
    floats(y_row)[0] = p.a


def index_a_tuple(p, x_row, y_row, n):  # type: ignore[no-untyped-def]
    floats(y_row)[0] = (p.a, p.b, p.c)[n]


def call_the_c_library(p, x_row, y_row, n):  # type: ignore[no-untyped-def]
    floats(y_row)[0] = math.erf(p.a)


@each_isa
def test_a_loop_over_floats(isa: Isa) -> None:
    parameters = np.zeros(1, PARAMETERS)
    parameters["a"] = 3
    x, y = np.arange(5, dtype=np.float32), np.zeros(5, np.float32)
    compiled(multiply_by_a, isa)(parameters.ctypes.data, x.ctypes.data, y.ctypes.data, 5)
    assert y.tolist() == [0, 3, 6, 9, 12]


@pytest.mark.parametrize("body", [allocate, raise_error, index_a_tuple])
def test_a_loop_that_may_raise_is_refused(body: Callable[..., None]) -> None:
    with pytest.raises(PlanError, match="kernel test may raise"):
        compile_object(body, PARAMETERS, "test", best())


def test_a_loop_that_needs_another_library_is_refused() -> None:
    with pytest.raises(PlanError, match=r"kernel test needs \['erff?'\]"):
        compile_object(call_the_c_library, PARAMETERS, "test", best())


def test_objects_are_reproducible() -> None:
    one, other = (compile_object(multiply_by_a, PARAMETERS, "test", best()) for _ in range(2))
    assert one == other
