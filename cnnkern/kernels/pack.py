"""Weights in the order in which the micro-kernel reads them."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from ..codegen.isa import Isa
from .memory import Empty, aligned_empty

FLOAT_NBYTES = 4
INT24_BITS = 23  # of a number's size
# Of the power of two above a column, so that its factor is a normal number; and of the bias to
# that power, so that what the sum begins with is finite.
LEAST_EXPONENT, MOST_OF_BIAS = -95, 2.0**64
BLOCK_NBYTES = 1 << 20  # of rows read at a time: they stay in L2 until they are spread


class Rows(Protocol):
    """A matrix of which slices of rows can be had, an array or what reads them."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, rows: slice, /) -> np.ndarray: ...


def pack_rows(w: Rows, b: np.ndarray | None) -> np.ndarray:
    """Return a matrix of float32[K, N] below its bias, or zeros: float32[K + 1, N]."""
    bias = np.zeros((1, w.shape[1]), np.float32) if b is None else b.reshape(1, -1)
    return np.concatenate([bias, np.asarray(w[:])])


def panel_floats(K: int, isa: Isa) -> int:
    """Return the size of one full panel: the bias row and K filter rows of NR columns."""
    return (K + 1) * isa.tile_columns


def packed_floats(K: int, N: int, isa: Isa) -> int:
    """Return the size of all panels of a K x N matrix."""
    return (K + 1) * (-(-N // isa.unit) * isa.unit)


def pack_panels(
    w: Rows, b: np.ndarray | None, isa: Isa, empty: Empty = aligned_empty
) -> np.ndarray:
    """Pack a matrix and its bias into panels of NR columns.

        panel j:  | b[n] | w[0, n] | w[1, n] | ... | w[K-1, n] |   n = j*NR .. j*NR + NR-1

    A last panel of fewer columns is as many whole units wide as it needs. Columns
    beyond N are zeros; the micro-kernel computes and drops them.

    Parameters
    ----------
    w : float32[K, N]
        It is taken piece by piece.
    b : float32[N] or None
    empty : gives the memory
    """
    K, N = w.shape
    packed = empty(FLOAT_NBYTES * packed_floats(K, N, isa)).view(np.float32)
    panels = split_panels(packed, K, N, isa)
    write_rows(panels, np.zeros((1, N), np.float32) if b is None else b.reshape(1, N), 0)
    for block in _blocks(w):
        write_rows(panels, w[block], block.start + 1)
    return packed


def split_panels(packed: np.ndarray, K: int, N: int, isa: Isa) -> tuple[np.ndarray, np.ndarray]:
    """Return views of packed matrices: the full panels, and the last one.

    Parameters
    ----------
    packed : float32[..., packed_floats(K, N)]

    Returns
    -------
    float32[..., N // NR, K + 1, NR], float32[..., K + 1, columns]
        The last panel has no columns where all panels are full. Those beyond N are set to
        zero; nothing else is.
    """
    NR, outer = isa.tile_columns, packed.shape[:-1]
    full = N // NR * NR
    panels, last = np.split(packed, [full * (K + 1)], axis=-1)
    last = last.reshape(*outer, K + 1, last.shape[-1] // (K + 1))
    last[..., N - full :] = 0
    return panels.reshape(*outer, full // NR, K + 1, NR), last


def write_rows(panels: tuple[np.ndarray, np.ndarray], rows: np.ndarray, at: int) -> None:
    """Write rows ``at ...`` of the panels that `split_panels` returned; row 0 is the bias.

    Parameters
    ----------
    rows : [..., n_rows, N]
    """
    full, last = panels
    n_panels, _, NR = full.shape[-3:]
    *outer, n_rows, N = rows.shape
    split = n_panels * NR
    by_panel = rows[..., :split].reshape(*outer, n_rows, n_panels, NR)
    full[..., at : at + n_rows, :] = np.swapaxes(by_panel, -3, -2)
    last[..., at : at + n_rows, : N - split] = rows[..., split:]


def pack_columns(w: np.ndarray, b: np.ndarray | None, run_len: int, isa: Isa) -> np.ndarray:
    """Pack a matrix of few columns: the bias, then for each vector of a run all columns.

    Parameters
    ----------
    w : float32[n_runs * run_len, N]
    b : float32[N] or None

    Returns
    -------
    float32[1 + n_runs * ceil(run_len / LANES) * N, LANES]
        The bias stands in the first row. Floats beyond a run are zeros.
    """
    K, N = w.shape
    vectors = -(-run_len // isa.lanes)
    runs = np.zeros((K // run_len, vectors * isa.lanes, N), np.float32)
    runs[:, :run_len] = w.reshape(-1, run_len, N)
    packed = np.zeros((1 + K // run_len * vectors * N, isa.lanes), np.float32)
    packed[1:] = runs.reshape(-1, isa.lanes, N).transpose(0, 2, 1).reshape(-1, isa.lanes)
    if b is not None:
        packed[0, :N] = b
    return packed


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


def int24_nbytes(K: int, N: int, isa: Isa) -> int:
    """Return the size of all panels of a K x N matrix of 24 bits: all of them are full."""
    columns = -(-N // isa.tile_columns) * isa.tile_columns
    return columns * (4 + 3 * K)


@np.errstate(all="ignore")
def pack_int24(
    w: Rows, b: np.ndarray | None, isa: Isa, empty: Empty = aligned_empty
) -> np.ndarray:
    """Round a matrix to 24 bits of each column's largest number; pack it into full panels.

    Of a row of filters three quarters stand in the upper bytes of words, and the last quarter
    in their low bytes, its lowest byte in the first quarter's.

    Parameters
    ----------
    w : float32[K, N]
        It is taken piece by piece, twice.
    b : float32[N] or None
    empty : gives the memory

    Returns
    -------
    bytes of int32[n_panels, NR + K * 3/4 NR], then of float32[n_panels, NR]
        For each panel the bias as float32, then the filters as integers; then what a product
        with the integers times 256 is to be multiplied by: powers of two, or NaN where a column
        is not finite.
    """
    NR, (K, N) = isa.tile_columns, w.shape
    n_panels, nbytes = -(-N // NR), int24_nbytes(K, N, isa)
    packed = empty(nbytes + FLOAT_NBYTES * n_panels * NR)
    panels = packed[:nbytes].view(np.int32).reshape(n_panels, NR + K * 3 * NR // 4)
    scales, bias = packed[nbytes:].view(np.float32), np.zeros(n_panels * NR, np.float32)
    if b is not None:
        bias[:N] = b
    largest = largest_of_columns(w)
    is_finite = np.isfinite(largest)
    largest = np.maximum(np.where(is_finite, largest, 0), np.abs(bias[:N]) / MOST_OF_BIAS)
    exponents = np.maximum(np.frexp(largest)[1], LEAST_EXPONENT)
    scales[:], scales[:N] = 1, _power_of_two(exponents - (INT24_BITS + 8))
    panels[:, :NR].view(np.float32)[:] = (bias / scales).reshape(n_panels, NR)
    scales[:N][~is_finite] = np.nan
    _write_int24(panels[:, NR:], w, _power_of_two(INT24_BITS - exponents))
    return packed


def _write_int24(panels: np.ndarray, w: Rows, factors: np.ndarray) -> None:
    """Write ``w * factors``, rounded, into int32[n_panels, K * 3/4 NR]."""
    (K, N), n_panels = w.shape, len(panels)
    rows = panels.reshape(n_panels, K, 3, -1)
    integers = np.zeros((_rows_at_once(w), n_panels, 4, rows.shape[-1]), np.int32)
    limit = (1 << INT24_BITS) - 1
    for block in _blocks(w):
        numbers = np.rint(w[block] * factors)
        n = len(numbers)
        integers.reshape(len(integers), -1)[:n, :N] = np.clip(numbers, -limit, limit)
        quarters = np.swapaxes(integers[:n], 0, 1)
        for i in range(3):
            low = quarters[:, :, 3] >> 8 * i & 255
            rows[:, block, i] = quarters[:, :, i] << 8 | low


def _power_of_two(exponents: np.ndarray) -> np.ndarray:
    return np.ldexp(np.float32(1), exponents)


def largest_of_columns(w: Rows) -> np.ndarray:
    """Return the largest size of a number in each column: float32[N], NaN where one is NaN."""
    largest = np.zeros(w.shape[1], np.float32)
    for block in _blocks(w):
        np.maximum(largest, np.abs(w[block]).max(axis=0), out=largest)
    return largest


def _rows_at_once(w: Rows) -> int:
    return max(BLOCK_NBYTES // (4 * max(w.shape[1], 1)), 1)


def _blocks(w: Rows) -> Iterator[slice]:
    """Yield all rows in blocks of BLOCK_NBYTES."""
    step = _rows_at_once(w)
    for k in range(0, w.shape[0], step):
        yield slice(k, min(k + step, w.shape[0]))
