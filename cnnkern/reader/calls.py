"""Who reads whose output: the calls between layers, as Keras 1, 2 and 3 write them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import ModelFileError
from ..shapes import Shape


@dataclass(frozen=True)
class TensorRef:
    """The tensor that one call of a layer returned; `shape` is what the file claims."""

    layer: str
    call: int
    tensor: int
    shape: Shape | None = None


@dataclass(frozen=True)
class Call:
    """One application of a layer; the arguments hold a TensorRef where a tensor goes."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    is_legacy: bool = False  # written before Keras 3


def typed(owner: str, mapping: Any, key: str, *kinds: type) -> Any:
    """Return ``mapping[key]``, whose type must be one of `kinds` exactly."""
    value = mapping.get(key) if type(mapping) is dict else None
    if type(value) not in kinds:
        expected = " or ".join(kind.__name__ for kind in kinds)
        found = "missing" if value is None else f"a {type(value).__name__}"
        raise ModelFileError(f"{owner}: {key!r} must be {expected}, it is {found}")
    return value


def claimed_shape(value: Any) -> Shape | None:
    """Return a shape from a configuration, or None where it is not one."""
    if type(value) is not list or not value:
        return None
    if all(n is None or (type(n) is int and n >= 0) for n in value):
        return tuple(value)
    return None


def is_ref(value: Any) -> bool:
    """Tell whether a value is a reference to a tensor: layer, call, output, arguments."""
    return (
        type(value) is list
        and len(value) in (3, 4)
        and type(value[0]) is str
        and type(value[1]) is int
        and type(value[2]) is int
    )


def model_refs(owner: str, value: Any) -> Iterator[TensorRef]:
    """Yield the references of `input_layers` or `output_layers`, in Keras' order."""
    if is_ref(value):
        yield TensorRef(value[0], value[1], value[2])
    elif type(value) is list:
        for item in value:
            yield from model_refs(owner, item)
    elif type(value) is dict:
        for key in sorted(value):
            yield from model_refs(owner, value[key])
    else:
        raise ModelFileError(f"{owner}: a reference to a tensor is malformed")


def parse_calls(nodes: Any, owner: str) -> tuple[tuple[Call, ...], bool]:
    """Return the calls that `inbound_nodes` lists, and whether Keras 3 wrote them."""
    if nodes is None:
        return (), False
    if type(nodes) is not list or not all(type(node) in (list, dict) for node in nodes):
        raise ModelFileError(f"{owner}: 'inbound_nodes' must be a list of calls")
    is_dict_style = any(type(node) is dict for node in nodes)
    read = _keras3_call if is_dict_style else _legacy_call
    return tuple(read(node, owner) for node in nodes), is_dict_style


def _keras3_call(node: Any, owner: str) -> Call:
    args = map_tensors(typed(owner, node, "args", list), _keras_tensor)
    return Call(tuple(args), map_tensors(typed(owner, node, "kwargs", dict), _keras_tensor))


def _keras_tensor(value: Any) -> Any:
    if type(value) is not dict or value.get("class_name") != "__keras_tensor__":
        return value
    config = typed("a tensor", value, "config", dict)
    history = typed("a tensor", config, "keras_history", list)
    if not is_ref(history):
        raise ModelFileError("a tensor's 'keras_history' is malformed")
    name, call, tensor = history[:3]
    return TensorRef(name, call, tensor, claimed_shape(config.get("shape")))


def _legacy_call(node: Any, owner: str) -> Call:
    if not node or not all(is_ref(item) for item in node):
        raise ModelFileError(f"{owner}: 'inbound_nodes' is malformed")
    refs = [TensorRef(item[0], item[1], item[2]) for item in node]
    options = [item[3] for item in node if len(item) == 4 and item[3]]
    if any(type(kwargs) is not dict or kwargs != options[0] for kwargs in options):
        raise ModelFileError(f"{owner}: 'inbound_nodes' has malformed arguments")
    args = (refs[0] if len(refs) == 1 else refs,)
    return Call(args, options[0] if options else {}, is_legacy=True)


def map_tensors(value: Any, change: Callable[[Any], Any]) -> Any:
    """Return nested lists and dicts with `change` applied to every other value."""
    changed = change(value)
    if type(changed) is list:
        return [map_tensors(item, change) for item in changed]
    if type(changed) is dict:
        return {key: map_tensors(item, change) for key, item in changed.items()}
    return changed


def tensors_of(value: Any) -> Iterator[TensorRef]:
    """Yield the tensors in an argument, in the order in which Keras flattens it."""
    if isinstance(value, TensorRef):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_of(item)
    elif isinstance(value, Mapping):
        for key in sorted(value):
            yield from tensors_of(value[key])


def call_tensors(call: Call) -> list[TensorRef]:
    """Return the tensors that a call reads."""
    return [*tensors_of(call.args), *tensors_of(call.kwargs)]
