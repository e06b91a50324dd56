"""Planned kernel calls."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .buffer import Address

MAX_CLAIMS = 32  # per step; a claim costs about as much as a thousand multiply-adds


@dataclass(frozen=True)
class Call:
    """A kernel and its argument record."""

    kernel: str
    fields: dict[str, Any]  # int, float, Address or another Call, whose record is pointed to

    def addresses(self) -> Iterator[tuple[str, Address]]:
        """Yield field and address of what is read or written in the arena."""
        for name, value in self.fields.items():
            if isinstance(value, Address):
                yield name, value
            elif isinstance(value, Call):
                yield from value.addresses()

    def storages(self) -> set[str]:
        """Return the storages that are read or written."""
        return {address.storage for _, address in self.addresses() if address.storage}

    def numbers(self) -> set[int]:
        """Return all fields that are ints or addresses outside of the arena."""
        found: set[int] = set()
        for value in self.fields.values():
            if isinstance(value, Call):
                found |= value.numbers()
            elif isinstance(value, Address):
                found |= {value.offset_bytes} if not value.storage else set()
            elif isinstance(value, int):
                found.add(value)
        return found


@dataclass(frozen=True)
class Step(Call):
    """One planned kernel call."""

    node: str
    n_tiles: int
    flops: int = 0
    max_claims: int = MAX_CLAIMS

    @property
    def grain(self) -> int:
        """Tiles that a thread claims at once: few enough claims, many enough to share."""
        return max(self.n_tiles // self.max_claims, 1)
