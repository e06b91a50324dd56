"""A live `keras.Model`: Keras' own configuration, and weights from its variables."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..errors import ModelFileError, UnsupportedLayerError
from ..graph import Array, as_array
from .config import ModelSpec, parse_model
from .jsontext import parse_json
from .weights import LayerWeights, Source, WeightQueue, title


def describe(model: Any) -> tuple[ModelSpec, Source]:
    """Return a live model's records and the source of its weights.

    Parameters
    ----------
    model : keras.Model
        A built Sequential or Functional model.

    Raises
    ------
    UnsupportedLayerError
        The model is a subclass with code of its own, or is not built.
    ModelFileError
        The configuration that Keras gives is not one that it can read.
    """
    import keras

    if not isinstance(model, keras.Model):
        raise UnsupportedLayerError(f"expected a keras.Model, got {type(model).__name__}")
    if not model.built:
        raise UnsupportedLayerError(f"model {model.name!r} is not built: call model.build")
    try:
        config = {
            "module": type(model).__module__,
            "class_name": type(model).__name__,
            "config": model.get_config(),
        }
        text = json.dumps(config)
    except (NotImplementedError, TypeError, ValueError) as error:
        raise UnsupportedLayerError(
            f"model {model.name!r} has no configuration: {str(error)[:200]}"
        ) from error
    spec = parse_model(parse_json(text, f"the configuration of {model.name!r}"))
    return spec, LiveSource(model, spec)


def weighted_layers(model: Any) -> list[str]:
    """Return the names of a live model's layers that have weights, in order."""
    return [layer.name for layer in model.layers if layer.weights]


class LiveSource:
    """Weights of a live model, found by layer name."""

    def __init__(self, model: Any, spec: ModelSpec) -> None:
        self._spec = spec
        self._layers = {layer.name: layer for layer in model.layers}

    def weights(self, index: int) -> LayerWeights:
        """Return the variables of a layer."""
        layer = self._spec.layers[index]
        if layer.is_op:
            return WeightQueue(title(layer), ())
        return WeightQueue(title(layer), _variables(self._live(index)))

    def nested(self, index: int) -> Source:
        """Return the source of a nested model."""
        layer = self._spec.layers[index]
        assert layer.model is not None
        return LiveSource(self._live(index), layer.model)

    def _live(self, index: int) -> Any:
        layer = self._spec.layers[index]
        if layer.name not in self._layers:
            raise ModelFileError(f"{title(layer)}: the model has no such layer")
        return self._layers[layer.name]


@dataclass(frozen=True)
class _Variable:
    numpy: Callable[[], Any]
    shape: tuple[int, ...]

    def read(self) -> Array:
        return as_array(self.numpy()).reshape(self.shape)

    defer = read  # the variable may change


def _variables(layer: Any) -> list[_Variable]:
    import keras

    values = [_Variable(value.numpy, tuple(value.shape)) for value in layer.weights]
    if isinstance(layer, keras.layers.Normalization) and values:
        # It computes with these tensors, which assigning its variables does not change.
        for position, tensor in enumerate((layer.mean, layer.variance)):
            read = partial(keras.ops.convert_to_numpy, tensor)
            values[position] = _Variable(read, values[position].shape)
    return values
