"""Random Keras graphs over all registered classes: 1D, 2D and 3D, branches, several inputs.

The options come from the cases of ``tests/ops``, which cover every class; a graph is a chain
of such cases, each applied to what the last one returned where Keras accepts that.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from cnnkern.ops.config import TENSOR
from cnnkern.structure import leaves
from ops.case import Case, make_layer
from ops.test_registry import CASES
from random_models import randomise

MAX_ELEMS = 6_000  # per sample of a tensor: the references are plain NumPy
MAX_TRIES = 30
KEYS = sorted({case.key for case in CASES})
BY_KEY = {key: [case for case in CASES if case.key == key] for key in KEYS}


def random_keras_model(seed: int) -> tuple[Any, list[np.ndarray]]:
    """Return a model that contains the class ``KEYS[seed % len(KEYS)]``, and its inputs.

    Outputs are finite and vary; a draw that does not do so is drawn again.
    """
    rng = np.random.default_rng(seed)
    anchor = KEYS[np.random.default_rng(0).permutation(len(KEYS))[seed % len(KEYS)]]
    for _ in range(MAX_TRIES):
        model = _Draw(rng).model(BY_KEY[anchor][rng.integers(len(BY_KEY[anchor]))])
        if model is None:
            continue
        randomise(model, rng)
        x = [rng.standard_normal((3, *t.shape[1:]), np.float32) for t in model.inputs]
        if all(map(varies, leaves(model(x if len(x) > 1 else x[0], training=False)))):
            return model, x
    raise AssertionError(f"seed {seed}: no model around {anchor} has outputs that vary")


def varies(y: Any) -> bool:
    """Tell whether outputs are finite and differ, so that a comparison proves something."""
    y = np.asarray(y)
    return bool(np.isfinite(y).all() and np.std(y) > 1e-2 * np.abs(y).max() > 0)


class _Draw:
    """One draw of a model: the tensors so far are candidates for a second operand."""

    def __init__(self, rng: np.random.Generator) -> None:
        import keras

        self.keras, self.rng = keras, rng
        self.tensors: list[Any] = []

    def model(self, anchor: Case) -> Any:
        """Return a model around `anchor`, or None where it does not fit."""
        inputs = [self.keras.Input(shape[1:]) for shape in anchor.shapes]
        operands = [self.grown(x, 1, keeps_shape=True) for x in inputs]
        x = self.applied(anchor, operands)
        if x is None:
            return None
        middle, x = x, self.grown(x, int(self.rng.integers(1, 5)))
        if len(x.shape) > 2 and self.rng.random() < 0.5:
            x = self.keras.layers.Flatten()(x)
        if self.rng.random() < 0.5:
            x = self.keras.layers.Dense(int(self.rng.integers(2, 9)))(x)
        outputs = [x, middle] if self.rng.random() < 0.3 else x
        return self.keras.Model(inputs if len(inputs) > 1 else inputs[0], outputs)

    def grown(self, x: Any, count: int, keeps_shape: bool = False) -> Any:
        """Apply up to `count` random cases to a tensor."""
        for _ in range(count):
            shape = x.shape
            for _ in range(MAX_TRIES):
                case = CASES[self.rng.integers(len(CASES))]
                if len(case.shapes[0]) != len(shape) or (keeps_shape and len(case.shapes) > 1):
                    continue
                y = self.applied(case, [x, *(self.operand(x) for _ in case.shapes[1:])])
                if y is not None and (not keeps_shape or y.shape == shape):
                    x = y
                    break
        return x

    def operand(self, x: Any) -> Any:
        """Return a tensor of the shape of `x`, often another one."""
        fitting = [t for t in self.tensors if t.shape == x.shape]
        return fitting[self.rng.integers(len(fitting))] if fitting else x

    def applied(self, case: Case, operands: list[Any]) -> Any:
        """Return what a case computes from tensors, or None where they do not fit."""
        before = type(operands[0]._keras_history.operation).__name__
        if before == "ZeroPadding3D" and case.options.get("padding") == "same":
            return None  # TensorFlow 2.21 forgets the padding of a Conv3D behind it in predict
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                layer = make_layer(self.keras, case)
                if case.args:
                    tensors = iter(operands)
                    y = layer(*(next(tensors) if a is TENSOR else a for a in case.args))
                else:
                    y = layer(operands if len(operands) > 1 else operands[0])
        except Exception:  # Keras and TensorFlow raise all kinds where a layer does not fit
            return None
        lengths = y.shape[1:]
        if None in lengths or not 1 < np.prod(lengths) <= MAX_ELEMS:
            return None
        if "Adaptive" in case.key and any(np.less(operands[0].shape[1:-1], lengths[:-1])):
            return None  # TensorFlow 2.21 divides by zero and dies
        self.tensors.append(y)
        return y
