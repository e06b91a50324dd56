"""Structures: how Keras counts, groups and ungroups the tensors of a model."""

from __future__ import annotations

from typing import Any

import pytest

from cnnkern.structure import flat, leaves, numbered, pack, unpack

NESTED = {"z": ["p", "q"], "a": {"c": "r"}}  # Keras counts "a" before "z"


def is_text(value: Any) -> bool:
    return isinstance(value, str)


def test_by_hand() -> None:
    structure = numbered(NESTED, is_text)
    assert structure == {"z": [1, 2], "a": {"c": 0}}
    assert list(structure) == ["z", "a"]
    assert pack(structure, "rpq") == NESTED
    assert unpack(structure, NESTED) == {0: "r", 1: "p", 2: "q"}
    assert list(leaves(NESTED)) == ["r", "p", "q"]


@pytest.mark.parametrize(
    ("value", "structure"), [("p", 0), (["p"], 0), (["p", "q"], [0, 1]), ({"k": "p"}, {"k": 0})]
)
def test_a_list_of_one_is_that_one(value: Any, structure: Any) -> None:
    assert numbered(value, is_text) == structure


def test_flat() -> None:
    assert [flat(1), flat(2)] == [0, [0, 1]]


@pytest.mark.parametrize(
    "value", ["p", ["p", "q"], {"z": ["p", "q"]}, {**NESTED, "z": "p"}, {**NESTED, "z": ["p"]},
              {**NESTED, "more": "p"}, {**NESTED, "a": {}}], ids=str,
)  # fmt: skip
def test_what_is_built_otherwise_is_not_unpacked(value: Any) -> None:
    assert unpack(numbered(NESTED, is_text), value) is None


def test_tuples_stand_for_lists() -> None:
    assert unpack([0, [1]], ("p", ("q",))) == {0: "p", 1: "q"}
