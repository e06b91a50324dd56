"""One op against the live Keras layer that it reads: values and shapes.

Each test file lists its cases in CASES; test_registry.py checks that no class is missing.
"""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np

from cnnkern.errors import ModelFileError
from cnnkern.graph import Array, Op
from cnnkern.ops import REGISTRY
from cnnkern.ops.common import same_shape
from cnnkern.ops.config import TENSOR, LayerConfig
from cnnkern.shapes import Shape

COMMON_KEYS = ("name", "trainable", "dtype", "autocast")  # the reader takes these
APPLICATIONS = ("convnext", "inception_resnet_v2")  # modules that define layers
TOLERANCE = 2e-5


@dataclass(frozen=True)
class Case:
    """A registered class, its options, and the shapes of its inputs."""

    key: str
    options: dict[str, Any] = field(default_factory=dict)
    shapes: tuple[tuple[int, ...], ...] = ((2, 5, 6, 4),)
    args: tuple[Any, ...] = ()  # of an op node; tensors as TENSOR
    tolerance: float = TOLERANCE

    def __str__(self) -> str:
        options = ",".join(f"{key}={value}" for key, value in self.options.items())
        return f"{self.key.split('>')[1]}-{options}-{'-'.join(map(str, self.shapes))}"


def layer_case(name: str, *shapes: tuple[int, ...], **options: Any) -> Case:
    """Return the case of a layer of ``keras.layers``."""
    return Case(f"keras.layers>{name}", options, shapes)


def op_case(
    key: str, *shapes: tuple[int, ...], args: tuple[Any, ...] = (), **options: Any
) -> Case:
    """Return the case of an op node, by default of one on its tensors alone."""
    return Case(f"keras.ops.{key}", options, shapes, args or (TENSOR,) * len(shapes))


class ListWeights:
    """Weights in a list, as a reader hands them out."""

    def __init__(self, arrays: Sequence[Array]) -> None:
        self.arrays = list(arrays)

    def take(self, name: str, shape: Sequence[int]) -> Array:
        if not self.arrays or self.arrays[0].shape != tuple(shape):
            raise ModelFileError(f"weight {name!r} of shape {tuple(shape)} is missing")
        return self.arrays.pop(0)

    defer = take

    def skip(self, name: str) -> None:
        del self.arrays[0]


def make_layer(keras: ModuleType, case: Case) -> Any:
    """Return the Keras layer or operation of a case."""
    module, name = case.key.split(">")
    places = [keras.layers]
    if module != "keras.layers":
        places = [importlib.import_module(module.replace("keras.", "keras.src.", 1))]
    places += [importlib.import_module(f"keras.src.applications.{m}") for m in APPLICATIONS]
    return next(vars(p)[name] for p in places if name in vars(p))(**case.options)


def inputs_of(case: Case, seed: int = 0) -> list[Array]:
    """Return gaussian inputs."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape, np.float32) for shape in case.shapes]


def call(layer: Any, case: Case, inputs: Sequence[Array]) -> Array:
    """Return what Keras computes; the layer's weights are randomised first."""
    if case.args:
        tensors = iter(inputs)
        return np.asarray(layer(*(next(tensors) if a is TENSOR else a for a in case.args)))
    argument = list(inputs) if len(inputs) > 1 else inputs[0]
    layer(argument)
    randomize(layer)
    # As in predict; called outside a model, augmentations train by default.
    takes_training = "training" in inspect.signature(layer.call).parameters
    return np.asarray(layer(argument, **({"training": False} if takes_training else {})))


def randomize(layer: Any, seed: int = 1) -> None:
    """Give a layer gaussian weights and positive variances."""
    rng = np.random.default_rng(seed)
    values = []
    for weight in layer.weights:
        value = rng.standard_normal(weight.shape)
        values.append(np.abs(value) + 0.1 if "variance" in weight.name else value)
    layer.set_weights(values)
    if hasattr(layer, "finalize_state"):
        layer.finalize_state()


def chain_of(layer: Any, case: Case, shapes: Sequence[Shape] | None = None) -> tuple[Op, ...]:
    """Return the ops that the registry gives for a layer with its weights."""
    weights = ListWeights([np.asarray(w, np.float32) for w in getattr(layer, "weights", ())])
    options = json.loads(json.dumps(layer.get_config(), default=_listed))
    for key in COMMON_KEYS:
        options.pop(key, None)
    config = LayerConfig("layer", type(layer).__name__, options, args=case.args)
    made = REGISTRY[case.key].from_keras(config, weights, shapes or case.shapes)
    assert not weights.arrays, "not all weights were taken"
    return made if isinstance(made, tuple) else (made,)


def _listed(value: Any) -> Any:
    """Return what Keras' own serialization puts for what JSON does not know."""
    import keras

    return keras.saving.serialize_keras_object(value)


def compute(chain: Sequence[Op], *inputs: Array) -> Array:
    """Return the result of a chain by its references."""
    first, *rest = chain
    y = first.reference(*inputs)
    for op in rest:
        y = op.reference(y)
    return y


def infer(chain: Sequence[Op], *shapes: Shape) -> Shape:
    """Return the output shape of a chain."""
    first, *rest = chain
    shape = first.infer_shape(*shapes)
    for op in rest:
        shape = op.infer_shape(shape)
    return shape


def check(keras: ModuleType, case: Case) -> None:
    """Compare a case's ops with Keras: values, and shapes of known and unknown axes."""
    layer, inputs = make_layer(keras, case), inputs_of(case)
    copies = [x.copy() for x in inputs]
    expected = call(layer, case, inputs)
    chain = chain_of(layer, case)
    y = compute(chain, *inputs)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, expected, rtol=case.tolerance, atol=case.tolerance)
    for x, copy in zip(inputs, copies, strict=True):
        np.testing.assert_array_equal(x, copy)
    check_shapes(layer, case, chain, expected.shape)
    assert all(op.flops(*case.shapes) >= 0 for op in chain[:1])


def check_shapes(layer: Any, case: Case, chain: Sequence[Op], expected: Shape) -> None:
    """Compare shape inference with Keras, with all axes known, then with unknown ones."""
    assert infer(chain, *case.shapes) == expected
    batched = [(None, *shape[1:]) for shape in case.shapes]
    assert infer(chain, *batched) == (None, *expected[1:])
    unknown = [(None,) * (len(shape) - 1) + shape[-1:] for shape in case.shapes]
    inferred = infer(chain, *unknown)
    assert same_shape(inferred, expected)
    is_own = type(layer).__module__.startswith("keras.src.applications")  # infers no shape
    if not case.args and not is_own and all(len(shape) > 2 for shape in case.shapes):
        argument = unknown if len(unknown) > 1 else unknown[0]
        assert same_shape(inferred, tuple(layer.compute_output_shape(argument)))
