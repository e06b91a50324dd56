"""Copies between any two orders of the same elements."""

from ..codegen.isa import Isa
from ..codegen.jit import inline
from ..codegen.vector import floats, integers
from .functions import ZERO

FLOAT = 4  # bytes


@inline
def copy_row(x, y, n):
    """Copy n floats between two addresses; nothing happens where they are the same.

    LLVM makes vectors of a loop over rows that overlap only where it sees one pointer.
    Kernels that may work in place therefore copy the row first and then rewrite it.
    """
    source, target = floats(x), floats(y)
    for i in range(n if x != y else 0):
        target[i] = source[i]


@inline
def copy_strided(x, x_step, y, y_step, n):
    for i in range(n):
        floats(y + i * y_step)[0] = floats(x + i * x_step)[0]


@inline
def clear(address, n):
    """Write n zeros."""
    target = floats(address)
    for i in range(n):
        target[i] = ZERO


def f32_move(isa: Isa):
    """Return the kernel ``y[.., j, i] = x[.., j, i]``, any stride along any axis; record MOVE.

    A tile is a block of j and i at one position of the outer axes.
    """

    def kernel(p, scratch, begin, end):
        axes = integers(p.axes)
        for tile in range(begin, end):
            i, rest = tile % p.i_blocks * p.i_block, tile // p.i_blocks
            j, rest = rest % p.j_blocks * p.j_block, rest // p.j_blocks
            x, y = p.x + i * p.x_i + j * p.x_j, p.y + i * p.y_i + j * p.y_j
            for axis in range(p.n_axes):
                count, position = axes[3 * axis], rest % axes[3 * axis]
                x += position * axes[3 * axis + 1]
                y += position * axes[3 * axis + 2]
                rest //= count
            n = min(p.i_block, p.I - i)
            for _ in range(min(p.j_block, p.J - j)):
                if p.x_i == FLOAT and p.y_i == FLOAT:
                    copy_row(x, y, n)
                else:
                    copy_strided(x, p.x_i, y, p.y_i, n)
                x += p.x_j
                y += p.y_j

    return kernel
