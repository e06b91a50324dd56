"""Matrix products in halves: where they pay, how they are blocked, how filters are packed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..codegen.isa import Isa
from ..graph import Array
from ..kernels.memory import Empty, aligned_empty, whole_lines
from ..kernels.pack import largest_of_columns, pack_panels, panel_floats
from ..lazy import Weight
from ..ops.window import Window
from ..shapes import product
from .buffer import FLOAT_NBYTES, Buffer, residual_fields, spread, stepped, stride_fields
from .epilogue import INFINITY, Epilogue
from .matrix import Matrix, Runs, lower_matrix, tile_height

if TYPE_CHECKING:
    from .lowering import Lowering

N_PRODUCTS = 7
N_SUMS = 4  # S1 .. S4
N_PARTIAL = 3  # sums of products that are kept
N_TABLES = 10  # as the kernel numbers them
MIN_PIXELS = 128  # of an image: with fewer, 7/4 of the filters take longer to arrive
# Small register tiles read more filters and add more sums per product: with less than
# 32 columns (AVX2) halves pay from so many channels on.
WIDE_TILE, NARROW_TILE_CHANNELS = 32, 640
# x and S of a task: half of a 1 MiB L2, the rest for the panels that stream through.
ROWS_NBYTES = 448 << 10
PARTS = 2  # of an image, as the kernel's `block_of` cuts it
MIN_TASKS = 16  # enough for several threads to end together
# Of a block of pixels, unless there are more threads: each claim adds its pixels anew.
MAX_CLAIMS = 2
MAX_EXPONENT = 40  # of a column's power of two: a bias divided by it stays finite
PACK_NBYTES = 1 << 18  # of filters at a time: their sums stay in L2


def pays_in_halves(y: Buffer, C: int, isa: Isa) -> bool:
    """Tell whether the product of C channels that gives `y` is one of halves, and faster so."""
    batch, *space, OC = y.dims
    is_large = batch > 0 and product(tuple(space)) >= MIN_PIXELS
    is_deep = isa.tile_columns >= WIDE_TILE or C >= NARROW_TILE_CHANNELS
    return is_large and is_deep and C % 2 == 0 and _n_panels(OC, isa) > 0


def _n_panels(OC: int, isa: Isa) -> int:
    """Return the pairs of column panels; the columns beyond them are multiplied whole."""
    return OC // (2 * isa.tile_columns)


def lower_strassen(
    lowering: Lowering,
    owner: object,
    x: Buffer,
    y: Buffer,
    filters: Weight,
    bias: Array | None,
    window: Window,
    epilogue: Epilogue,
    residual: Buffer | None = None,
) -> None:
    """Append ``y = epilogue(x filters + bias + residual)`` for every pixel.

    Parameters
    ----------
    filters : float32[*1, C, OC]
    """
    isa, empty = lowering.isa, lowering.constants.empty
    *_, C, OC = filters.shape
    matrix, n_panels = filters.reshape(C, OC), _n_panels(OC, isa)
    done = 2 * n_panels * isa.tile_columns
    strides = stepped(x.strides, window.strides)
    batch, OD, OH, OW, _ = y.dims
    pixels = OD * OH * OW
    n_pairs, blocks = task_blocks(pixels, n_panels, C, isa)
    row_blocks = batch * PARTS * blocks["part_blocks"]
    panel_nbytes = FLOAT_NBYTES * panel_floats(C // 2, isa)
    panels = lowering.constant(owner, "halves", lambda: pack_halves(matrix, bias, isa, empty))
    lowering.flops = 2 * batch * pixels * C * done
    lowering.call(
        "f32_strassen",
        row_blocks * blocks["panel_blocks"],
        max_claims=MAX_CLAIMS * row_blocks,
        x=x.address, y=y.address,
        panels=panels, scales=panels + n_panels * N_PRODUCTS * panel_nbytes,
        pair_nbytes=N_PRODUCTS * panel_nbytes, panel_nbytes=panel_nbytes,
        K=C // 2, OD=OD, OH=OH, OW=OW,
        **stride_fields("x", strides), **stride_fields("y", y.strides),
        n_panels=n_panels, right=FLOAT_NBYTES * done // 2,
        height=tile_height(strides[3], isa.heights), **blocks,
        **_scratch(lowering, n_pairs, C, done),
        lowest=-INFINITY, highest=INFINITY, **epilogue.fields,
        **residual_fields(residual),
    )  # fmt: skip
    if done < OC:
        rest = lowering.constant(
            owner, "rest", lambda: _pack_from(done, matrix, bias, isa, empty)
        )
        last = (-1, done, OC - done)
        lower_matrix(
            lowering, x.address, strides, y.slice(*last), Runs((0,), C),
            Matrix(rest, C, OC - done), epilogue.from_column(done),
            residual and residual.slice(*last),
        )  # fmt: skip


def task_blocks(pixels: int, n_panels: int, C: int, isa: Isa) -> tuple[int, dict[str, int]]:
    """Cut the pixels of an image and the pairs of panels into tasks.

    The blocks of pixels decide which ones are added to each other, and so the rounding: they
    must not depend on the batch. Neighbouring tasks share their pixels.

    Returns
    -------
    the most pairs of pixels that a task has (the kernel's `block_of` cuts them), and the blocks
    """
    pixel_nbytes = FLOAT_NBYTES * (C + N_SUMS * C // 4)
    unit = isa.heights[0] // 2
    units = -(-pixels // (2 * PARTS * unit))  # of pairs, in the larger part
    part_blocks = -(-units // max(ROWS_NBYTES // (2 * unit * pixel_nbytes), 2))
    panels = max(n_panels * PARTS * part_blocks // MIN_TASKS, 1)
    return -(-units // part_blocks) * unit, {
        "part_blocks": part_blocks,
        "panels_per_task": panels,
        "panel_blocks": -(-n_panels // panels),
    }


def _scratch(lowering: Lowering, n: int, C: int, columns: int) -> dict[str, int]:
    """Ask for a task's scratch memory; return where everything stands in it."""
    isa = lowering.isa
    table_nbytes = 8 * (n + isa.heights[0])
    partial = whole_lines(N_TABLES * table_nbytes)
    partial_nbytes = FLOAT_NBYTES * n * isa.tile_columns
    sums, sum_row = partial + N_PARTIAL * partial_nbytes, spread(FLOAT_NBYTES * C // 2)
    sum_block = n * sum_row
    dump = sums + N_SUMS * sum_block
    lowering.scratch(dump + FLOAT_NBYTES * columns)
    halves = (0, FLOAT_NBYTES * C // 2)
    return {
        "runs": lowering.table((*halves, *(i * sum_block for i in range(N_SUMS)))),
        "table_nbytes": table_nbytes,
        "partial": partial,
        "partial_nbytes": partial_nbytes,
        "sums": sums,
        "sum_row": sum_row,
        "sum_block": sum_block,
        "dump": dump,
    }


def pack_halves(
    w: Weight, b: Array | None, isa: Isa, empty: Empty = aligned_empty
) -> np.ndarray:
    """Pack the right factors of the seven products for each pair of panels.

    Parameters
    ----------
    w : float32[C, OC]
        It is taken piece by piece.
    b : float32[OC] or None
    empty : gives the memory

    Returns
    -------
    float32[n_panels, 7, 1 + C/2, NR], then float32[2, n_panels, NR], in one
        B11 B21 T2 T3 T4 T1 B22, each below a row for the bias, of columns that are divided
        by powers of two; these powers.
    """
    NR, (C, OC) = isa.tile_columns, w.shape
    K, n_panels = C // 2, _n_panels(OC, isa)
    columns = 2 * n_panels * NR
    size = n_panels * N_PRODUCTS * panel_floats(K, isa)
    packed = empty(FLOAT_NBYTES * (size + columns)).view(np.float32)
    panels, scales = packed[:size].reshape(n_panels, N_PRODUCTS, 1 + K, NR), packed[size:]
    step = max(PACK_NBYTES // (FLOAT_NBYTES * OC), 1)
    scales[:] = column_scales(w, columns)
    panels[:, :, 0] = 0
    if b is not None:
        left, right = (b[:columns] / scales).reshape(2, n_panels, NR)
        panels[:, 1, 0] = panels[:, 4, 0] = left
        panels[:, 5, 0] = right
    for k in range(0, K, step):
        end = min(k + step, K)
        halves = (w[first + k : first + end][:, :columns] / scales for first in (0, K))
        rows = np.reshape(right_factors(*halves), (N_PRODUCTS, end - k, n_panels, NR))
        panels[:, :, 1 + k : 1 + end] = np.moveaxis(rows, 2, 0)
    return packed


def column_scales(w: Weight, columns: int) -> np.ndarray:
    """Return the power of two next above the largest number of each of the first columns.

    A column of zeros gets the smallest one: what it takes from others vanishes.
    """
    largest = largest_of_columns(w)[:columns]
    _, exponents = np.frexp(np.where(np.isfinite(largest), largest, 1))
    exponents[largest == 0] = -MAX_EXPONENT
    powers: np.ndarray = np.exp2(np.clip(exponents, -MAX_EXPONENT, MAX_EXPONENT))
    return powers


@np.errstate(all="ignore")
def right_factors(upper: np.ndarray, lower: np.ndarray) -> list[np.ndarray]:
    """Return B11 B21 T2 T3 T4 T1 B22 of rows of both halves, in float64."""
    (B11, B12), (B21, B22) = (
        np.split(rows.astype(np.float64), 2, axis=1) for rows in (upper, lower)
    )
    T1 = B12 - B11
    T2 = B22 - T1
    return [B11, B21, T2, B22 - B12, B21 - T2, T1, B22]


@dataclass(frozen=True)
class _ColumnsFrom:
    """The columns of a matrix from one on."""

    first: int
    matrix: Weight

    @property
    def shape(self) -> tuple[int, ...]:
        K, N = self.matrix.shape
        return K, N - self.first

    def __getitem__(self, rows: slice) -> np.ndarray:
        return self.matrix[rows][:, self.first :]


def _pack_from(first: int, w: Weight, b: Array | None, isa: Isa, empty: Empty) -> np.ndarray:
    return pack_panels(_ColumnsFrom(first, w), None if b is None else b[first:], isa, empty)
