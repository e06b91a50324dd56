"""Every op: kernels against the reference, over instruction sets, shapes and threads."""

from __future__ import annotations

import numpy as np
import pytest

from cnnkern.codegen.isa import available
from cnnkern.engine import Model
from cnnkern.engine.threads import set_num_threads
from cnnkern.graph import Array, Op
from cnnkern.ops.activation import Activation
from cnnkern.ops.adaptive import AdaptiveAveragePool, AdaptiveMaxPool
from cnnkern.ops.layout import Input, Permute, RepeatVector
from cnnkern.ops.merge import Add, Concatenate, Maximum, Minimum
from cnnkern.ops.prelu import PReLU
from cnnkern.ops.resize import Resizing, UpSampling
from cnnkern.plan import buffer
from op_cases import COMPUTING, Case, all_cases
from support import graph_of, run_kernels, run_python

CASES: dict[str, list[Case]] = {}
for each in all_cases():
    CASES.setdefault(type(each.op).__name__, []).append(each)
NAN, INF = float("nan"), float("inf")
SPECIAL = (NAN, INF, -INF, -0.0, 0.0, 1.0, -1.0)

GUARDED_RUN = """
from cnnkern.codegen.isa import available
import guard, op_cases, support
guard.Guard({at_end}).install()
for case in op_cases.all_cases():
    for isa in available():
        support.run_kernels(case.graph, *case.inputs(), isa=isa)
print("done")
"""


def test_addition_by_hand() -> None:
    x = np.array([[1, 2], [3, 4]], np.float32)
    (y,) = run_kernels(graph_of({"x": (None, 2)}, [("y", Add(10.0), ("x",))]), x)
    assert y.tolist() == [[11, 12], [13, 14]]


def test_every_op_class_has_a_kernel_and_a_case() -> None:
    for cls in COMPUTING:
        assert cls is Input or cls.is_view or cls.lower is not Op.lower, cls.__name__
        assert cls is Input or cls.__name__ in CASES


@pytest.mark.parametrize("name", CASES)
def test_kernels_agree_with_the_reference(name: str) -> None:
    for case in CASES[name]:
        inputs = case.inputs()
        expected = case.op.reference(*(x.copy() for x in inputs))
        for isa in available():
            (y,) = run_kernels(case.graph, *inputs, isa=isa)
            case.assert_close(y, expected)


@pytest.mark.parametrize("name", CASES)
def test_threads_and_unknown_axes_change_no_bit(name: str, always_parallel: None) -> None:
    set_num_threads(3)
    for case in CASES[name]:
        inputs = case.inputs()
        expected = run_kernels(case.graph, *inputs)[0]
        y = Model(case.graph_of_unknown_shape)(inputs if len(inputs) > 1 else inputs[0])
        np.testing.assert_array_equal(y, expected, str(case))


@pytest.mark.parametrize("name", CASES)
def test_pixels_may_stand_apart(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here all tensors have the gaps that only those with certain numbers of channels have."""
    monkeypatch.setattr(buffer, "L1_REPEATS", 4)
    for case in CASES[name]:
        inputs = case.inputs()
        expected = case.op.reference(*(x.copy() for x in inputs))
        case.assert_close(run_kernels(case.graph, *inputs)[0], expected)


@pytest.mark.parametrize("op", [UpSampling((2, 3), "bilinear"), Resizing((4, 9))])
def test_a_part_of_a_concatenation_is_resized(op: Op) -> None:
    x = np.random.default_rng(0).standard_normal((2, 5, 7, 3), np.float32)
    steps = [
        ("a", Activation("relu"), ("x",)),
        ("b", Activation("tanh"), ("x",)),
        ("both", Concatenate(), ("a", "b")),
        ("y", op, ("a",)),
    ]
    y, _ = run_kernels(graph_of({"x": (None, 5, 7, 3)}, steps, "y", "both"), x)
    np.testing.assert_allclose(y, op.reference(np.maximum(x, 0)), rtol=1e-6)


@pytest.mark.parametrize("at_end", [True, False])
def test_nothing_outside_the_buffers_is_touched(at_end: bool) -> None:
    assert run_python(GUARDED_RUN.format(at_end=at_end), timeout=300) == "done"


MOVING = [Permute((2, 1)), RepeatVector(3), Concatenate(-1), Concatenate(-2)]


@pytest.mark.parametrize("op", MOVING, ids=lambda op: type(op).__name__)
def test_special_values_are_moved_as_they_are(op: Op) -> None:
    for length in range(1, 40):
        shape = (1, length) if isinstance(op, RepeatVector) else (1, length, 3)
        x = np.resize(np.array(SPECIAL, np.float32), shape)
        inputs = [x, x] if isinstance(op, Concatenate) else [x]
        assert_same_bits(apply(op, *inputs), op.reference(*inputs))


def test_special_values_are_repeated_as_they_are() -> None:
    for length in range(1, 40):
        x = np.resize(np.array(SPECIAL, np.float32), (1, length, 3))
        assert_same_bits(apply(UpSampling((2,)), x), np.repeat(x, 2, axis=1))


def test_prelu() -> None:
    expected = np.array([NAN, INF, -INF, 0, 0, 1, -0.5], np.float32)
    for length in range(1, 68):
        x = np.resize(np.array(SPECIAL, np.float32), (1, length))
        y = apply(PReLU(np.full(length, 0.5, np.float32)), x)
        assert_same_bits(y, np.resize(expected, (1, length)))


@pytest.mark.parametrize("op", [Maximum(), Minimum()])
def test_extrema_keep_nan(op: Op) -> None:
    for length in range(1, 68):
        ones = np.ones((1, length), np.float32)
        for pair in ((ones, ones * np.float32(NAN)), (ones * np.float32(NAN), ones)):
            assert np.isnan(apply(op, *pair)).all()


def test_adaptive_pooling_of_nan() -> None:
    """As in the poolings over windows: a maximum drops NaN, a mean keeps it."""
    x = np.array([NAN, 1, NAN, NAN], np.float32).reshape(1, 4, 1)
    lowest = float(np.finfo(np.float32).min)
    for channels in range(1, 68):
        y = apply(AdaptiveMaxPool((2,)), np.repeat(x, channels, axis=-1))
        assert y.tolist() == [[[1.0] * channels, [lowest] * channels]]
        assert np.isnan(apply(AdaptiveAveragePool((2,)), np.repeat(x, channels, axis=-1))).all()


def apply(op: Op, *inputs: Array) -> Array:
    """Return the result of the widest instruction set."""
    (y,) = run_kernels(Case(op, tuple(x.shape for x in inputs)).graph, *inputs)
    return y


def assert_same_bits(y: Array, expected: Array) -> None:
    """Compare numbers and the signs of zeros; any NaN equals any other."""
    np.testing.assert_array_equal(y, expected)
    numbers = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(y[numbers]), np.signbit(expected[numbers]))
