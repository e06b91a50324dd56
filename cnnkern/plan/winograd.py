"""Winograd convolutions: when they pay, how they are blocked, how filters are prepared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..codegen.isa import Isa
from ..graph import Array
from ..kernels.memory import ALIGNMENT, aligned_floats
from ..kernels.pack import packed_floats, panel_floats, split_panels, write_rows
from ..lazy import Weight
from ..ops.window import Triple, Window, winograd_tiles
from .buffer import FLOAT_NBYTES, Buffer, stride_fields
from .conv import Runs, lower_matrix
from .epilogue import INFINITY, NO_EPILOGUE, Epilogue

if TYPE_CHECKING:
    from .lowering import Lowering

POINTS = 36
# V and M of a block: most of a 1 MiB L2, the rest for the panels that stream through.
BLOCK_NBYTES = 640 * 1024
# Filters beyond this leave the L2 cache before the next block reads them again.
L2_NBYTES = 1 << 20
CHUNK_NBYTES = 4 << 20  # V and M of a chunk: they pass through the L3 cache
LINE_FLOATS = 16
MIN_TASKS = 8  # enough for several threads to end together
# Filter elements transformed at a time: their 36 points stay in L2, and the product is small
# enough that BLAS does not wake its threads.
ELEMENTS_PER_BLOCK = 768
INTERPOLATION = (0.75, -0.75, 1.5, -1.5)  # of codegen/winograd.py, without 0 and infinity


def lower_winograd(
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
    """Append ``y = epilogue(conv(x, filters) + bias + residual)``.

    Parameters
    ----------
    filters : float32[3, 3, C, OC]
    window : Window
        Strides and dilation of 1; the halo of x covers whole tiles.
    """
    *_, C, OC = filters.shape
    isa = lowering.isa
    batch, _, OH, OW, _ = y.dims
    TH, TW = winograd_tiles(OH), winograd_tiles(OW)
    n_tiles = batch * TH * TW
    CP, OCP = (-(-n // isa.lanes) * isa.lanes for n in (C, OC))
    panels = lowering.constant(owner, "points", lambda: transform_filters(filters, isa))
    corner = sum(s * pad for s, pad in zip(x.strides[1:], window.before, strict=True))
    fields: dict[str, Any] = {
        "x": x.address + -corner, "y": y.address,
        "bias": lowering.constant(owner, "bias", lambda: _padded_bias(bias, OCP)),
        "C": C, "OC": OC, "OH": OH, "OW": OW, "TH": TH, "TW": TW, "patches": n_tiles,
        "v_tile": FLOAT_NBYTES * CP, "m_tile": FLOAT_NBYTES * OCP,
        "activate": epilogue.activate, "activate_args": epilogue.activate_args,
        **stride_fields("x", x.strides), **stride_fields("y", y.strides), **epilogue.bounds,
    }  # fmt: skip
    if residual is not None:
        fields |= {"r": residual.address, **stride_fields("r", residual.strides)}
    flops = 2 * 9 * C * OC * batch * OH * OW
    if FLOAT_NBYTES * POINTS * CP * OCP > L2_NBYTES:
        _lower_steps(lowering, fields, panels, (n_tiles, C, OC), flops)
    else:
        _lower_blocks(lowering, fields, panels, (n_tiles, C, OC), flops)


def _lower_blocks(
    lowering: Lowering, fields: dict[str, Any], panels: int, sizes: Triple, flops: int
) -> None:
    """Append one step that takes block after block through all stages."""
    n_tiles, C, OC = sizes
    isa = lowering.isa
    T = tiles_per_task(n_tiles, C, OC, isa)
    tables_nbytes = 2 * 8 * (T + isa.heights[0])
    tables_nbytes = -(-tables_nbytes // ALIGNMENT) * ALIGNMENT
    v_point, m_point = T * fields["v_tile"], T * fields["m_tile"]
    lowering.scratch(tables_nbytes + POINTS * (v_point + m_point))
    lowering.flops = flops
    lowering.call(
        "f32_winograd",
        -(-n_tiles // T),
        panels=panels,
        panel_nbytes=FLOAT_NBYTES * panel_floats(C, isa),
        point_nbytes=FLOAT_NBYTES * packed_floats(C, OC, isa),
        runs=lowering.table((0,)), patches_per_task=T, tables_nbytes=tables_nbytes,
        v_point=v_point, m_point=m_point, height=isa.heights[0],
        lowest=-INFINITY, highest=INFINITY, **fields,
    )  # fmt: skip


def _lower_steps(
    lowering: Lowering, fields: dict[str, Any], panels: int, sizes: Triple, flops: int
) -> None:
    """Append a step per stage, with V and M of all tiles in the arena."""
    n_tiles, C, _ = sizes
    tile_nbytes = POINTS * (fields["v_tile"] + fields["m_tile"])
    n_chunks = -(-n_tiles * tile_nbytes // CHUNK_NBYTES)
    chunk = -(-n_tiles // n_chunks)
    # A line between the points: they would meet in one set of the L1 cache.
    v, m = (
        lowering.temporary((POINTS, chunk * fields[name] // FLOAT_NBYTES + LINE_FLOATS))
        for name in ("v_tile", "m_tile")
    )
    fields |= {"v": v.address, "v_point": v.strides[0], "m": m.address, "m_point": m.strides[0]}
    OCP = fields["m_tile"] // FLOAT_NBYTES
    for first in range(0, n_tiles, chunk):
        count = min(chunk, n_tiles - first)
        T = max(count // MIN_TASKS, 1)
        fields |= {"first": first, "patches": count, "patches_per_task": T}
        lowering.call("f32_winograd_input", -(-count // T), **fields)
        rows = Buffer((1, count, OCP), m.address, (0, 0, 0, fields["m_tile"]))
        lower_matrix(
            lowering, v.address, (0, 0, 0, fields["v_tile"]), rows, panels,
            (C, POINTS * OCP), Runs((0,), C, fields["v_point"]), (1, 1, 1), POINTS, NO_EPILOGUE,
            y_group=fields["m_point"], flops=flops * count // n_tiles,
        )  # fmt: skip
        lowering.call("f32_winograd_output", -(-count // T), **fields)


def tiles_per_task(n_tiles: int, C: int, OC: int, isa: Isa) -> int:
    """Return the tiles of a block: as many as the cache holds, in blocks of equal size."""
    MR = isa.heights[0]
    fitting = max(BLOCK_NBYTES // (FLOAT_NBYTES * POINTS * (C + OC)) // MR, 1) * MR
    n_blocks = max(-(-n_tiles // fitting), 2)
    n_blocks += n_blocks % 2  # two threads end together
    return max(-(-n_tiles // n_blocks), 1)


def transform_filters(filters: Weight, isa: Isa) -> np.ndarray:
    """Return G w G' in float64, rounded once and packed into panels per point.

    G evaluates a filter at the interpolation points, divided by the factors that
    `codegen.winograd` leaves out of the input transform.
    """
    *_, C, OC = filters.shape
    G = _filter_transform()
    factors = np.kron(G, G)
    taps = np.asarray(filters).reshape(9, C, OC)
    packed = aligned_floats(POINTS * packed_floats(C, OC, isa)).reshape(POINTS, -1)
    panels = split_panels(packed, C, OC, isa)
    write_rows(panels, np.zeros((POINTS, 1, OC), np.float32), 0)
    step = max(ELEMENTS_PER_BLOCK // max(OC, 1), 1)
    for c in range(0, C, step):
        block = taps[:, c : c + step].astype(np.float64)
        points = factors @ block.reshape(9, -1)
        write_rows(panels, points.reshape(POINTS, -1, OC), c + 1)
    return packed


def _filter_transform() -> np.ndarray:
    """Return G, float64[6, 3]."""
    points = np.array((0.0, *INTERPOLATION))
    gaps = points[:, None] - points[None, :] + np.eye(len(points))
    G = np.vander(points, 3, increasing=True) / gaps.prod(axis=1)[:, None]
    return np.vstack([G, [0.0, 0.0, 1.0]])


def _padded_bias(bias: Array | None, length: int) -> np.ndarray:
    padded = np.zeros(length, np.float32)
    if bias is not None:
        padded[: bias.size] = bias
    return padded
