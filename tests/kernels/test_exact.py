"""Structural exactness: on small integers every kernel gives the bits of int64 arithmetic."""

import re

import numpy as np
import pytest

from cnnkern.codegen.isa import available
from cnnkern.ops import REGISTRY
from cnnkern.ops.conv import Conv
from exact_cases import DRAWS, KINDS, TURNS, cases
from support import graph_of, run_kernels, run_python

N_CHUNKS, CHUNK = 10, 2000
MAX_THREADS = 4
ISAS_PER_CASE = 2  # of the three, in turn: each still meets two cases of three

GUARDED_RUN = """
import numpy as np
from cnnkern.codegen.isa import available
import exact_cases, guard, support
guard.Guard(at_end={at_end}).install()
for _, case in exact_cases.cases(seed=7, count=400):
    for isa in available():
        (y,) = support.run_kernels(case.graph, *case.inputs, isa=isa)
        np.testing.assert_array_equal(y, case.expected)
print("done")
"""


def test_convolution_by_hand() -> None:
    x = np.array([1, 2, 3, 4], np.float32).reshape(1, 4, 1)
    w = np.array([10, 100], np.float32).reshape(2, 1, 1)
    op = Conv(w, np.array([1], np.float32), (1,), "same", (1,))
    for isa in available():
        (y,) = run_kernels(graph_of({"x": (None, 4, 1)}, [("y", op, ("x",))]), x, isa=isa)
        assert y.ravel().tolist() == [211, 321, 431, 41]  # the padding is behind


def test_number_of_cases() -> None:
    assert N_CHUNKS * CHUNK == 20_000


def test_every_convolution_and_pooling_is_drawn() -> None:
    names = {key.removeprefix("keras.layers>") for key in REGISTRY if "layers>" in key}
    assert {name for name in names if re.search(r"Conv|Pooling", name)} < set(DRAWS)


@pytest.mark.parametrize("chunk", range(N_CHUNKS))
def test_equal_to_integers(chunk: int, always_parallel: None) -> None:
    isas, seen = available(), set[str]()
    for index, (class_name, case) in enumerate(cases(chunk, CHUNK)):
        seen |= case.kinds(class_name)
        turn = index // len(TURNS)  # each class meets all pairs of these two
        n_threads = 1 + turn // len(isas) % MAX_THREADS
        for isa in (isas * 2)[turn % len(isas) :][: min(ISAS_PER_CASE, len(isas))]:
            (y,) = run_kernels(case.graph, *case.inputs, isa=isa, n_threads=n_threads)
            title = f"case {index}, {isa.name}, {n_threads} threads, {case.title}"
            np.testing.assert_array_equal(y, case.expected, title)
    assert seen >= KINDS


@pytest.mark.parametrize("at_end", [True, False])
def test_nothing_outside_the_buffers_is_touched(at_end: bool) -> None:
    assert run_python(GUARDED_RUN.format(at_end=at_end)) == "done"
