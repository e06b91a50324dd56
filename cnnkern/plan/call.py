"""Planned calls, of kernels and of Python functions between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ..graph import Array
from .buffer import ABSOLUTE, Address, Buffer

# Claims of a step: enough for several threads to end together. Each costs about as much as a
# thousand multiply-adds, a tenth of what a simple step takes to write CLAIM_NBYTES.
MAX_CLAIMS, MIN_CLAIMS = 32, 4
CLAIM_NBYTES = 8 << 10


def claims(nbytes: int) -> int:
    """Return how often at most threads claim tiles of a simple step that writes `nbytes`."""
    return min(max(nbytes // CLAIM_NBYTES, MIN_CLAIMS), MAX_CLAIMS)


@dataclass(frozen=True)
class Call:
    """A kernel and its argument record."""

    kernel: str
    fields: dict[str, Any]  # int, float, Address or another Call, whose record is pointed to

    def values(self) -> Iterator[tuple[str, Any]]:
        """Yield every field and its value, those of other calls' records included."""
        for name, value in self.fields.items():
            if isinstance(value, Call):
                yield from value.values()
            else:
                yield name, value

    def addresses(self) -> Iterator[tuple[str, Address]]:
        """Yield field and address of what is read or written in the arena."""
        for name, value in self.values():
            if isinstance(value, Address) and value.storage != ABSOLUTE:
                yield name, value

    def storages(self) -> set[str]:
        """Return the storages that are read or written."""
        return {address.storage for _, address in self.addresses()}

    def numbers(self) -> set[int]:
        """Return all ints among the values, and the addresses outside of the arena.

        What is only asked for is left out: a later step reads it.
        """
        plain = (v.offset_bytes if isinstance(v, Address) and v.storage == ABSOLUTE else v
                 for name, v in self.values() if name != "ahead")  # fmt: skip
        return {value for value in plain if isinstance(value, int)}


@dataclass(frozen=True)
class Step(Call):
    """One planned kernel call."""

    node: str
    n_tiles: int
    flops: int = 0
    max_claims: int = MAX_CLAIMS
    scratch_nbytes: int = 0  # per thread

    @property
    def grain(self) -> int:
        """Tiles that a thread claims at once: few enough claims, many enough to share."""
        return -(-self.n_tiles // self.max_claims)


@dataclass(frozen=True)
class HostCall:
    """A Python function that runs between two steps; it needs the interpreter."""

    step: int  # the first step that runs after it
    function: Callable[..., Array]
    inputs: tuple[Buffer, ...]
    output: Buffer
