"""Sliding windows in any number of spatial axes.

The functions take one size, stride and dilation per spatial axis. Padding is a mode name
of shapes.PADDING_MODES, or (before, after) per axis.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..graph import Halo
from ..shapes import Pair, Shape, output_length, window_count, window_padding
from .common import known
from .config import LayerConfig

Padding = str | tuple[Pair, ...]
Slices = tuple[slice, ...]
Triple = tuple[int, int, int]  # D, H, W

# Of a filter that is dilated along H and W: each image of the pixels that it meets together is
# a step of its own.
MAX_RATE = 4


@dataclass(frozen=True)
class Window:
    """How a window slides along D, H and W; by default that of a matrix product over pixels."""

    strides: Triple = (1, 1, 1)
    dilation: Triple = (1, 1, 1)
    before: Triple = (0, 0, 0)  # padding

    @classmethod
    def along(
        cls, strides: Sequence[int], dilation: Sequence[int], padding: Sequence[Pair]
    ) -> Window:
        """The window of an op with these entries per spatial axis, padding (before, after)."""
        return cls(lift(strides, 1), lift(dilation, 1), lift([pad[0] for pad in padding], 0))


class RowWindow(NamedTuple):
    """A window along H alone."""

    span: int  # rows under it
    stride: int  # rows from one window to the next
    before: int  # rows of padding before the image
    in_tiles: bool = False  # whether each gives a row of Winograd's tiles


def lift(values: Sequence[int], fill: int) -> Triple:
    """Return entries per spatial axis as entries for D, H and W."""
    d, h, w = (fill,) * (3 - len(values)) + tuple(values)
    return d, h, w


def halo(padding: Sequence[Pair]) -> Halo:
    """Return (before, after) per spatial axis as zeros wanted around D, H and W."""
    d, h, w = ((0, 0),) * (3 - len(padding)) + tuple(padding)
    return d, h, w


def take_padding(config: LayerConfig, *more_modes: str) -> str:
    """Take the option `padding`: valid, same, or one of `more_modes`."""
    mode: str = config.choice("padding", ("valid", "same", *more_modes), "valid")
    return mode


def paddings(
    lengths: Sequence[int],
    sizes: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    padding: Padding,
) -> tuple[Pair, ...]:
    """Return (before, after) of every spatial axis."""
    if not isinstance(padding, str):
        return padding
    axes = zip(lengths, sizes, strides, dilations, strict=True)
    return tuple(window_padding(*axis, padding) for axis in axes)


def output_lengths(
    lengths: Shape,
    sizes: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    padding: Padding,
) -> Shape:
    """Return the output length of every spatial axis; None stays None."""
    axes = zip(lengths, sizes, strides, dilations, strict=True)
    if isinstance(padding, str):
        return tuple(output_length(*axis, padding) for axis in axes)
    return tuple(
        window_count(*axis, padding=pair) for axis, pair in zip(axes, padding, strict=True)
    )


def tap_slices(length: int, n_out: int, stride: int, offset: int) -> tuple[slice, slice]:
    """Return which outputs of an axis one tap feeds, and the inputs that it reads.

    Output o reads input ``o * stride + offset``; outputs that would read outside
    ``0 <= input < length`` are left out, so that implicit padding adds nothing.
    """
    first = max(-(offset // stride), 0)
    stop = max(min((length - 1 - offset) // stride + 1, n_out), first)
    start = first * stride + offset
    return slice(first, stop), slice(start, start + (stop - first) * stride, stride)


def taps(
    lengths: Sequence[int],
    sizes: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    padding: Padding,
) -> Iterator[tuple[tuple[int, ...], Slices, Slices]]:
    """Yield for every tap of the window its index, the outputs it feeds, the inputs it reads.

    The slices cover the batch and the spatial axes of a channels-last array.
    """
    n_outs = known(output_lengths(tuple(lengths), sizes, strides, dilations, padding))
    pads = paddings(lengths, sizes, strides, dilations, padding)
    for tap in np.ndindex(*sizes):
        axes = [
            tap_slices(length, n_out, stride, t * dilation - before)
            for length, n_out, stride, t, dilation, (before, _) in zip(
                lengths, n_outs, strides, tap, dilations, pads, strict=True
            )
        ]
        outputs, inputs = zip(*axes, strict=True)
        yield tap, (slice(None), *outputs), (slice(None), *inputs)
