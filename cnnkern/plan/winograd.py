"""Winograd convolutions: when they pay, how they are blocked, how filters are prepared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..codegen.isa import Isa
from ..graph import Array
from ..kernels.memory import aligned_floats
from ..kernels.pack import pack_panels, packed_floats, panel_floats
from ..ops.window import Window, winograd_tiles
from .buffer import FLOAT_NBYTES, Buffer, stride_fields
from .epilogue import INFINITY, Epilogue

if TYPE_CHECKING:
    from .lowering import Lowering

POINTS = 36
# V and M of a block: most of a 1 MiB L2, the rest for the panels that stream through.
BLOCK_NBYTES = 640 * 1024
INTERPOLATION = (0.75, -0.75, 1.5, -1.5)  # of codegen/winograd.py, without 0 and infinity


def lower_winograd(
    lowering: Lowering,
    owner: object,
    x: Buffer,
    y: Buffer,
    filters: Array,
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
    T = tiles_per_task(n_tiles, C, OC, isa)
    tables_nbytes = 2 * 8 * (T + isa.heights[0])
    tables_nbytes = -(-tables_nbytes // 64) * 64
    CP, OCP = (-(-n // isa.lanes) * isa.lanes for n in (C, OC))
    lowering.scratch(tables_nbytes + FLOAT_NBYTES * POINTS * T * (CP + OCP))
    lowering.flops = 2 * 9 * C * OC * batch * OH * OW
    corner = sum(s * pad for s, pad in zip(x.strides[1:], window.before, strict=True))
    optional: dict[str, Any] = {}
    if residual is not None:
        optional = {"r": residual.address, **stride_fields("r", residual.strides)}
    lowering.call(
        "f32_winograd",
        -(-n_tiles // T),
        x=x.address + -corner, y=y.address,
        panels=lowering.constant(owner, "points", lambda: transform_filters(filters, isa)),
        panel_nbytes=FLOAT_NBYTES * panel_floats(C, isa),
        point_nbytes=FLOAT_NBYTES * packed_floats(C, OC, isa),
        bias=lowering.constant(owner, "bias", lambda: _padded_bias(bias, OCP)),
        runs=lowering.table((0,)), C=C, OC=OC, OH=OH, OW=OW, TH=TH, TW=TW,
        patches=n_tiles, patches_per_task=T, tables_nbytes=tables_nbytes,
        height=isa.heights[0], activate=epilogue.activate, activate_args=epilogue.activate_args,
        **stride_fields("x", x.strides), **stride_fields("y", y.strides),
        lowest=-INFINITY, highest=INFINITY, **epilogue.bounds, **optional,
    )  # fmt: skip


def tiles_per_task(n_tiles: int, C: int, OC: int, isa: Isa) -> int:
    """Return the tiles of a block: as many as the cache holds, in blocks of equal size."""
    MR = isa.heights[0]
    fitting = max(BLOCK_NBYTES // (FLOAT_NBYTES * POINTS * (C + OC)) // MR, 1) * MR
    n_blocks = max(-(-n_tiles // fitting), 2)
    n_blocks += n_blocks % 2  # two threads end together
    return max(-(-n_tiles // n_blocks), 1)


def transform_filters(filters: Array, isa: Isa) -> np.ndarray:
    """Return G w G' in float64, rounded once and packed into panels per point.

    G evaluates a filter at the interpolation points, divided by the factors that
    `codegen.winograd` leaves out of the input transform.
    """
    points = np.array((0.0, *INTERPOLATION))
    gaps = points[:, None] - points[None, :] + np.eye(len(points))
    G = np.vander(points, 3, increasing=True) / gaps.prod(axis=1)[:, None]
    G = np.vstack([G, [0.0, 0.0, 1.0]])
    *_, C, OC = filters.shape
    taps = filters.reshape(9, C * OC).astype(np.float64)
    packed = aligned_floats(POINTS * packed_floats(C, OC, isa)).reshape(POINTS, -1)
    for point, factors in enumerate(np.kron(G, G)):
        u = (factors @ taps).astype(np.float32)
        packed[point] = pack_panels(u.reshape(C, OC), None, isa)
    return packed


def _padded_bias(bias: Array | None, length: int) -> np.ndarray:
    padded = np.zeros(length, np.float32)
    if bias is not None:
        padded[: bias.size] = bias
    return padded
