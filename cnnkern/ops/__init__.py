"""What each Keras layer means: one op class per computation, one file per family.

To add a layer, write its op class in the file of its family and its test case in
``tests/ops``. The class attribute `keras_classes` names the Keras classes that the op
reads, as ``"module>Class"``; REGISTRY is built from it, nothing else has to be edited.
"""

from __future__ import annotations

from types import ModuleType

from ..errors import PlanError
from ..graph import Op
from . import (
    activation,
    adaptive,
    conv,
    custom,
    dense,
    depthwise,
    dot,
    layernorm,
    layout,
    merge,
    norm,
    pool,
    prelu,
    resize,
    softmax,
    transpose,
)

FAMILIES = (
    activation, adaptive, conv, custom, dense, depthwise, dot, layernorm, layout, merge, norm,
    pool, prelu, resize, softmax, transpose,
)  # fmt: skip


def op_classes(*families: ModuleType) -> list[type[Op]]:
    """Return the op classes that the modules define, in the order of their definition."""
    return [
        value
        for family in families
        for value in vars(family).values()
        if isinstance(value, type)
        and issubclass(value, Op)
        and value.__module__ == family.__name__
    ]


def _registry() -> dict[str, type[Op]]:
    registry: dict[str, type[Op]] = {}
    for op in op_classes(*FAMILIES):
        for key in vars(op).get("keras_classes", ()):
            if key in registry:
                raise PlanError(f"{key} belongs to {registry[key].__name__} and {op.__name__}")
            registry[key] = op
    return registry


REGISTRY: dict[str, type[Op]] = _registry()
