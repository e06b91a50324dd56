"""Weights in the order in which the micro-kernel reads them."""

import numpy as np

from ..codegen.isa import Isa
from .memory import aligned_floats


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
    NR = isa.tile_columns
    full = N // NR * NR
    packed = aligned_floats(packed_floats(K, N, isa))
    panels, last = np.split(packed, [full * (K + 1)])
    _fill(panels.reshape(full // NR, K + 1, NR), w[:, :full], b)
    if full < N:
        _fill(last.reshape(1, K + 1, -1), w[:, full:], None if b is None else b[full:])
    return packed


def _fill(panels: np.ndarray, w: np.ndarray, b: np.ndarray | None) -> None:
    """Write a matrix and its bias into ``float32[panels, K + 1, columns]``, zeros beyond N."""
    n_panels, _, width = panels.shape
    K, N = w.shape
    is_partial = n_panels * width > N
    if is_partial:
        panels[...] = 0
        panels[0, 1:, :N] = w
    else:
        panels[:, 1:] = w.reshape(K, n_panels, width).transpose(1, 0, 2)
    bias = np.zeros(n_panels * width, np.float32)
    if b is not None:
        bias[:N] = b[:N]
    panels[:, 0] = bias.reshape(n_panels, width)


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
