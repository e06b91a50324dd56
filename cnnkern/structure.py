"""How a model groups its inputs and outputs: lists and dicts around positions.

A structure is a position, or a list or dict of structures: ``{"boxes": 1, "scores": [0, 2]}``
says that a model returns a dict, and in it the second of its outputs as "boxes".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any

Structure = Any  # int | list[Structure] | dict[str, Structure]


def flat(length: int) -> Structure:
    """Return the structure of one tensor, or of a list of several."""
    return 0 if length == 1 else list(range(length))


def numbered(value: Any, is_leaf: Callable[[Any], bool]) -> Structure:
    """Return nested lists and dicts with leaves counted as Keras does: dicts by sorted key.

    A list of one leaf is that leaf, as in what Keras' ``predict`` returns.
    """
    structure = _numbered(value, is_leaf, count())
    return 0 if structure == [0] else structure


def _numbered(value: Any, is_leaf: Callable[[Any], bool], counter: Iterator[int]) -> Structure:
    if is_leaf(value):
        return next(counter)
    if isinstance(value, dict):
        numbers = {key: _numbered(value[key], is_leaf, counter) for key in sorted(value)}
        return {key: numbers[key] for key in value}
    return [_numbered(item, is_leaf, counter) for item in value]


def pack(structure: Structure, values: Sequence[Any]) -> Any:
    """Return `values` in the lists and dicts that `structure` says."""
    if isinstance(structure, dict):
        return {key: pack(inner, values) for key, inner in structure.items()}
    if isinstance(structure, list):
        return [pack(inner, values) for inner in structure]
    return values[structure]


def unpack(structure: Structure, value: Any) -> dict[int, Any] | None:
    """Return what stands in `value` at each position, or None where it is built otherwise."""
    if isinstance(structure, dict):
        fits = isinstance(value, Mapping) and set(value) == set(structure)
        pairs = [(inner, value[key]) for key, inner in structure.items()] if fits else []
    elif isinstance(structure, list):
        fits = isinstance(value, (list, tuple)) and len(value) == len(structure)
        pairs = list(zip(structure, value, strict=True)) if fits else []
    else:
        return {structure: value}
    found: dict[int, Any] = {}
    for inner, item in pairs:
        part = unpack(inner, item)
        if part is None:
            return None
        found.update(part)
    return found if fits else None


def leaves(value: Any) -> Iterator[Any]:
    """Yield what stands in nested lists and dicts, in the order in which Keras counts it."""
    if isinstance(value, Mapping):
        for key in sorted(value):
            yield from leaves(value[key])
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from leaves(item)
    else:
        yield value
