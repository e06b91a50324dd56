"""The arena layout: every storage gets an offset, storages alive together never overlap."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..kernels.memory import ALIGNMENT, whole_lines


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

    Storages that are never alive together share a lane, each in the middle of it: the thread
    that owns the first half of every tensor then always writes to the same part of the lane,
    and takes no memory from another core's cache. Largest first, into the first free lane.
    """
    lanes: list[list[Lifetime]] = []
    for item in sorted(lifetimes, key=lambda item: (-item.nbytes, item.first, item.storage)):
        lane = next((lane for lane in lanes if not any(map(item.overlaps, lane))), None)
        if lane is None:
            lanes.append(lane := [])
        lane.append(item)
    offsets: dict[str, int] = {}
    start = 0
    for lane in lanes:
        size = whole_lines(lane[0].nbytes)
        for item in lane:
            offsets[item.storage] = start + (size - item.nbytes) // 2 // ALIGNMENT * ALIGNMENT
        start += size
    return offsets, start
