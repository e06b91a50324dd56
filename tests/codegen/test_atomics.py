"""Atomics and the floating-point mode, from several threads."""

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from cnnkern.codegen import loader
from cnnkern.codegen.isa import best
from cnnkern.codegen.jit import compile_object
from cnnkern.codegen.threads import (
    atomic_add,
    atomic_load,
    flush_denormals,
    pause,
    restore_mode,
    yield_processor,
)
from cnnkern.codegen.vector import floats, integers
from cnnkern.kernels.records import PARAMETERS

THREADS, ROUNDS = 4, 100_000


def count(p, counter, seen, rounds):  # type: ignore[no-untyped-def]
    for _ in range(rounds):
        before = atomic_add(counter, 1)
        integers(seen)[before] += 1
        if before % 1024 == 0:
            pause()
            yield_processor()


def load(p, source, target, n):  # type: ignore[no-untyped-def]
    integers(target)[0] = atomic_load(source) + n


def halve_twice(p, x_row, y_row, flushes):  # type: ignore[no-untyped-def]
    x, y = floats(x_row), floats(y_row)
    if flushes:
        mode = flush_denormals()
        y[0] = x[0] * x[1]
        restore_mode(mode)
    y[1] = x[0] * x[1]


@pytest.fixture(scope="module")
def kernel() -> Callable[[Callable[..., None]], Any]:
    def compiled(body: Callable[..., None]) -> Any:
        symbol = f"test_{body.__name__}"
        address = loader.link(symbol, compile_object(body, PARAMETERS, symbol, best()))
        return ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)(address)

    return compiled


def test_no_addition_is_lost(kernel: Any) -> None:
    run, counter = kernel(count), np.zeros(1, np.int64)
    seen = np.zeros(THREADS * ROUNDS, np.int64)
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in range(THREADS):
            pool.submit(run, 0, counter.ctypes.data, seen.ctypes.data, ROUNDS)
    assert counter[0] == THREADS * ROUNDS
    assert (seen == 1).all()


def test_load(kernel: Any) -> None:
    words = np.array([40, 0], np.int64)
    kernel(load)(0, words.ctypes.data, words.ctypes.data + 8, 2)
    assert words.tolist() == [40, 42]


def test_denormals_are_flushed_inside_only(kernel: Any) -> None:
    x, y = np.array([1e-30, 1e-10], np.float32), np.full(2, np.nan, np.float32)
    kernel(halve_twice)(0, x.ctypes.data, y.ctypes.data, 1)
    assert y[0] == 0
    assert 0 < y[1] < np.finfo(np.float32).tiny
    assert np.float32(1e-30) * np.float32(1e-10) > 0
