"""Keras configurations as records: every model becomes layers and calls between them.

The same records come from Keras 3 (calls as ``{"args", "kwargs"}``) and from Keras 1 and 2
(calls as lists), from Sequential and from Functional models. Only structure is read here;
a layer's own options stay untouched until its op reads them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from ..errors import ModelFileError, UnsupportedLayerError
from ..shapes import Shape
from ..structure import Structure, numbered
from .calls import (
    Call,
    TensorRef,
    call_tensors,
    claimed_shape,
    is_ref,
    map_tensors,
    model_refs,
    parse_calls,
    typed,
)

CUSTOM = "custom "  # in front of the registered name of a class of the model's author
OP_MODULES = ("keras.ops.", "keras.activations.")  # of functions, which are no layers
INPUT_KEY = "keras.layers>InputLayer"
MODEL_CLASSES = ("Functional", "Model", "Sequential")
MAX_LAYERS = 10_000
MAX_NESTING = 16  # the parser recurses once per nested model
MAX_NAME = 512  # names are printed

KERAS_PACKAGES = (
    "tensorflow.python.keras", "tensorflow.keras", "tf_keras.src", "tf_keras",
    "keras.api._v2.keras", "keras.api", "keras.src", "keras",
)  # fmt: skip


@dataclass(frozen=True)
class LayerSpec:
    """One layer of a model, with its calls in order."""

    name: str
    class_name: str
    key: str  # "module>Class"; the module is empty where the file names none
    config: dict[str, Any]
    calls: tuple[Call, ...] = ()
    model: ModelSpec | None = None
    is_op: bool = False  # a keras.ops function instead of a layer
    is_shown: bool = True  # has a row in the summary
    input_shape: Shape | None = None  # what the layer was built with, as the file claims

    @property
    def is_input(self) -> bool:
        return self.key == INPUT_KEY


@dataclass(frozen=True)
class ModelSpec:
    """A model's layers; `inputs` names its input layers."""

    name: str
    class_name: str
    layers: tuple[LayerSpec, ...]
    inputs: tuple[str, ...]
    outputs: tuple[TensorRef, ...]
    trainable: bool = True
    dtype: Any = None  # the model's own policy: it rounds what the model receives
    input_structure: Structure = 0  # of positions in `inputs`
    output_structure: Structure = 0  # of positions in `outputs`


def parse_model(config: Mapping[str, Any]) -> ModelSpec:
    """Return the records of a serialised Keras model.

    Raises
    ------
    ModelFileError
        The configuration is malformed.
    UnsupportedLayerError
        The model is neither Sequential nor Functional.
    """
    entry = _Entry(config, "model")
    if not entry.is_model:
        raise UnsupportedLayerError(
            f"model class {entry.class_name[:160]!r} is not supported; "
            "accepted: Sequential or Functional"
        )
    return _Parser().model(entry, 0)


def registry_key(module: str | None, class_name: str) -> str:
    """Return the name under which ops register a class, such as ``keras.layers>Conv2D``."""
    if module is None:
        return f">{class_name}"
    for package in KERAS_PACKAGES:
        if module == package or module.startswith(package + "."):
            rest = module[len(package) :]
            is_layer = (rest + ".").startswith((".layers.", ".engine."))
            return f"keras{'.layers' if is_layer else rest}>{class_name}"
    return f"{module}>{class_name}"


def _is_name(text: str) -> bool:
    return 0 < len(text) <= MAX_NAME and text.isprintable()


class _Entry:
    """The dictionary that Keras writes per object: class, module, config."""

    def __init__(self, raw: Any, owner: str) -> None:
        self.raw = raw
        self.class_name: str = typed(owner, raw, "class_name", str)
        if not _is_name(self.class_name):
            raise ModelFileError(f"{owner}: 'class_name' is not a name")
        self.config: Any = typed(owner, raw, "config", dict, list)
        if not all(map(_is_name, self.config if type(self.config) is dict else ())):
            raise ModelFileError(f"{owner}: the name of an option is not a name")
        module, registered = raw.get("module"), raw.get("registered_name")
        for value in (module, registered):
            if value is not None and (type(value) is not str or not _is_name(value)):
                raise ModelFileError(f"{owner}: 'module' and 'registered_name' must be names")
        self.key = registry_key(module, self.class_name)
        if module is None and ">" in self.class_name:  # HDF5 files name no modules
            registered = self.class_name
        is_of_keras = self.key.startswith(("keras.", "keras>"))
        if registered is not None and (">" in registered or not is_of_keras):
            self.key = f"{CUSTOM}{registered}"

    @property
    def is_model(self) -> bool:
        module = self.key.split(">", 1)[0]
        in_keras = module in ("", "keras", "keras.layers") or module.startswith("keras.models")
        return in_keras and self.class_name in MODEL_CLASSES

    @property
    def name(self) -> str:
        """The layer's name; raise ModelFileError where it has none."""
        config_name = self.config.get("name") if type(self.config) is dict else None
        name = self.raw.get("name", config_name)
        if name is None and type(self.config) is list:  # Keras before 2.2.3
            name = self.class_name.lower()
        if type(name) is not str or not _is_name(name):
            raise ModelFileError(f"{self.class_name[:80]}: a layer needs a printable name")
        return name


class _Parser:
    def __init__(self) -> None:
        self.n_layers = 0

    def model(self, entry: _Entry, depth: int) -> ModelSpec:
        if depth > MAX_NESTING:
            raise ModelFileError(f"models are nested deeper than {MAX_NESTING} levels")
        if entry.class_name == "Sequential":
            return self._sequential(entry, depth)
        return self._functional(entry, depth)

    def _layer(self, raw: Any, owner: str, depth: int) -> LayerSpec:
        self.n_layers += 1
        if self.n_layers > MAX_LAYERS:
            raise ModelFileError(f"the model has more than {MAX_LAYERS} layers")
        entry = _Entry(raw, owner)
        name = entry.name
        build_config = raw.get("build_config")
        built = build_config.get("input_shape") if type(build_config) is dict else None
        model = self.model(entry, depth + 1) if entry.is_model else None
        if model is None and type(entry.config) is not dict:
            raise ModelFileError(f"{entry.class_name[:80]} {name[:80]!r}: no configuration")
        config = entry.config if type(entry.config) is dict else {}
        calls, is_dict_style = parse_calls(raw.get("inbound_nodes"), f"layer {name[:80]!r}")
        is_op = entry.key.startswith(OP_MODULES) or (
            # Keras 3 writes no modules into HDF5 files, but one of these for every layer
            is_dict_style
            and entry.key.startswith(">")
            and config.keys().isdisjoint(("trainable", "dtype"))
        )
        key = f"keras.layers{entry.key}" if entry.key == ">InputLayer" else entry.key
        if key == INPUT_KEY and calls:
            raise ModelFileError(f"InputLayer {name[:80]!r} cannot have inputs")
        return LayerSpec(
            name=name,
            class_name=entry.class_name,
            key=key,
            config=config,
            calls=calls,
            model=model,
            is_op=is_op and model is None and key != INPUT_KEY,
            input_shape=claimed_shape(built),
        )

    def _layers(self, owner: str, raws: list[Any], depth: int) -> tuple[LayerSpec, ...]:
        layers = tuple(self._layer(raw, owner, depth) for raw in raws)
        names = [layer.name for layer in layers]
        if len(set(names)) < len(names):
            raise ModelFileError(f"{owner}: two layers have the same name")
        return layers

    def _functional(self, entry: _Entry, depth: int) -> ModelSpec:
        owner = f"model {entry.name[:80]!r}"
        layers = self._layers(owner, typed(owner, entry.config, "layers", list), depth)
        input_refs = list(model_refs(owner, entry.config.get("input_layers")))
        outputs = list(model_refs(owner, entry.config.get("output_layers")))
        inputs = tuple(ref.layer for ref in input_refs)
        declared = {layer.name for layer in layers if layer.is_input}
        if not inputs or set(inputs) != declared or len(set(inputs)) < len(inputs):
            raise ModelFileError(f"{owner}: the input layers do not match 'input_layers'")
        idle = [layer.name for layer in layers if not layer.is_input and not layer.calls]
        if idle or not outputs:
            lacking = f"layer {idle[0][:80]!r} is never called" if idle else "no outputs"
            raise ModelFileError(f"{owner}: {lacking}")
        layers, outputs = _resolve_calls(owner, layers, outputs)
        return ModelSpec(
            entry.name,
            entry.class_name,
            layers,
            inputs,
            tuple(outputs),
            trainable=entry.config.get("trainable") is not False,
            dtype=entry.config.get("dtype"),
            input_structure=numbered(entry.config["input_layers"], is_ref),
            output_structure=numbered(entry.config["output_layers"], is_ref),
        )

    def _sequential(self, entry: _Entry, depth: int) -> ModelSpec:
        owner = f"model {entry.name[:80]!r}"
        config = entry.config if type(entry.config) is dict else {"layers": entry.config}
        layers = self._layers(owner, typed(owner, config, "layers", list), depth)
        if not layers or (layers[0].is_input and len(layers) == 1):
            raise ModelFileError(f"{owner} has no layers")
        if not layers[0].is_input:
            shape = _first_shape(config, entry.raw, layers[0])
            options = {"batch_shape": None if shape is None else list(shape)}
            taken = {layer.name for layer in layers}
            name = next(n for n in _suffixed(f"{layers[0].name}_input") if n not in taken)
            layers = (LayerSpec(name, "InputLayer", INPUT_KEY, options), *layers)
        if any(layer.is_input for layer in layers[1:]):
            raise ModelFileError(f"{owner}: an InputLayer stands behind another layer")
        chain = [replace(layers[0], is_shown=False, calls=())]
        for before, layer in pairwise(layers):
            ref = TensorRef(before.name, 0, 0, layer.input_shape)
            chain.append(replace(layer, calls=(Call((ref,)),)))
        outputs = (TensorRef(chain[-1].name, 0, 0),)
        return ModelSpec(
            entry.name,
            "Sequential",
            tuple(chain),
            (chain[0].name,),
            outputs,
            trainable=config.get("trainable") is not False,
            dtype=config.get("dtype"),
        )


def _suffixed(name: str) -> Iterator[str]:
    yield name
    count = 1
    while True:
        yield f"{name}_{count}"
        count += 1


def _first_shape(config: Any, raw: Any, first: LayerSpec) -> Shape | None:
    """Return the input shape of a Sequential model that has no InputLayer."""
    options = first.config
    build_config = raw.get("build_config")
    shapes = [
        options.get("batch_input_shape"),
        options.get("batch_shape"),
        [None, *options["input_shape"]] if type(options.get("input_shape")) is list else None,
        config.get("build_input_shape"),
        build_config.get("input_shape") if type(build_config) is dict else None,
    ]
    known = [shape for shape in map(claimed_shape, shapes) if shape is not None]
    if known or first.model is None:
        return known[0] if known else first.input_shape
    inner = next(layer for layer in first.model.layers if layer.is_input)
    key = "batch_shape" if "batch_shape" in inner.config else "batch_input_shape"
    return claimed_shape(inner.config.get(key))


def _resolve_calls(
    owner: str, layers: tuple[LayerSpec, ...], outputs: list[TensorRef]
) -> tuple[tuple[LayerSpec, ...], list[TensorRef]]:
    """Count the calls of nested models from 0.

    Keras 2 counts them from 1 when the nested model has an InputLayer. Keras 3 does so
    only for the outputs of the outer model, unless the nested one is Sequential
    (`functional_from_config` in keras/src/models/functional.py).
    """
    by_name = {layer.name: layer for layer in layers}
    calls = [call for layer in layers for call in layer.calls]
    is_legacy = any(call.is_legacy for call in calls)
    first: dict[str, int] = {}
    for ref in (*(ref for call in calls for ref in call_tensors(call)), *outputs):
        if ref.layer not in by_name:
            raise ModelFileError(f"{owner}: layer {ref.layer[:80]!r} does not exist")
        first[ref.layer] = min(first.get(ref.layer, ref.call), ref.call)

    def resolve(ref: TensorRef, is_output: bool) -> TensorRef:
        layer = by_name[ref.layer]
        n_calls, offset = len(layer.calls) or int(layer.is_input), 0
        if layer.model is not None and n_calls == 1:
            offset = int(ref.call == 1)
        elif layer.model is not None and is_legacy:
            offset = int(first[ref.layer] == 1)
        elif layer.model is not None:
            offset = int(is_output and layer.model.class_name != "Sequential")
        if not 0 <= ref.call - offset < n_calls:
            raise ModelFileError(f"{owner}: layer {ref.layer[:80]!r} has no call {ref.call}")
        return replace(ref, call=ref.call - offset)

    def inner(value: Any) -> Any:
        return resolve(value, False) if isinstance(value, TensorRef) else value

    def resolve_call(call: Call) -> Call:
        args, kwargs = map_tensors([list(call.args), dict(call.kwargs)], inner)
        return replace(call, args=tuple(args), kwargs=kwargs)

    resolved = tuple(
        replace(layer, calls=tuple(map(resolve_call, layer.calls))) for layer in layers
    )
    return resolved, [resolve(ref, True) for ref in outputs]
