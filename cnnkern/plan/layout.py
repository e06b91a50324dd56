"""The arena layout: every storage gets an offset, storages alive together never overlap."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..kernels.memory import ALIGNMENT


@dataclass(frozen=True)
class Lifetime:
    """A storage of `nbytes` that is in use from step `first` to step `last`, both included."""

    storage: str
    nbytes: int
    first: int
    last: int

    def overlaps(self, other: Lifetime) -> bool:
        """Tell whether both are alive at some step."""
        return self.first <= other.last and other.first <= self.last


def place(lifetimes: Iterable[Lifetime]) -> tuple[dict[str, int], int]:
    """Return each storage's offset in bytes, and the size of the arena.

    Largest first, each into the smallest gap that holds it (best fit).
    """
    placed: list[tuple[int, Lifetime]] = []
    offsets: dict[str, int] = {}
    for item in sorted(lifetimes, key=lambda item: (-item.nbytes, item.first, item.storage)):
        offset = _best_gap(item, placed)
        placed.append((offset, item))
        offsets[item.storage] = offset
    return offsets, max((offset + _aligned(i.nbytes) for offset, i in placed), default=0)


def _best_gap(item: Lifetime, placed: list[tuple[int, Lifetime]]) -> int:
    """Return the offset of the smallest gap between storages alive with `item`."""
    taken = sorted(
        (offset, offset + _aligned(other.nbytes))
        for offset, other in placed
        if item.overlaps(other)
    )
    best, best_size, end = None, 0, 0
    for start, stop in taken:
        size = start - end
        if size >= item.nbytes and (best is None or size < best_size):
            best, best_size = end, size
        end = max(end, stop)
    return end if best is None else best


def _aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT
