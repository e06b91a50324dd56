"""What the array-level functions accept, compiled and naive alike."""

from __future__ import annotations

from typing import Any

import numpy as np

from .errors import DTypeError, ShapeError
from .graph import Array, Op, as_array
from .ops.activation import NAMES, by_name
from .shapes import Pair


def real_array(name: str, value: Any, layout: str | None = None) -> Array:
    """Return `value` as float32, its rank checked against a layout such as ``[N, C]``."""
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise DTypeError(f"{name}: expected real numbers, got {array.dtype}")
    if layout is not None and array.ndim != layout.count(",") + 1:
        raise ShapeError(f"{name}: expected {layout}, got {array.shape}")
    return as_array(array).reshape(array.shape)


def bias_vector(b: Any, OC: int) -> Array:
    """Return the bias, zeros where there is none."""
    if b is None:
        return np.zeros(OC, np.float32)
    bias = real_array("b", b, "[OC]")
    if bias.shape != (OC,):
        raise ShapeError(f"b: expected ({OC},), got {bias.shape}")
    return bias


def int_pair(name: str, value: int | Pair) -> Pair:
    """Return an int, or two, as (height, width)."""
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2 or any(type(n) is not int or n < 1 for n in pair):
        raise ValueError(f"{name}={value!r} must be an int of at least 1, or two of them")
    return pair[0], pair[1]


def padding_mode(padding: str) -> str:
    """Return the mode if it is one that 2D layers have."""
    if padding not in ("valid", "same"):
        raise ValueError(f"padding={padding!r} must be 'valid' or 'same'")
    return padding


def activation_op(name: str | None) -> Op | None:
    """Return the op of a Keras activation's name; None for no activation."""
    if name is None:
        return None
    if name not in NAMES:
        raise ValueError(f"activation={name!r} is unknown; known: {', '.join(NAMES)}")
    return by_name(name)


def axis_of(x: Array, axis: int) -> int:
    """Return an axis of `x`, counted from the end."""
    if type(axis) is not int or not -x.ndim <= axis < x.ndim:
        raise ShapeError(f"axis {axis!r} does not exist in {x.shape}")
    return axis - x.ndim if axis >= 0 else axis


def grouped_channels(x: Array, w: Array, groups: int) -> None:
    """Check that filters ``[KH, KW, C/groups, OC]`` fit the channels of an image."""
    C, CG, OC = x.shape[-1], w.shape[-2], w.shape[-1]
    if type(groups) is not int or groups < 1 or CG * groups != C or OC % groups:
        raise ShapeError(
            f"conv2d: w {w.shape} with groups={groups} needs {CG * max(groups, 1)} input "
            f"channels and output channels that groups divides; x has {C} channels"
        )
