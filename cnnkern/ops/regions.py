"""Which taps of a filter reach the image, where: what others read is padding and adds nothing.

A dilated filter on a small image reads mostly padding: of 3x3 taps at a distance of 18, as in
DeepLab's pyramids (Chen et al., "Rethinking atrous convolution for semantic image
segmentation", 2017), 61 % of the products on 32x32 pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..shapes import Pair, product
from .window import tap_slices

# Products that remain where regions pay: each is a step of its own, with tails.
MAX_REMAINING = 7 / 8
# Of the filters: each region has its own. Few of them do not matter.
MAX_GROWTH, NEAR_FLOATS = 3, 1 << 20


class Region(NamedTuple):
    """Neighbouring outputs of an axis, and the taps that give them."""

    outputs: range
    taps: range


class Axis(NamedTuple):
    """A window along one axis."""

    length: int
    n_out: int
    size: int
    stride: int
    dilation: int
    padding: Pair

    @property
    def whole(self) -> Region:
        """All outputs and the taps that any of them needs."""
        before, _ = self.padding
        used = []
        for tap in range(self.size):
            offset = tap * self.dilation - before
            outputs, _ = tap_slices(self.length, self.n_out, self.stride, offset)
            used += [tap] * (outputs.start < outputs.stop)
        taps = range(used[0], used[-1] + 1) if used else range(self.size)
        return Region(range(self.n_out), taps)

    def regions(self) -> list[Region]:
        """Cut the outputs where other taps reach the image."""
        found: list[Region] = []
        for o in range(self.n_out):
            first = self.padding[0] - o * self.stride  # position of the image under the window
            begin = min(max(-(-first // self.dilation), 0), self.size)
            last = (first + self.length - 1) // self.dilation
            taps = range(begin, max(min(last + 1, self.size), begin))
            if found and found[-1].taps == taps:
                found[-1] = Region(range(found[-1].outputs.start, o + 1), taps)
            else:
                found.append(Region(range(o, o + 1), taps))
        return found

    def reach(self, region: Region) -> Pair:
        """Return how far the taps of a region reach beyond both ends of the image."""
        (o_first, o_last), (tap_first, tap_last) = ((r[0], r[-1]) for r in region)
        first = o_first * self.stride + tap_first * self.dilation - self.padding[0]
        last = o_last * self.stride + tap_last * self.dilation - self.padding[0]
        return max(-first, 0), max(last - self.length + 1, 0)


def cut(axes: Sequence[Axis], n_floats: int) -> list[list[Region]]:
    """Return the regions of every axis: one, or more where much of a dilated filter is idle.

    Parameters
    ----------
    n_floats : of the filter, which the regions along all axes, or the first one, multiply
    """
    wholes = [[axis.whole] for axis in axes]
    parts = [
        axis.regions() if axis.dilation > 1 else whole
        for axis, whole in zip(axes, wholes, strict=True)
    ]
    for regions in (parts, [*parts[:1], *wholes[1:]]):
        n_taps = [[len(region.taps) for region in along] for along in regions]
        growth = product(tuple(map(sum, n_taps))) / product(tuple(a.size for a in axes))
        is_lean = growth <= MAX_GROWTH or growth * n_floats <= NEAR_FLOATS
        is_less = 0 < _n_products(regions) <= MAX_REMAINING * _n_products(wholes)
        if is_less and is_lean and all(map(all, n_taps)):
            return regions
    return wholes


def reach(axes: Sequence[Axis], regions: Sequence[Sequence[Region]]) -> list[Pair]:
    """Return how far the taps reach beyond both ends of every axis."""
    pairs: list[Pair] = []
    for axis, parts in zip(axes, regions, strict=True):
        befores, afters = zip(*map(axis.reach, parts), strict=True)
        pairs.append((max(befores), max(afters)))
    return pairs


def _n_products(axes: Sequence[Sequence[Region]]) -> int:
    counts = (sum(len(outputs) * len(taps) for outputs, taps in regions) for regions in axes)
    return product(tuple(counts))
