"""A pytest plugin for Keras' own layer tests: eager layer calls return cnnkern's result.

Keras' assertions then judge cnnkern, at Keras' tolerances. Each result is also compared with
the one that it replaces and with the references, at the tolerances of the calling test.
The session ends with a JSON file at $KERAS_SUITE_REPORT, see `Report`.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from types import ModuleType
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src import testing, tree
from keras.src.backend import get_keras_mask, set_keras_mask

import cnnkern
from cnnkern import naive, reader
from cnnkern.errors import CnnkernError
from cnnkern.graph import Array
from cnnkern.ops import REGISTRY

KERAS_TOLERANCE = 1e-6  # keras.testing.TestCase.assertAllClose
# Keras' own distance from float64 where samples hardly vary, as in rows of two numbers.
ROUNDING = {"GroupNormalization": 1e-5, "LayerNormalization": 1e-5}


@dataclass
class Report:
    """What a session did: class names per call, and why a call was left to Keras."""

    replaced: list[str] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)  # class, cnnkern's message
    left: list[tuple[str, str]] = field(default_factory=list)  # class, reason
    mismatches: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    n_passed: int = 0


@dataclass
class Comparison:
    """One test's results, kept until its tolerances are known."""

    atol: float = KERAS_TOLERANCE
    rtol: float = KERAS_TOLERANCE
    results: list[tuple[str, str, Array, Array]] = field(default_factory=list)

    def add(self, layer: Any, method: str, got: Array, expected: Array) -> None:
        """Note a result and the one that Keras computed."""
        name = type(layer).__name__
        title = f"{name} by {method}: {layer.get_config()}"
        self.results.append((name, title, got, expected))

    def mismatches(self) -> Iterator[str]:
        """Yield what is wrong with each result that is not close to Keras'."""
        for name, title, got, expected in self.results:
            atol = max(self.atol, ROUNDING.get(name, 0))
            try:
                np.testing.assert_allclose(got, expected, self.rtol, atol, strict=True)
            except AssertionError as error:
                yield f"{title}: {error}"


REPORT = Report()
current = Comparison()


def compute(layer: Any, x: Any, expected: Array) -> Array:
    """Return what cnnkern computes for a built layer; note it for comparison.

    The layer is cloned: a symbolic call would leave traces in the one under test.
    """
    clone = type(layer).from_config(layer.get_config())
    inputs = tree.map_structure(lambda t: keras.Input(batch_shape=(None, *t.shape[1:])), x)
    model = keras.Model(inputs, clone(inputs))
    clone.set_weights(layer.get_weights())
    if isinstance(clone, keras.layers.Normalization):
        clone.finalize_state()  # it computes with tensors that set_weights does not refresh
    graph = reader.from_keras(model)
    arrays = [keras.ops.convert_to_numpy(t).astype(np.float32) for t in tree.flatten(x)]
    (by_reference,) = naive.run(graph, arrays)
    y: Array = cnnkern.Model(graph)(arrays if len(arrays) > 1 else arrays[0])
    current.add(layer, "reference", by_reference, expected)
    current.add(layer, "kernels", y, expected)
    return y


def reason_to_leave(layer: Any, x: Any, options: dict[str, Any]) -> str | None:
    """Return why a call is none of cnnkern's business, or None."""
    tensors = tree.flatten(x)
    if options.get("training"):
        return "training"
    if options.get("mask") is not None or any(get_keras_mask(t) is not None for t in tensors):
        return "masked"
    if not all(isinstance(t, (np.ndarray, tf.Tensor, keras.Variable)) for t in tensors):
        return "not tensors"
    if not all(keras.backend.is_float_dtype(t.dtype) for t in tensors):
        return "not floats"
    if layer.compute_dtype != "float32":
        return "not computed in float32"
    return None


def substituting(call: Callable[..., Any]) -> Callable[..., Any]:
    """Return Layer.__call__ with cnnkern's result in place of Keras'."""

    def __call__(layer: Any, *args: Any, **kwargs: Any) -> Any:
        y = call(layer, *args, **kwargs)
        name = type(layer).__name__
        is_own = getattr(keras.layers, name, None) is type(layer)
        if not is_own or f"keras.layers>{name}" not in REGISTRY or not hasattr(y, "numpy"):
            return y
        options = inspect.signature(layer.call).bind(*args, **kwargs).arguments
        x = options.pop(next(iter(options)))
        reason = reason_to_leave(layer, x, options)
        if reason is not None:
            REPORT.left.append((name, reason))
            return y
        try:
            result = tf.convert_to_tensor(compute(layer, x, y.numpy()))
        except CnnkernError as error:
            REPORT.refused.append((name, str(error)))
            return y
        REPORT.replaced.append(name)
        if get_keras_mask(y) is not None:
            set_keras_mask(result, get_keras_mask(y))
        return result

    return __call__


def noting(assert_all_close: Callable[..., None]) -> Callable[..., None]:
    """Return TestCase.assertAllClose that notes the test's loosest tolerances."""

    def assertAllClose(
        case: Any, actual: Any, desired: Any, atol: float = KERAS_TOLERANCE,
        rtol: float = KERAS_TOLERANCE, **options: Any,
    ) -> None:  # fmt: skip
        current.atol, current.rtol = max(current.atol, atol), max(current.rtol, rtol)
        assert_all_close(case, actual, desired, atol=atol, rtol=rtol, **options)

    return assertAllClose


def without_training(run_layer_test: Callable[..., None]) -> Callable[..., None]:
    """Return TestCase.run_layer_test without its steps that are not about inference."""
    steps = {"run_training_check": False, "run_mixed_precision_check": False}

    def run_inference_test(case: Any, *args: Any, **options: Any) -> None:
        run_layer_test(case, *args, **{**options, **steps})

    return run_inference_test


def pytest_sessionstart() -> None:
    keras.layers.Layer.__call__ = substituting(keras.layers.Layer.__call__)
    testing.TestCase.assertAllClose = noting(testing.TestCase.assertAllClose)
    testing.TestCase.run_layer_test = without_training(testing.TestCase.run_layer_test)
    provide_imports()


def provide_imports() -> None:
    """Provide what test files import and Keras does not install with them."""
    conftest = ModuleType("conftest")  # of Keras' repository
    vars(conftest)["skip_if_backend"] = lambda backend, reason: pytest.mark.skipif(
        keras.backend.backend() == backend, reason=reason
    )
    sys.modules["conftest"] = conftest
    sys.modules.setdefault("grain", ModuleType("grain"))  # tests of data pipelines use it


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    global current
    current = Comparison()
    keras.utils.set_random_seed(0)
    try:
        yield
    finally:
        REPORT.mismatches += [f"{item.nodeid}: {text}" for text in current.mismatches()]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.failed:
        REPORT.failures.append(f"{report.nodeid}: {report.longreprtext[-800:]}")
    REPORT.n_passed += report.when == "call" and report.passed


def pytest_sessionfinish() -> None:
    with open(os.environ["KERAS_SUITE_REPORT"], "w") as file:
        json.dump(asdict(REPORT), file)
