"""The cases that the onnx package ships: one node, its inputs, what it must compute."""

from __future__ import annotations

import importlib
import pkgutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.backend.test.case import node as node_tests
from onnx.backend.test.loader import load_model_tests

Tensor = NDArray[Any]
STORED = ("pytorch-converted", "pytorch-operator")  # folders of the package's test data


class Outside(Exception):
    """A case means something that no Keras layer computes."""


@dataclass(frozen=True)
class Case:
    """One node with its inputs, None for omitted ones, and its first output."""

    name: str
    node: onnx.NodeProto
    opset: int
    inputs: tuple[Tensor | None, ...]
    expected: Tensor
    rtol: float
    atol: float

    def __str__(self) -> str:
        return self.name

    @cached_property
    def attributes(self) -> dict[str, Any]:
        """The node's attributes as Python values, strings decoded."""
        values = {a.name: onnx.helper.get_attribute_value(a) for a in self.node.attribute}
        return {k: v.decode() if isinstance(v, bytes) else v for k, v in values.items()}

    @property
    def x(self) -> Tensor:
        """The first input."""
        x = self.inputs[0]
        assert x is not None
        return x

    def input(self, index: int) -> Tensor | None:
        """Return an input, or None where it is omitted."""
        return self.inputs[index] if index < len(self.inputs) else None

    def refuse(self, reason: str, condition: object = True) -> None:
        """Raise Outside with `reason` if `condition` holds."""
        if condition:
            raise Outside(reason)


def cases(op_types: set[str]) -> list[Case]:
    """Return all cases of one node, sorted by name, whose type is in `op_types`."""
    found = [*_generated(op_types), *_stored(op_types)]
    return sorted(found, key=lambda case: case.name)


def _generated(op_types: set[str]) -> Iterator[Case]:
    """Yield the node tests; importing a module of onnx appends its cases to a list."""
    wanted = {op_type.lower() for op_type in op_types}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some expected outputs divide by zero
        for module in pkgutil.iter_modules(node_tests.__path__):
            if module.name.replace("_", "") in wanted:
                importlib.import_module(f"{node_tests.__name__}.{module.name}")
    for test in node_tests._NodeTestCases:
        inputs, outputs = test.data_sets[0]
        names = [i.name for i in test.model.graph.input]
        yield from _single(test, test.model, dict(zip(names, inputs, strict=True)), outputs[0],
                           op_types)  # fmt: skip


def _stored(op_types: set[str]) -> Iterator[Case]:
    """Yield the tests of one layer each that were exported from PyTorch."""
    for kind in STORED:
        for test in load_model_tests(kind=kind):
            folder = Path(test.model_dir)
            model, data = onnx.load(folder / "model.onnx"), folder / "test_data_set_0"
            values = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
            names = [i.name for i in model.graph.input if i.name not in values]
            for i, name in enumerate(names):
                values[name] = _read(data / f"input_{i}.pb")
            yield from _single(test, model, values, _read(data / "output_0.pb"), op_types)


def _read(path: Path) -> Tensor:
    return numpy_helper.to_array(onnx.load_tensor(path))


def _single(
    test: Any, model: onnx.ModelProto, values: dict[str, Tensor], expected: Tensor,
    op_types: set[str],
) -> Iterator[Case]:  # fmt: skip
    """Yield the case if the model is one node of a wanted type."""
    if len(model.graph.node) == 1 and model.graph.node[0].op_type in op_types:
        (node,) = model.graph.node
        inputs = tuple(values[name] if name else None for name in node.input)
        opset = model.opset_import[0].version
        yield Case(test.name, node, opset, inputs, np.asarray(expected), test.rtol, test.atol)
