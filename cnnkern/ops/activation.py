"""Element-wise activation functions: one table, one op."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..graph import Array, Axes, Op
from ..shapes import Shape, product
from .config import LayerConfig, Weights
from .layout import Identity
from .softmax import AXIS_ACTIVATIONS

if TYPE_CHECKING:
    from ..plan import Buffer, Lowering

INFINITY = math.inf
_erf = np.vectorize(math.erf, otypes=[np.float64])


@dataclass(frozen=True)
class Function:
    """A function of one element, written on whole float32 arrays, and its parameters."""

    reference: Callable[..., Any]
    defaults: tuple[float, ...] = ()


def _relu(x: Array) -> Array:
    return np.maximum(x, np.float32(0))


def _leaky_relu(x: Array, slope: float) -> Any:
    return np.where(x > 0, x, np.float32(slope) * x)


def _bounded_relu(x: Array, slope: float, max_value: float, threshold: float) -> Array:
    """Keras: threshold first, then clip, then the slope part. NaN fails the threshold."""
    kept = np.where(x > np.float32(threshold), x, np.float32(0)) if threshold else _relu(x)
    y: Array = np.minimum(kept, np.float32(max_value))
    return y - np.float32(slope) * _relu(np.float32(threshold) - x) if slope else y


def _elu(x: Array, alpha: float) -> Any:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def _celu(x: Array, alpha: float) -> Any:
    return np.maximum(x, 0) + alpha * np.expm1(np.minimum(x, 0) / alpha)


def _selu(x: Array) -> Any:
    """Klambauer et al. 2017, https://arxiv.org/abs/1706.02515."""
    scale, alpha = 1.0507009873554805, 1.6732632423543772
    return scale * _elu(x, alpha)


def _sigmoid(x: Array) -> Any:
    return 1 / (1 + np.exp(-x.astype(np.float64)))


def _softplus(x: Array) -> Any:
    return np.logaddexp(0, x.astype(np.float64))


def _hard_sigmoid(x: Array) -> Any:
    return np.clip(x + np.float32(3), np.float32(0), np.float32(6)) / np.float32(6)


def _gelu(x: Array) -> Any:
    return 0.5 * x * (1 + _erf(x / math.sqrt(2)))


def _gelu_tanh(x: Array) -> Any:
    """Hendrycks and Gimpel 2016, https://arxiv.org/abs/1606.08415, section 2."""
    x64 = x.astype(np.float64)
    return 0.5 * x64 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x64 + 0.044715 * x64**3)))


def _soft_shrink(x: Array, threshold: float) -> Array:
    t = np.float32(threshold)
    return np.where(x > t, x - t, np.where(x < -t, x + t, np.float32(0)))


def _sparse_plus(x: Array) -> Any:
    return np.where(x <= -1, 0, np.where(x < 1, 0.25 * (x + 1) ** 2, x))


def _sparse_sigmoid(x: Array) -> Any:
    return np.where(x <= -1, 0, np.where(x >= 1, 1, 0.5 * (x + 1)))


FUNCTIONS: dict[str, Function] = {
    "bounded_relu": Function(_bounded_relu, (0.0, INFINITY, 0.0)),
    "celu": Function(_celu, (1.0,)),
    "elu": Function(_elu, (1.0,)),
    "exponential": Function(lambda x: np.exp(x.astype(np.float64))),
    "gelu": Function(_gelu),
    "gelu_tanh": Function(_gelu_tanh),
    "hard_shrink": Function(lambda x, t: np.where(np.abs(x) > np.float32(t), x, 0), (0.5,)),
    "hard_sigmoid": Function(_hard_sigmoid),
    "hard_silu": Function(lambda x: x * _hard_sigmoid(x)),
    "hard_tanh": Function(lambda x: np.clip(x, -1, 1)),
    "leaky_relu": Function(_leaky_relu, (0.2,)),
    "log_sigmoid": Function(lambda x: -_softplus(-x)),
    "mish": Function(lambda x: x * np.tanh(_softplus(x))),
    "relu": Function(_relu),
    "relu6": Function(lambda x: np.minimum(_relu(x), np.float32(6))),
    "selu": Function(_selu),
    "sigmoid": Function(_sigmoid),
    "silu": Function(lambda x: x * _sigmoid(x)),
    "soft_shrink": Function(_soft_shrink, (0.5,)),
    "softplus": Function(_softplus),
    "softsign": Function(lambda x: x / (np.abs(x) + np.float32(1))),
    "sparse_plus": Function(_sparse_plus),
    "sparse_sigmoid": Function(_sparse_sigmoid),
    "squareplus": Function(lambda x, b: (x + np.sqrt(x * x + np.float32(b))) / 2, (4.0,)),
    "tanh": Function(lambda x: np.tanh(x.astype(np.float64))),
    "tanh_shrink": Function(lambda x: x - np.tanh(x.astype(np.float64))),
    "threshold": Function(lambda x, t, y: np.where(x > np.float32(t), x, y), (0.0, 0.0)),
}

# Classes of keras.ops: the function that they compute, and the options that parametrise it.
_NN_OPS: dict[str, tuple[str, ...]] = {
    "Celu": ("celu", "alpha"),
    "Elu": ("elu", "alpha"),
    "Gelu": ("gelu",),
    "HardShrink": ("hard_shrink", "threshold"),
    "HardSigmoid": ("hard_sigmoid",),
    "HardSilu": ("hard_silu",),
    "HardTanh": ("hard_tanh",),
    "LeakyRelu": ("leaky_relu", "negative_slope"),
    "LogSigmoid": ("log_sigmoid",),
    "Relu": ("relu",),
    "Relu6": ("relu6",),
    "Selu": ("selu",),
    "Sigmoid": ("sigmoid",),
    "Silu": ("silu",),
    "SoftShrink": ("soft_shrink", "threshold"),
    "Softplus": ("softplus",),
    "Softsign": ("softsign",),
    "SparsePlus": ("sparse_plus",),
    "SparseSigmoid": ("sparse_sigmoid",),
    "Squareplus": ("squareplus", "b"),
    "TanhShrink": ("tanh_shrink",),
    "Threshold": ("threshold", "threshold", "default_value"),
}
_NUMPY_OPS: dict[str, tuple[str, ...]] = {"Exp": ("exponential",), "Tanh": ("tanh",)}

_CLIPS = {"relu": (0.0, INFINITY), "relu6": (0.0, 6.0), "hard_tanh": (-1.0, 1.0)}
_ALIASES = {"swish": "silu", "hard_swish": "hard_silu"}
# In Keras these names need arguments that a name cannot carry, or do not exist.
_NOT_BY_NAME = ("bounded_relu", "gelu_tanh", "threshold")
NAMES = tuple(sorted({*FUNCTIONS, *_ALIASES, *AXIS_ACTIVATIONS, "linear"} - {*_NOT_BY_NAME}))


@dataclass(frozen=True)
class Activation(Op):
    """Apply a function of FUNCTIONS to each element: ``y[i] = function(x[i], *parameters)``.

    References
    ----------
    https://keras.io/api/layers/activations
    """

    keras_classes: ClassVar = (
        *(f"keras.layers>{name}" for name in ("Activation", "ReLU", "LeakyReLU", "ELU")),
        "keras.activations.activations>ReLU",
        *(f"keras.ops.nn>{name}" for name in _NN_OPS),
        *(f"keras.ops.numpy>{name}" for name in _NUMPY_OPS),
    )
    in_place: ClassVar = True

    function: str
    parameters: tuple[float, ...] = ()

    @classmethod
    def from_keras(
        cls, config: LayerConfig, weights: Weights, shapes: Sequence[Shape]
    ) -> Op | tuple[Op, ...]:
        op = _read(config)
        config.finish()
        return Identity() if op is None else op

    def infer_shape(self, *shapes: Shape) -> Shape:
        (x,) = shapes
        return x

    @np.errstate(all="ignore")
    def reference(self, *inputs: Array) -> Array:
        (x,) = inputs
        function = FUNCTIONS[self.function]
        y = function.reference(x, *(self.parameters or function.defaults))
        return np.asarray(y, np.float32)

    def lower(self, lowering: Lowering, inputs: Sequence[Buffer], output: Buffer) -> None:
        lowering.activate(self, inputs[0], output)

    def permuted(self, order: Axes) -> Op:
        return self

    @property
    def row_function(self) -> tuple[str, tuple[float, ...]]:
        """The kernel that computes it, and the kernel's parameters."""
        if self.bounds is not None:
            return "f32_clip", self.bounds
        parameters = self.parameters or FUNCTIONS[self.function].defaults
        return f"f32_{self.function}", parameters

    def slopes(self, C: int) -> Array | None:
        """Return the factors of what is negative, float32[C], if it does nothing else."""
        if self.function != "leaky_relu":
            return None
        (slope,) = self.parameters or FUNCTIONS[self.function].defaults
        return np.full(C, slope, np.float32)

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The interval that the function clips to, if it does nothing else."""
        if self.function == "bounded_relu":
            slope, max_value, threshold = self.parameters or FUNCTIONS[self.function].defaults
            return None if slope or threshold else (0.0, max_value)
        return _CLIPS.get(self.function)

    def flops(self, *shapes: tuple[int, ...]) -> int:
        return product(shapes[0])


def take_activation(config: LayerConfig) -> Op | None:
    """Take the option `activation`: a name, a serialized function or a serialized layer."""
    value = config.take("activation", None)
    if isinstance(value, dict):
        class_name, inner = value.get("class_name"), value.get("config")
        is_own = value.get("module") in (None, "builtins", "keras.activations", "keras.layers")
        if is_own and class_name in _LAYERS and isinstance(inner, dict):
            return _nested(config, class_name, inner)
        value = inner if is_own and class_name == "function" else value
    if value is None:
        return None
    if not isinstance(value, str) or value not in NAMES:
        config.unsupported("activation", value, ", ".join(NAMES))
    return by_name(value)


def by_name(name: str) -> Op | None:
    """Return the op of a name of NAMES; None for linear, which does nothing."""
    name = _ALIASES.get(name, name)
    if name == "linear":
        return None
    return AXIS_ACTIVATIONS[name]() if name in AXIS_ACTIVATIONS else Activation(name)


def with_activation(config: LayerConfig, *chain: Op) -> tuple[Op, ...]:
    """Take `activation`, check that no option is left, and return the chain of ops."""
    activation = take_activation(config)
    config.finish()
    return chain if activation is None else (*chain, activation)


def _nested(config: LayerConfig, class_name: str, options: dict[str, Any]) -> Op | None:
    inner = LayerConfig(config.name, class_name, dict(options))
    inner.ignore("name", "trainable", "dtype")
    op = _LAYERS[class_name](inner)
    inner.finish()
    return op


def _read(config: LayerConfig) -> Op | None:
    """Return the op of a layer or of a function of keras.ops."""
    if config.class_name in _LAYERS:
        return _LAYERS[config.class_name](config)
    function, *keys = {**_NN_OPS, **_NUMPY_OPS}[config.class_name]
    if function == "gelu" and config.flag("approximate", True):
        return Activation("gelu_tanh")
    defaults = FUNCTIONS[function].defaults
    pairs = zip(keys, defaults, strict=True)
    return Activation(function, tuple(config.number(key, value) for key, value in pairs))


def _relu_layer(config: LayerConfig) -> Op:
    slope = _at_least_0(config, "negative_slope", 0.0)
    threshold = _at_least_0(config, "threshold", 0.0)
    if config.options.get("max_value") is None:
        config.ignore("max_value")
        return relu(slope, INFINITY, threshold)
    return relu(slope, _at_least_0(config, "max_value"), threshold)


def relu(slope: float, max_value: float = INFINITY, threshold: float = 0.0) -> Activation:
    """Return the simplest function that computes a ReLU with these parameters."""
    if threshold == 0 and max_value == INFINITY:
        return Activation("leaky_relu", (slope,)) if slope else Activation("relu")
    if (slope, max_value, threshold) == (0, 6, 0):
        return Activation("relu6")
    return Activation("bounded_relu", (slope, max_value, threshold))


def _leaky_relu_layer(config: LayerConfig) -> Op:
    key = "alpha" if "alpha" in config.options else "negative_slope"  # alpha before Keras 3
    return Activation("leaky_relu", (_at_least_0(config, key, 0.3),))


def _elu_layer(config: LayerConfig) -> Op:
    return Activation("elu", (config.number("alpha", 1.0),))


def _at_least_0(config: LayerConfig, key: str, default: float | None = None) -> float:
    value = config.number(key, default)
    if value < 0:
        config.malformed(key, value, "a number of at least 0")
    return value


_LAYERS: dict[str, Callable[[LayerConfig], Op | None]] = {
    "Activation": take_activation,
    "ReLU": _relu_layer,
    "LeakyReLU": _leaky_relu_layer,
    "ELU": _elu_layer,
}
