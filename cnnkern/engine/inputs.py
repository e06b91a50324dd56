"""What `Model` is called with: arrays of real numbers, one by one or in lists and dicts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import DTypeError, ShapeError
from ..graph import Graph
from ..shapes import Shape
from ..structure import flat, pack, unpack


def input_arrays(graph: Graph, shapes: Mapping[str, Shape], x: Any) -> list[NDArray[Any]]:
    """Return one array per graph input, of checked shapes and real numbers.

    Raises
    ------
    ShapeError
        `x` is not built like the model's inputs, or an array has another shape than `shapes`
        says, or batch sizes differ.
    DTypeError
        An array's elements are not real numbers.
    """
    arrays = [
        _real_array(value, name)
        for value, name in zip(_values(graph, shapes, x), graph.inputs, strict=True)
    ]
    for array, name in zip(arrays, graph.inputs, strict=True):
        _check_shape(array.shape, shapes[name], name)
    if len({a.shape[0] for a in arrays}) > 1:
        raise ShapeError(f"batch sizes differ: {[a.shape[0] for a in arrays]}")
    return arrays


def _values(graph: Graph, shapes: Mapping[str, Shape], x: Any) -> list[Any]:
    """Return what `x` holds for each input; raise ShapeError where it is built otherwise."""
    names, structure = graph.inputs, graph.input_structure
    structure = flat(len(names)) if structure is None else structure
    if isinstance(x, Mapping):
        found = unpack(structure, x) if isinstance(structure, (dict, list)) else None
        if found is None and set(x) == set(names):
            found = {position: x[name] for position, name in enumerate(names)}
        expected = list(structure) if isinstance(structure, dict) else list(names)
        if found is None:
            raise ShapeError(f"expected inputs {expected}, got {list(x)}")
    elif len(names) == 1:
        found = {0: x[0] if _is_wrapped(x, shapes[names[0]]) else x}
    else:
        found = unpack(structure, x)
        if found is None:
            got = len(x) if isinstance(x, (list, tuple)) else type(x).__name__
            grouped = "" if structure == flat(len(names)) else f" as {pack(structure, names)}"
            raise ShapeError(f"expected {len(names)} inputs{grouped}, got {got}")
    return [found[position] for position in range(len(names))]


def _is_wrapped(x: Any, expected: Shape) -> bool:
    """Tell whether a list holds the only input, not its images."""
    if not isinstance(x, (list, tuple)) or len(x) != 1 or not hasattr(x[0], "ndim"):
        return False
    return bool(x[0].ndim == len(expected))


def _real_array(value: ArrayLike, name: str) -> NDArray[Any]:
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ShapeError(f"input {name!r} is ragged: {error}") from None
    if array.dtype.kind not in "fiub":
        raise DTypeError(f"input {name!r}: got {array.dtype}, expected real numbers")
    return array


def _check_shape(got: tuple[int, ...], expected: Shape, name: str) -> None:
    fits = len(got) == len(expected) and all(
        e is None or g == e for g, e in zip(got, expected, strict=True)
    )
    if not fits:
        raise ShapeError(f"input {name!r}: got shape {got}, expected {expected}")
