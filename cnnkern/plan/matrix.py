"""Products of rows and packed filters: which kernel does them, and in which tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..codegen.isa import Isa
from ..kernels.memory import whole_lines
from ..kernels.pack import int24_nbytes, packed_floats, panel_floats
from .buffer import (
    FLOAT_NBYTES,
    Address,
    Buffer,
    Strides,
    residual_fields,
    spread,
    stride_fields,
)
from .epilogue import NO_EPILOGUE, Epilogue

if TYPE_CHECKING:
    from .lowering import Lowering

# Output pixels of a task: 8 tiles of 14, so that a panel read from L2 serves several tiles
# and the input rows of the task stay in L2 beside it. Short rows may be more, with as many
# bytes: a tile of few products takes less than what a task and its panels cost.
ROWS_PER_TASK, ROWS_NBYTES = 112, 112 << 10
# Blocks of rows where threads keep to theirs: a few, so that several threads have some.
MIN_ROW_BLOCKS = 4
# Tasks of a step: enough for several threads to end together.
MIN_TASKS = 16
# The same where each task scales its rows anew: those that share rows do it several times.
MIN_GATED_TASKS = 8
# Bytes of filters from the L3 cache in the time of a byte of the input from another core.
# The cores of a virtual machine often share no L3, and it does not say so.
TRANSFER_COST = 8
PART = 32  # least products of a partial sum, where sums of more are taken in parts
# Products of a tile that asks for its output. Shorter ones mostly find it in a near cache, and
# the requests take a larger share of their time; but not where so many bytes are written.
ASKING_SUM, FAR_NBYTES = 256, 2 << 20
# Below this many operations a task costs less than claiming it.
MIN_TASK_FLOPS = 200_000
FILTER_FLOPS = 24  # operations in the time in which a float of the filters arrives
PAGE = 4096  # L1d sets repeat at this distance: 32 KiB, 8 ways
L1_WAYS = 8


@dataclass(frozen=True)
class Runs:
    """The receptive field of a pixel: runs of contiguous floats at byte offsets."""

    offsets: tuple[int, ...]
    length: int


@dataclass(frozen=True)
class Matrix:
    """Packed filters ``float32[groups, K, N]``."""

    panels: int  # address
    K: int
    N: int
    groups: int = 1
    x_group: int = 0  # bytes from one group's inputs to the next one's
    y_group: int = 0  # and from its outputs
    is_narrow: bool = False  # packed as few columns
    scales: int = 0  # address of the factors of columns of 24 bits

    @property
    def kernel(self) -> str:
        """Return which kernel multiplies by them."""
        if self.scales:
            return "f32_int24_conv"
        return "f32_narrow_conv" if self.is_narrow else "f32_conv"

    def sizes(self, isa: Isa) -> dict[str, int]:
        """Return the bytes of a panel and of a group."""
        K, N = self.K, self.N
        if self.scales:
            nbytes = int24_nbytes(K, isa.tile_columns, isa), int24_nbytes(K, N, isa)
        else:
            floats = panel_floats(K, isa), packed_floats(K, N, isa)
            nbytes = FLOAT_NBYTES * floats[0], FLOAT_NBYTES * floats[1]
        return {"panel_nbytes": nbytes[0], "group_nbytes": nbytes[1]}


def lower_matrix(
    lowering: Lowering,
    x: Address,
    x_strides: Strides,
    y: Buffer,
    runs: Runs,
    matrix: Matrix,
    epilogue: Epilogue = NO_EPILOGUE,
    residual: Buffer | None = None,
    flops: int = 0,
    gate: Buffer | None = None,
) -> None:
    """Append ``y[m] = epilogue(sum over runs of x[m] * w + b)`` for every pixel m of `y`.

    Parameters
    ----------
    x : address of the first pixel's receptive field
    x_strides : bytes between the receptive fields of neighbouring output pixels
    flops : operations of the convolution that this stands for, if it needs more
    gate : factors of the one run of every pixel, per image
    """
    K, N, groups = matrix.K, matrix.N, matrix.groups
    isa = lowering.isa
    batch, OD, OH, OW, _ = y.dims
    M = batch * OD * OH * OW
    own_flops = 2 * K * N * groups * M
    lowering.flops = flops or own_flops
    blocks = _blocks(
        M, -(-N // isa.tile_columns), own_flops + FILTER_FLOPS * K * N * groups, groups, isa,
        by_rows=TRANSFER_COST * M * (runs.length + N) > K * N, is_gated=gate is not None,
        most_rows=max(ROWS_NBYTES // (FLOAT_NBYTES * max(K, 1)), ROWS_PER_TASK),
    )  # fmt: skip
    is_far = y.nbytes >= FAR_NBYTES and residual is None
    scratch, pixel_nbytes = scratch_nbytes(blocks["rows_per_task"], isa), x_strides[3]
    optional: dict[str, Any] = {}
    if gate is not None:
        gated, pixel_nbytes = whole_lines(scratch), spread(FLOAT_NBYTES * K)
        optional |= {
            "gate": gate.address, "gate_n": gate.strides[0],
            "gated": gated, "gated_row": pixel_nbytes,
        }  # fmt: skip
        scratch = gated + blocks["rows_per_task"] * pixel_nbytes
    lowering.scratch(scratch)
    lowering.call(
        matrix.kernel,
        groups * blocks["panel_blocks"] * blocks["row_blocks"] if M else 0,
        x=x, y=y.address, asks_output=int(is_far or K >= ASKING_SUM), panels=matrix.panels,
        **matrix.sizes(isa), scales=matrix.scales,
        runs=lowering.table(runs.offsets), n_runs=len(runs.offsets), run_len=runs.length,
        part=_partial_sum(K, runs.length) if lowering.in_parts else max(K, 1),
        OD=OD, OH=OH, OW=OW, M=M,
        **stride_fields("x", x_strides), **stride_fields("y", y.strides),
        OC=N, x_group=matrix.x_group, y_group=matrix.y_group,
        height=tile_height(pixel_nbytes, isa.heights),
        **blocks, **residual_fields(residual), **optional,
        **(epilogue.with_rows if matrix.is_narrow else epilogue.fields),
    )  # fmt: skip


def _blocks(
    M: int, panels: int, work: int, groups: int, isa: Isa, by_rows: bool, is_gated: bool,
    most_rows: int = ROWS_PER_TASK,
) -> dict[str, int]:  # fmt: skip
    """Cut M rows into few blocks, and N panels until there are enough tasks.

    Every block of rows reads all filters, and tiles of few rows wait for their sums: rows are
    cut after whole tiles. Neighbouring tasks share their rows, or their panels if not
    `by_rows`: a thread that keeps to some rows finds its input in its own cache. Gated tasks
    scale their rows, and so share none if they need not. A single row has tiles of several
    panels.
    """
    by_rows = by_rows or is_gated
    MR, at_once = isa.heights[0], isa.panels_of_pixel if M == 1 else 1
    units = max(-(-M // MR), 1)
    wanted = max(min(MIN_GATED_TASKS if is_gated else MIN_TASKS, work // MIN_TASK_FLOPS), 1)
    of_group = -(-wanted // groups)
    least = of_group if is_gated else min(of_group, MIN_ROW_BLOCKS) if by_rows else 1
    row_blocks = max(least, -(-units // (most_rows // MR)), -(-of_group // panels))
    row_blocks = min(row_blocks + row_blocks % 2, units) if row_blocks > 1 else 1
    panel_blocks = -(-of_group // row_blocks)
    if wanted > 1:  # two threads end together
        panel_blocks += row_blocks * panel_blocks * groups % 2
    panel_blocks = min(panel_blocks, panels)
    per_task = -(-panels // (panel_blocks * at_once)) * at_once
    panel_blocks = -(-panels // per_task)
    return {
        "row_unit": MR,
        "rows_per_task": -(-units // row_blocks) * MR,
        "row_blocks": row_blocks,
        "row_step": panel_blocks if by_rows else 1,
        "panels_per_task": per_task,
        "panel_blocks": panel_blocks,
        "panel_step": 1 if by_rows else row_blocks,
        "group_step": row_blocks * panel_blocks,
    }


def scratch_nbytes(rows_per_task: int, isa: Isa) -> int:
    """Return what `f32_conv` needs per thread: row tables and one tile of partial sums."""
    tables = 3 * 8 * (rows_per_task + isa.heights[0])
    return tables + FLOAT_NBYTES * isa.heights[0] * isa.tile_columns


def _partial_sum(K: int, run_len: int) -> int:
    """Return the products of a partial sum: about as many as parts, the error's least.

    Where runs are short, they are the parts.
    """
    part = max(1 << K.bit_length() // 2, PART)
    return max(K, 1) if K <= PART else min(run_len, part)


def tile_height(pixel_nbytes: int, heights: Sequence[int]) -> int:
    """Return the tallest tile whose pixels do not evict each other from the L1 cache."""
    if pixel_nbytes % PAGE:
        return heights[0]
    return max(h for h in heights if h < L1_WAYS)  # a way is left for the filters
