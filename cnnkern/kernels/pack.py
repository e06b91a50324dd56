"""Weights in the order in which the micro-kernel reads them."""

import numpy as np

from ..codegen.isa import Isa


def panel_floats(K: int, isa: Isa) -> int:
    """Return the size of one full panel: the bias row and K filter rows of NR columns."""
    return (K + 1) * isa.tile_columns


def packed_floats(K: int, N: int, isa: Isa) -> int:
    """Return the size of all panels of a K x N matrix."""
    return (K + 1) * (-(-N // isa.lanes) * isa.lanes)


def pack_panels(w: np.ndarray, b: np.ndarray | None, isa: Isa) -> np.ndarray:
    """Pack a matrix and its bias into panels of NR columns.

        panel j:  | b[n] | w[0, n] | w[1, n] | ... | w[K-1, n] |   n = j*NR .. j*NR + NR-1

    A last panel of fewer columns is as many whole vectors wide as it needs. Columns
    beyond N are zeros; the micro-kernel computes and drops them.

    Parameters
    ----------
    w : float32[K, N]
    b : float32[N] or None
    """
    K, N = w.shape
    rows = np.zeros((K + 1, N), np.float32)
    rows[1:] = w
    if b is not None:
        rows[0] = b
    NR = isa.tile_columns
    full = N // NR * NR
    panels = rows[:, :full].reshape(K + 1, full // NR, NR).transpose(1, 0, 2)
    if full == N:
        return np.ascontiguousarray(panels)
    width = -(-(N - full) // isa.lanes) * isa.lanes
    last = np.zeros((K + 1, width), np.float32)
    last[:, : N - full] = rows[:, full:]
    return np.concatenate([panels.ravel(), last.ravel()])


def pack_channels(w: np.ndarray, b: np.ndarray | None, isa: Isa) -> np.ndarray:
    """Pack depthwise filters: for each channel vector its bias, then its K taps.

    Parameters
    ----------
    w : float32[K, C]
    b : float32[C] or None

    Returns
    -------
    float32[ceil(C / LANES), 1 + K, LANES]
        Channels beyond C are zeros.
    """
    K, C = w.shape
    vectors = -(-C // isa.lanes)
    rows = np.zeros((K + 1, vectors * isa.lanes), np.float32)
    rows[1:, :C] = w
    if b is not None:
        rows[0, :C] = b
    packed = rows.reshape(K + 1, vectors, isa.lanes).transpose(1, 0, 2)
    return np.ascontiguousarray(packed)
