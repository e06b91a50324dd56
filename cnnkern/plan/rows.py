"""Normalizations over rows of floats: softmax, layer norm and their relatives."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..graph import Array
from ..shapes import product
from .buffer import Buffer, pixels, stride_fields

if TYPE_CHECKING:
    from .lowering import Lowering

CHANNELS_PER_TASK = 32  # of a group norm, at least: two cache lines per pixel
SCRATCH_PER_CHANNEL = 4 * 4 + 2 * 8  # bytes: 4 float32, 2 float64


def lower_rows(
    lowering: Lowering, kernel: str, x: Buffer, y: Buffer, axes: Sequence[int], **fields: Any
) -> None:
    """Append ``y = kernel(x)`` over `axes`, counted from the end."""
    axes, rank = sorted(axes), len(x.shape)
    if axes == [-1]:
        _call(lowering, kernel, x, y, fields)
        return
    run = product(tuple(x.shape[axis] for axis in axes))
    if axes == list(range(-len(axes), 0)) and x.is_dense and y.is_dense:
        rows = (product(x.shape) // max(run, 1), run)
        _call(lowering, kernel, x.reshape(rows), y.reshape(rows), fields)
        return
    order = [i for i in range(rank) if i - rank not in axes] + [rank + axis for axis in axes]
    last = lowering.temporary(tuple(x.shape[i] for i in order))
    lowering.permute(x, last, order)
    lower_rows(lowering, kernel, last, last, range(-len(axes), 0), **fields)
    lowering.permute(last, y, [order.index(i) for i in range(rank)])


def lower_group_norm(
    lowering: Lowering, owner: object, x: Buffer, y: Buffer, groups: int, axis: int,
    gamma: Array | None, beta: Array | None, epsilon: float,
) -> None:  # fmt: skip
    """Append group normalization of the channels that stand along `axis`."""
    if axis != -1:
        rank = len(x.shape)
        order = [i for i in range(rank) if i != rank + axis] + [rank + axis]
        last = lowering.temporary(tuple(x.shape[i] for i in order))
        lowering.permute(x, last, order)
        lower_group_norm(lowering, owner, last, last, groups, -1, gamma, beta, epsilon)
        lowering.permute(last, y, [order.index(i) for i in range(rank)])
        return
    N, D, H, W, C = x.dims
    size = C // groups
    channels = -(-CHANNELS_PER_TASK // size) * size
    blocks = -(-C // channels)
    lowering.scratch(SCRATCH_PER_CHANNEL * channels)
    lowering.call(
        "f32_group_norm", N * blocks,
        x=x.address, y=y.address, size=size, D=D, H=H, W=W, C=C,
        channels_per_task=channels, channel_blocks=blocks, epsilon=epsilon,
        **stride_fields("x", x.strides), **stride_fields("y", y.strides),
        **norm_fields(lowering, owner, C, gamma, beta),
    )  # fmt: skip


def norm_fields(
    lowering: Lowering, owner: object, run: int, gamma: Array | None, beta: Array | None
) -> dict[str, int]:
    """Return the addresses of float32[run] factors and offsets, by default ones and zeros."""
    ones, zeros = np.ones(run, np.float32), np.zeros(run, np.float32)
    given = {"gamma": ones if gamma is None else gamma, "beta": zeros if beta is None else beta}
    return {
        name: lowering.constant(owner, f"{name} {run}", partial(np.asarray, array))
        for name, array in given.items()
    }


def _call(
    lowering: Lowering, kernel: str, x: Buffer, y: Buffer, fields: dict[str, Any]
) -> None:
    """Append `kernel` over the rows of channels."""
    rows = pixels(x, y).joined()
    lowering.call(
        kernel, rows.n_rows,
        x=x.address, y=y.address, run=rows.run, **rows.fields("x", "y"), **fields,
    )  # fmt: skip
