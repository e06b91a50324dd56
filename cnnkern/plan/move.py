"""Copies, permutations, repetitions: one kernel that walks two sets of strides."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from .buffer import FLOAT_NBYTES, Address, joined

if TYPE_CHECKING:
    from .lowering import Lowering

TILE_FLOATS = 4096  # 16 KiB, half of a 32 KiB L1d
SQUARE = 16  # floats of a cache line: a transposed block uses whole lines on both sides


class Axis(NamedTuple):
    """Positions along an axis and the bytes between two of them; a step of 0 repeats."""

    length: int
    x: int
    y: int


def lower_move(
    lowering: Lowering, x: Address, y: Address, axes: Iterable[tuple[int, int, int]]
) -> None:
    """Append a copy along the axes of y, outermost first: count, bytes per step in x and y."""
    unit = Axis(1, FLOAT_NBYTES, FLOAT_NBYTES)
    outer = [unit, unit, *(Axis(*axis) for axis in joined(axes))]
    if any(axis.length == 0 for axis in outer):
        return
    i = outer.pop()
    is_row = i.x == i.y == FLOAT_NBYTES
    j = max(outer, key=lambda axis: axis.length) if is_row else _contiguous_in_x(outer)
    outer.remove(j)
    if not is_row:
        j, i = sorted([j, i], key=lambda axis: min(axis.length, SQUARE))
    i_block = TILE_FLOATS if is_row else SQUARE
    j_block = max(TILE_FLOATS // i.length, 1) if is_row else SQUARE
    i_blocks, j_blocks = -(-i.length // i_block), -(-j.length // j_block)
    n_tiles = i_blocks * j_blocks
    for axis in outer:
        n_tiles *= axis.length
    lowering.call(
        "f32_move", n_tiles,
        x=x, y=y, I=i.length, x_i=i.x, y_i=i.y, J=j.length, x_j=j.x, y_j=j.y,
        i_block=i_block, i_blocks=i_blocks, j_block=j_block, j_blocks=j_blocks,
        axes=lowering.table(sum(reversed(outer), ())), n_axes=len(outer),
    )  # fmt: skip


def _contiguous_in_x(axes: list[Axis]) -> Axis:
    """Return the axis along which neighbours are nearest in x."""
    return min(axes, key=lambda axis: (axis.length == 1, axis.x or axis.y))
