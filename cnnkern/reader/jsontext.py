"""Strict JSON: what a hostile text could use is refused, not interpreted."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from ..errors import ModelFileError

MAX_JSON_BYTES = 8 << 20  # the largest keras.applications configuration has 2 MB
MAX_JSON_DEPTH = 128  # a nested model adds four levels


def parse_json(data: bytes | str, what: str) -> dict[str, Any]:
    """Return the object that a JSON text holds.

    Parameters
    ----------
    data : bytes or str
        The text, UTF-8 when bytes.
    what : str
        How errors name the text.

    Raises
    ------
    ModelFileError
        The text is too long or too deep, is not JSON, is not an object, repeats a key in
        one object, or holds a number that is not finite.
    """
    if len(data) > MAX_JSON_BYTES:
        raise ModelFileError(f"{what} is larger than {MAX_JSON_BYTES} bytes")
    try:
        value = json.loads(
            data,
            object_pairs_hook=_unique_keys,
            parse_float=_finite,
            parse_constant=_no_constant,
        )
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{what} is not valid JSON: {str(error)[:200]}") from error
    if type(value) is not dict:
        raise ModelFileError(f"{what} is not a JSON object")
    if _is_deeper(value, MAX_JSON_DEPTH):
        raise ModelFileError(f"{what} is nested deeper than {MAX_JSON_DEPTH} levels")
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        raise ValueError("an object repeats a key")
    return mapping


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def _is_deeper(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [child for item in level for child in _children(item)]
    return bool(level)


def _children(value: Any) -> list[Any]:
    if type(value) is dict:
        return list(value.values())
    return value if type(value) is list else []
