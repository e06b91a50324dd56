"""One Keras layer's configuration, arguments and arrays in, its ops out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import ModelFileError, ResourceLimitError, ShapeError, UnsupportedLayerError
from ..graph import Op
from ..ops import REGISTRY
from ..ops.config import TENSOR, LayerConfig
from ..shapes import Shape
from ..structure import leaves, unpack
from .calls import Call, TensorRef, map_tensors, tensors_of
from .channels import channels_last
from .config import CUSTOM, OP_MODULES, LayerSpec, ModelSpec
from .custom import Factory, custom_factory
from .weights import LayerWeights, title

# What any layer's configuration may hold without a meaning for inference.
IGNORED_KEYS = ("name", "autocast", "input_dtype", "dynamic", "stateful")
# Layers other than InputLayer say here what a Sequential model starts with.
SHAPE_KEYS = ("batch_input_shape", "batch_shape", "input_shape")
PRECISION_KEYS = (
    "quantization_config", "quantization_mode", "lora_rank", "lora_alpha", "lora_enabled",
)  # fmt: skip
POLICY_CLASSES = ("DTypePolicy", "FloatDTypePolicy", "Policy")
# What an op may raise on a value of a type that it does not expect.
CONFUSED = (TypeError, ValueError, KeyError, IndexError, AttributeError, ArithmeticError)


def op_factory(layer: LayerSpec) -> Factory:
    """Return what makes a layer's ops; raise UnsupportedLayerError where nothing does."""
    key = _op_key(layer)
    if key is not None:
        return channels_last(REGISTRY[key].from_keras)
    name = layer.key.removeprefix(CUSTOM).lstrip(">")
    factory = None if layer.is_op else custom_factory(name)
    if factory is None:
        hint = "; cnnkern.register_layer can map it" if layer.key.startswith(CUSTOM) else ""
        name = name[:160] if hint else name[:160].replace(">", ".")
        raise UnsupportedLayerError(f"{title(layer)}: class {name} is not supported{hint}")
    return factory


def _op_key(layer: LayerSpec) -> str | None:
    """Return the key of REGISTRY under which a layer stands, or None where it has none."""
    key = layer.key
    if key.startswith(">"):  # the file names no module
        found = [k for k in REGISTRY if k.endswith(key)]
        ops = [k for k in found if k.startswith(OP_MODULES)]
        if f"keras.layers{key}" in found and not layer.is_op:
            key = f"keras.layers{key}"
        else:
            fitting = ops if layer.is_op else [k for k in found if k not in ops]
            key = fitting[0] if len(fitting) == 1 else key
    return key if key in REGISTRY else None


def layer_config(layer: LayerSpec, path: str, call: Call) -> LayerConfig:
    """Return a layer's options without those that all layers have in common.

    Raises
    ------
    UnsupportedLayerError
        The layer computes in another type than float32, or is quantised.
    """
    config = LayerConfig(path, layer.class_name[:80], dict(layer.config))
    if layer.is_op:
        config.ignore("name")
        args, kwargs = map_tensors([list(call.args), dict(call.kwargs)], _placeholder)
        config.args, config.kwargs = tuple(args), kwargs
        return config
    config.ignore(*IGNORED_KEYS)
    config.flag("trainable", True)
    expect_float32(config, config.take("dtype", None))
    for key in PRECISION_KEYS:
        value = config.take(key, None)
        if value is not None and value is not False:
            config.unsupported(key, value, "unset")
    if not layer.is_input:
        config.ignore(*SHAPE_KEYS)
        return config
    for key in SHAPE_KEYS:
        shape = config.options.get(key)
        if type(shape) is list and shape:
            config.options[key] = [None, *shape[1:]]  # Keras takes any batch size too
    return config


def _placeholder(value: Any) -> Any:
    return TENSOR if isinstance(value, TensorRef) else value


def expect_float32(config: LayerConfig, policy: Any) -> None:
    """Raise UnsupportedLayerError unless a dtype or a dtype policy is float32."""
    name = policy
    if type(policy) is dict and policy.get("class_name") in POLICY_CLASSES:
        inner = policy.get("config")
        name = inner.get("name") if type(inner) is dict else policy
    if name is not None and name != "float32":
        config.unsupported("dtype", name, "'float32'")


def layer_inputs(layer: LayerSpec, call: Call) -> list[TensorRef]:
    """Return the tensors that a call reads; refuse arguments that change what it computes."""
    if layer.is_op:
        return [*tensors_of(call.args), *tensors_of(call.kwargs)]
    for key, value in call.kwargs.items():
        # Functional models of Keras 3 replace `training` by that of their own call.
        is_idle = key == "training" and (value is False or not call.is_legacy)
        if not is_idle and any(leaf is not None for leaf in leaves(value)):
            raise UnsupportedLayerError(
                f"{title(layer)}: it is called with {key[:80]!r}; accepted: only its inputs"
            )
    args = [value for value in call.args if value is not None]
    if len(args) > 1 and layer.model is None and _op_key(layer) is None:
        args = [args]  # a custom layer's; Keras' own layers take one argument
    if len(args) != 1:
        raise UnsupportedLayerError(
            f"{title(layer)}: it is called with {len(args)} arguments; accepted: 1"
        )
    (value,) = args
    if layer.model is not None:
        value = _model_inputs(layer, layer.model, value)
    refs = value if isinstance(value, list) else [value]
    if not refs or not all(isinstance(ref, TensorRef) for ref in refs):
        raise ModelFileError(f"{title(layer)}: its inputs must be tensors")
    return refs


def _model_inputs(layer: LayerSpec, model: ModelSpec, value: Any) -> Any:
    """Return the tensors that a nested model is called with, in the order of its inputs."""
    is_nested = isinstance(model.input_structure, (dict, list))
    found = unpack(model.input_structure, value) if is_nested else None
    if found is not None:
        return [found[position] for position in range(len(model.inputs))]
    if not isinstance(value, dict):
        return value
    if set(value) != set(model.inputs):
        raise UnsupportedLayerError(
            f"{title(layer)}: it is called with other keys than its input layers' names"
        )
    return [value[name] for name in model.inputs]


def build_ops(
    factory: Factory, config: LayerConfig, weights: LayerWeights, shapes: Sequence[Shape]
) -> tuple[Op, ...]:
    """Return the chain of ops that a layer stands for; all options and arrays are used."""
    try:
        result = factory(config, weights, shapes)
        config.finish()
        weights.finish()
    except ShapeError as error:
        raise ModelFileError(str(error)) from error
    except CONFUSED as error:
        raise ModelFileError(f"{config.title}: invalid option: {str(error)[:200]}") from error
    except MemoryError as error:
        raise ResourceLimitError(f"{config.title}: not enough memory") from error
    return result if isinstance(result, tuple) else (result,)


def output_shape(name: str, op: Op, shapes: Sequence[Shape]) -> Shape:
    """Return the shape that an op computes; errors name the layer."""
    try:
        return op.infer_shape(*shapes)
    except CONFUSED as error:  # ShapeError is a ValueError
        raise ModelFileError(f"{name}: {str(error)[:300]}") from error
