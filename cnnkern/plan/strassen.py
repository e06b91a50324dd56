"""Matrix products in halves: where they pay, how they are blocked, how filters are packed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..codegen.isa import Isa
from ..graph import Array
from ..kernels.memory import aligned_floats, whole_lines
from ..kernels.pack import pack_panels, panel_floats
from ..lazy import Weight
from ..ops.window import Window
from ..shapes import product
from .buffer import FLOAT_NBYTES, Buffer, spread, stride_fields
from .conv import Matrix, Runs, lower_matrix, output_strides, tile_height
from .epilogue import INFINITY, Epilogue

if TYPE_CHECKING:
    from .lowering import Lowering

N_PRODUCTS = 7
N_SUMS = 4  # S1 .. S4
N_PARTIAL = 3  # sums of products that are kept
N_TABLES = 10  # rows of x, y and r in both halves, of S, of partial sums
# Filters take 7/4 of the space: they must serve enough rows.
MIN_PIXELS = 128
# x and S of a task: half of a 1 MiB L2, the rest for the panels that stream through.
ROWS_NBYTES = 448 << 10
MIN_TASKS = 8  # enough for several threads to end together
MIN_PANELS = 2  # of a task: each adds its rows' halves anew
PACK_NBYTES = 1 << 18  # of filters at a time: their sums stay in L2


def pays_in_halves(y: Buffer, C: int, isa: Isa) -> bool:
    """Tell whether seven products of half the size are faster than one."""
    *space, OC = y.dims[1:]
    is_long = product(tuple(space)) >= MIN_PIXELS
    return is_long and C % 2 == 0 and _n_panels(OC, isa) > 0


def _n_panels(OC: int, isa: Isa) -> int:
    """Return the pairs of column panels; columns beyond them are summed directly."""
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
    filters : float32[*K, C, OC], of one tap
    """
    isa = lowering.isa
    *_, C, OC = filters.shape
    matrix, K, n_panels = filters.reshape(-1, OC), C // 2, _n_panels(OC, isa)
    batch, OD, OH, OW, _ = y.dims
    pixels, half = OD * OH * OW, n_panels * isa.tile_columns
    blocks = task_blocks(pixels, n_panels, C, isa)
    n, sum_row = -(-blocks["rows_per_task"] // 2), spread(FLOAT_NBYTES * K)
    table_nbytes = 8 * (n + isa.heights[0])
    partial, partial_nbytes = whole_lines(N_TABLES * table_nbytes), FLOAT_NBYTES * n * isa.tile_columns
    sums, sum_block = partial + N_PARTIAL * partial_nbytes, n * sum_row
    dump = whole_lines(sums + N_SUMS * sum_block)
    lowering.scratch(dump + 2 * half * FLOAT_NBYTES)
    x_strides, panel_nbytes = output_strides(x, window), FLOAT_NBYTES * panel_floats(K, isa)
    optional = {}
    if residual is not None:
        optional = {"r": residual.address, **stride_fields("r", residual.strides)}
    lowering.flops = 2 * batch * pixels * C * 2 * half
    lowering.call(
        "f32_strassen",
        batch * blocks["row_blocks"] * blocks["panel_blocks"],
        x=x.address, y=y.address,
        panels=lowering.constant(owner, "halves", lambda: pack_halves(matrix, bias, isa)),
        pair_nbytes=N_PRODUCTS * panel_nbytes, panel_nbytes=panel_nbytes,
        runs=lowering.table((0, FLOAT_NBYTES * K, *(i * sum_block for i in range(N_SUMS)))),
        K=K, OD=OD, OH=OH, OW=OW,
        **stride_fields("x", x_strides), **stride_fields("y", y.strides),
        n_panels=n_panels, right=FLOAT_NBYTES * half,
        height=tile_height(x_strides[3], isa.heights), **blocks,
        table_nbytes=table_nbytes, partial=partial, partial_nbytes=partial_nbytes,
        sums=sums, sum_row=sum_row, sum_block=sum_block, dump=dump,
        activate=epilogue.activate, activate_args=epilogue.activate_args,
        lowest=-INFINITY, highest=INFINITY, **epilogue.bounds, **optional,
    )  # fmt: skip
    rest = OC - 2 * half
    if rest:
        panels = lowering.constant(
            owner, "rest", lambda: _pack_last(matrix, bias, 2 * half, isa)
        )
        lower_matrix(
            lowering, x.address, x_strides, y.slice(-1, 2 * half, rest), Runs((0,), C),
            Matrix(panels, C, rest), epilogue,
            None if residual is None else residual.slice(-1, 2 * half, rest),
        )  # fmt: skip


def task_blocks(pixels: int, n_panels: int, C: int, isa: Isa) -> dict[str, int]:
    """Cut the pixels of an image and the pairs of panels into tasks.

    The blocks of pixels decide which ones are added to each other, and so the rounding: they
    must not depend on the batch. Neighbouring tasks share their pixels.
    """
    row_nbytes = FLOAT_NBYTES * (C + N_SUMS * C // 4)
    fitting = max(ROWS_NBYTES // row_nbytes, 2 * isa.heights[0])
    row_blocks = -(-pixels // fitting)
    row_blocks += row_blocks % 2  # two threads end together
    rows = -(-pixels // (2 * row_blocks)) * 2
    row_blocks = -(-pixels // rows)
    panels = max(n_panels * row_blocks // MIN_TASKS, MIN_PANELS)
    return {
        "rows_per_task": rows,
        "row_blocks": row_blocks,
        "panels_per_task": panels,
        "panel_blocks": -(-n_panels // panels),
    }


def pack_halves(w: Weight, b: Array | None, isa: Isa) -> np.ndarray:
    """Pack the seven right factors of each pair of panels, rounded once.

    Returns
    -------
    float32[n_panels, 7, 1 + C/2, NR]
        B11 B21 T2 T3 T4 T1 B22, each below a row for the bias.
    """
    NR, (C, OC) = isa.tile_columns, w.shape
    K, n_panels = C // 2, _n_panels(OC, isa)
    packed = aligned_floats(n_panels * N_PRODUCTS * panel_floats(K, isa))
    panels = packed.reshape(n_panels, N_PRODUCTS, 1 + K, NR)
    panels[:, :, 0] = 0
    if b is not None:
        left, right = b[: 2 * n_panels * NR].reshape(2, n_panels, NR)
        panels[:, 1, 0] = panels[:, 4, 0] = left
        panels[:, 5, 0] = right
    step = max(PACK_NBYTES // (FLOAT_NBYTES * OC), 1)
    for k in range(0, K, step):
        end = min(k + step, K)
        halves = (w[k:end], w[K + k : K + end])
        factors = _factors(*(h[:, : 2 * n_panels * NR].astype(np.float64) for h in halves))
        panels[:, :, 1 + k : 1 + end] = np.moveaxis(
            np.reshape(factors, (N_PRODUCTS, end - k, n_panels, NR)), 2, 0
        )
    return packed


@np.errstate(all="ignore")
def _factors(upper: np.ndarray, lower: np.ndarray) -> list[np.ndarray]:
    """Return the seven right factors of rows of both halves of the channels."""
    (B11, B12), (B21, B22) = (np.split(rows, 2, axis=1) for rows in (upper, lower))
    T1 = B12 - B11
    T2 = B22 - T1
    return [B11, B21, T2, B22 - B12, B21 - T2, T1, B22]


@dataclass(frozen=True)
class _LastColumns:
    """The columns of a matrix from one on."""

    matrix: Weight
    first: int

    @property
    def shape(self) -> tuple[int, ...]:
        return self.matrix.shape[0], self.matrix.shape[1] - self.first

    def __getitem__(self, rows: slice) -> np.ndarray:
        return self.matrix[rows][:, self.first :]


def _pack_last(w: Weight, b: Array | None, first: int, isa: Isa) -> np.ndarray:
    return pack_panels(_LastColumns(w, first), None if b is None else b[first:], isa)
