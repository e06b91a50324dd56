"""Normalizations over rows of floats: softmax, layer norm and their relatives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..graph import Array
from ..shapes import product
from .buffer import Buffer, pixels

if TYPE_CHECKING:
    from .lowering import Lowering


def lower_rows(
    lowering: Lowering, kernel: str, x: Buffer, y: Buffer, axes: Sequence[int], **fields: Any
) -> None:
    """Append ``y = kernel(x)`` over `axes`, counted from the end; rows of them are contiguous."""
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


def norm_fields(
    lowering: Lowering, owner: object, run: int, gamma: Array | None, beta: Array | None
) -> dict[str, int]:
    """Return the addresses of float32[run] factors and offsets, by default ones and zeros."""
    return {
        name: lowering.constant(
            owner, f"{name} {run}", lambda a=array, d=default: np.full(run, d, np.float32) if a is None else a
        )
        for name, array, default in (("gamma", gamma, 1), ("beta", beta, 0))
    }


def _call(lowering: Lowering, kernel: str, x: Buffer, y: Buffer, fields: dict[str, Any]) -> None:
    rows = pixels(x, y).joined()
    lowering.call(
        kernel, rows.n_rows,
        x=x.address, y=y.address, run=rows.run, **rows.fields("x", "y"), **fields,
    )  # fmt: skip
