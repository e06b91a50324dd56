"""A Keras layer's configuration and weights, read strictly: nothing is ignored."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol

from ..errors import ModelFileError, UnsupportedLayerError
from ..graph import Array
from ..lazy import Weight

MAX_INT = 2**31 - 1  # TensorFlow holds sizes, strides and dilations as int32
_REQUIRED = object()
_TRAINING_KINDS = ("initializer", "regularizer", "constraint")


class _Tensor:
    def __repr__(self) -> str:
        return "a tensor"


TENSOR = _Tensor()  # stands for an input tensor among an op node's arguments


class Weights(Protocol):
    """A layer's arrays in Keras' order, handed out one by one."""

    def take(self, name: str, shape: Sequence[int]) -> Array:
        """Return the next array; raise ModelFileError unless its shape is `shape`.

        The shape is compared before a single element is read.
        """
        ...

    def defer(self, name: str, shape: Sequence[int]) -> Weight:
        """Return the next array like `take`, but maybe lazy: for large filters."""
        ...

    def skip(self, name: str) -> None:
        """Pass over the next array, which inference does not need; read nothing."""
        ...


@dataclass
class LayerConfig:
    """One layer's options. `take` removes a key; `finish` refuses what is left."""

    name: str
    class_name: str
    options: dict[str, Any]
    args: tuple[Any, ...] = ()  # an op node's positional arguments, tensors as TENSOR
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    in_channels_first_model: bool = False  # some layer of the model is channels_first

    def take(self, key: str, default: Any = _REQUIRED) -> Any:
        """Remove and return an option; a missing one without default is malformed."""
        if key in self.options:
            return self.options.pop(key)
        if default is _REQUIRED:
            raise ModelFileError(f"{self.title}: option {key!r} is missing")
        return default

    def integer(self, key: str, default: Any = _REQUIRED, least: int = 1) -> int:
        """Return an option that must be an int of at least `least`."""
        value = self.take(key, default)
        if not _is_int(value, least):
            self.malformed(key, value, f"an int of at least {least}")
        return int(value)

    def ints(
        self, key: str, rank: int, default: Any = _REQUIRED, least: int = 1
    ) -> tuple[int, ...]:
        """Return an option given as one int or as `rank` ints, each at least `least`."""
        value = self.take(key, default)
        values = tuple(value) if isinstance(value, (list, tuple)) else (value,) * rank
        if len(values) != rank or not all(_is_int(v, least) for v in values):
            self.malformed(key, value, f"an int of at least {least}, or {rank} of them")
        return values

    def choice(self, key: str, accepted: Sequence[Any], default: Any = _REQUIRED) -> Any:
        """Return an option that must be one of `accepted`; others are unsupported."""
        value = self.take(key, default)
        if not any(value == a and type(value) is type(a) for a in accepted):
            self.unsupported(key, value, " or ".join(repr(a) for a in accepted))
        return value

    def number(self, key: str, default: Any = _REQUIRED) -> float:
        """Return an option that must be a finite int or float."""
        value = self.take(key, default)
        if not is_number(value):
            self.malformed(key, value, "a finite number")
        return float(value)

    def flag(self, key: str, default: Any = _REQUIRED) -> bool:
        """Return an option that must be true or false."""
        value = self.take(key, default)
        if type(value) is not bool:
            self.malformed(key, value, "true or false")
        return value

    def ignore(self, *keys: str) -> None:
        """Drop options that change nothing at inference (initializers, regularizers, ...)."""
        for key in keys:
            self.options.pop(key, None)

    def ignore_training(self, *weights: str) -> None:
        """Drop the initializer, regularizer and constraint of each named weight."""
        for weight in weights:
            self.ignore(*(f"{weight}_{kind}" for kind in _TRAINING_KINDS))

    def finish(self) -> None:
        """Refuse every option that is still there and is not None or False."""
        self.ignore("activity_regularizer")  # a term of the training loss on any layer
        for key, value in self.options.items():
            if value is not None and value is not False:
                self.unsupported(key, value, "unset")

    @property
    def title(self) -> str:
        """The layer as error messages name it, such as ``Conv2D 'block1_conv1'``."""
        return f"{self.class_name} {self.name[:80]!r}"

    def unsupported(self, key: str, value: Any, accepted: str) -> NoReturn:
        """Raise UnsupportedLayerError for an option."""
        raise UnsupportedLayerError(
            f"{self.title}: {key}={_short(value)} is not supported; accepted: {accepted}"
        )

    def malformed(self, key: str, value: Any, expected: str) -> NoReturn:
        """Raise ModelFileError for an option that Keras would not accept either."""
        raise ModelFileError(f"{self.title}: {key}={_short(value)} must be {expected}")


def is_number(value: Any) -> bool:
    """Tell whether `value` is an int or float that a float can hold, not NaN or infinity."""
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _is_int(value: Any, least: int) -> bool:
    return type(value) is int and least <= value <= MAX_INT


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
