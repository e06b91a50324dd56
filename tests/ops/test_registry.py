"""The registry: every op class is found, and every Keras class has a test case."""

from __future__ import annotations

import importlib
from pathlib import Path

from cnnkern.ops import FAMILIES, REGISTRY, conv, op_classes
from cnnkern.ops.merge import Add

from .case import Case

# Without options to compare: tested by hand in test_layout.py and test_merge.py.
WITHOUT_CASE = {"keras.layers>InputLayer", "keras.ops.numpy>Concatenate"}
FILES = {path.stem for path in Path(__file__).parent.glob("test_*.py")} - {"test_registry"}
MODULES = [importlib.import_module(f".{name}", __package__) for name in sorted(FILES)]
CASES: list[Case] = [case for module in MODULES for case in getattr(module, "CASES", ())]


def test_registry_by_hand() -> None:
    assert REGISTRY["keras.layers>Conv2D"] is conv.Conv
    assert REGISTRY["keras.layers>Add"] is REGISTRY["keras.ops.numpy>Add"] is Add


def test_every_class_has_a_case() -> None:
    assert set(REGISTRY) - {case.key for case in CASES} == WITHOUT_CASE


def test_every_family_is_walked() -> None:
    sources = {path.stem for path in Path(conv.__file__).parent.glob("*.py")}
    helpers = {
        "__init__", "common", "config", "pairs", "regions", "residual", "sliding", "unfold",
        "window", "winograd",
    }  # fmt: skip
    assert sources - helpers == {family.__name__.rsplit(".", 1)[1] for family in FAMILIES}


def test_every_registered_op_computes() -> None:
    for op in op_classes(*FAMILIES):
        if op in REGISTRY.values():
            assert not op.__abstractmethods__, op.__name__
