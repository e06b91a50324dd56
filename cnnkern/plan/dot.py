"""Products of two activations along one axis of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..shapes import product
from .buffer import Buffer

if TYPE_CHECKING:
    from .lowering import Lowering

MIN_ROW = 16  # floats: shorter rows of the result do not fill a vector


def lower_dot(
    lowering: Lowering, x0: Buffer, x1: Buffer, y: Buffer, axes: tuple[int, int], limit: float
) -> None:
    """Append ``y[n, i.., j..] = sum over k of x0[n, i.., k] * x1[n, j.., k]``.

    Parameters
    ----------
    axes : the axis k of each input, counted from the end
    limit : scale inputs to unit length along k by at most this factor; 0 leaves them
    """
    a, b = (_rows(lowering, x, axis, limit) for x, axis in zip((x0, x1), axes, strict=True))
    (batch, M, _), (_, N, _) = a.shape, b.shape
    target = y.reshape((batch, M, N)) if y.is_dense else lowering.temporary((batch, M, N))
    is_long = N >= MIN_ROW or N >= M
    if is_long:
        _product(lowering, a, _transposed(lowering, b), target)
    elif N == 1:
        _product(lowering, b, _transposed(lowering, a), target.reshape((batch, N, M)))
    else:
        turned = lowering.temporary((batch, N, M))
        _product(lowering, b, _transposed(lowering, a), turned)
        lowering.permute(turned, target, (0, 2, 1))
    if not y.is_dense:
        lowering.copy(target, y)


def _rows(lowering: Lowering, x: Buffer, axis: int, limit: float) -> Buffer:
    """Return `x` as rows of k, float32[batch, M, K]."""
    rank = len(x.shape)
    K = x.shape[axis]
    shape = (x.shape[0], product(x.shape[1:]) // max(K, 1), K)
    if axis == -1 and x.is_dense and not limit:
        return x.reshape(shape)
    order = [i for i in range(rank) if i != rank + axis] + [rank + axis]
    last = lowering.temporary(tuple(x.shape[i] for i in order))
    lowering.permute(x, last, order)
    rows = last.reshape(shape)
    if limit:
        lowering.rows("f32_unit_norm", rows, rows, limit=limit)
    return rows


def _transposed(lowering: Lowering, x: Buffer) -> Buffer:
    """Return float32[batch, K, M] of float32[batch, M, K]."""
    batch, M, K = x.shape
    if M == 1:
        return x.reshape((batch, K, M))
    turned = lowering.temporary((batch, K, M))
    lowering.permute(x, turned, (0, 2, 1))
    return turned


def _product(lowering: Lowering, a: Buffer, b: Buffer, y: Buffer) -> None:
    """Append ``y = a @ b`` per sample."""
    (batch, M, K), (_, _, N) = a.shape, b.shape
    lowering.flops = 2 * batch * M * N * K
    lowering.call(
        "f32_dot", batch * M,
        a=a.address, b=b.address, y=y.address, M=M, K=K, N=N,
        a_batch=a.axis_strides[0], a_m=a.axis_strides[1],
        b_batch=b.axis_strides[0], b_k=b.axis_strides[1],
        y_batch=y.axis_strides[0], y_m=y.axis_strides[1],
    )  # fmt: skip
