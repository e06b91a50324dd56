"""Winograd convolution F(4x4, 3x3), stride 1: 36 small products for 144 multiply-adds.

    V[point][tile][c]   transform the 6x6 input patches
    M[point][tile][oc]  = V[point] x U[point], register tiles
    y                   transform back, add bias and residual, clip, activate

`f32_winograd` does all three for one block of 4x4 output tiles after the other; V and M of
a block stay in the L2 cache, and U streams once per block. Where U is the larger one, it
streams once per chunk of many tiles: `f32_winograd_input`, `f32_conv` with a group per
point, and `f32_winograd_output` are steps of their own, with V and M in the arena.
"""

from ..codegen.isa import Isa
from ..codegen.jit import inline
from ..codegen.ukernel import tile_call
from ..codegen.vector import call_kernel, integers
from ..codegen.winograd import PATCH, TILE, input_transform, output_transform

POINTS = PATCH * PATCH


def f32_winograd(isa: Isa):
    """Return the kernel ``y = activate(clip(conv3x3(x, w) + b + r, lo, hi))``.

    Record WINOGRAD. `x` is the corner of the first patch; patches may reach into the halo.
    Scratch: 2 int64 tables of ``patches_per_task + max(heights)``, then V, then M.
    """
    gather, scatter, tile = _gather(isa), _scatter(isa), tile_call(isa)
    LANES, NR, MR = isa.lanes, isa.tile_columns, isa.heights[0]

    def kernel(p, scratch, begin, end):
        T = p.patches_per_task
        v_rows = scratch
        m_rows = scratch + 8 * (T + MR)
        V = scratch + p.tables_nbytes
        M = V + POINTS * p.v_point
        OCP = p.m_tile // 4
        for task in range(begin, end):
            first = task * T
            n_tiles = min(T, p.patches - first)
            gather(p, first, n_tiles, V)
            for point in range(POINTS):
                fill(v_rows, V + point * p.v_point, p.v_tile, n_tiles, MR)
                fill(m_rows, M + point * p.m_point, p.m_tile, n_tiles, MR)
                for panel in range((p.OC + NR - 1) // NR):
                    n_valid = min(OCP - panel * NR, NR)
                    m = 0
                    while m < n_tiles:  # range with a step that may be 0 could raise
                        tile(
                            min(n_tiles - m, p.height), n_valid // LANES,
                            v_rows + 8 * m, p.runs, 1, p.C,
                            p.panels + point * p.point_nbytes + panel * p.panel_nbytes,
                            m_rows + 8 * m, 0, 4 * panel * NR, n_valid, p.lowest, p.highest,
                        )  # fmt: skip
                        m += p.height
            scatter(p, first, n_tiles, M)

    return kernel


def f32_winograd_input(isa: Isa):
    """Return the kernel that transforms input patches into `v`; record WINOGRAD."""
    gather = _gather(isa)

    def kernel(p, scratch, begin, end):
        for task in range(begin, end):
            t = task * p.patches_per_task
            n_tiles = min(p.patches_per_task, p.patches - t)
            gather(p, p.first + t, n_tiles, p.v + t * p.v_tile)

    return kernel


def f32_winograd_output(isa: Isa):
    """Return the kernel that transforms `m` back into output tiles; record WINOGRAD."""
    scatter = _scatter(isa)

    def kernel(p, scratch, begin, end):
        for task in range(begin, end):
            t = task * p.patches_per_task
            n_tiles = min(p.patches_per_task, p.patches - t)
            scatter(p, p.first + t, n_tiles, p.m + t * p.m_tile)

    return kernel


def _gather(isa: Isa):
    """Return ``gather(p, first, n_tiles, V)``: the points of tiles first, first+1, ..."""
    to_points, LANES = input_transform(isa), isa.lanes

    @inline
    def gather(p, first, n_tiles, V):
        for t in range(n_tiles):
            tw, th, n = split(first + t, p.TH, p.TW)
            x = p.x + n * p.x_n + th * TILE * p.x_h + tw * TILE * p.x_w
            for c in range(0, p.C, LANES):
                v = V + t * p.v_tile + 4 * c
                to_points(x + 4 * c, p.x_h, p.x_w, v, p.v_point, p.C - c)

    return gather


def _scatter(isa: Isa):
    """Return ``scatter(p, first, n_tiles, M)``: outputs of tiles first, first+1, ..."""
    from_points, LANES = output_transform(isa), isa.lanes

    @inline
    def scatter(p, first, n_tiles, M):
        for t in range(n_tiles):
            tw, th, n = split(first + t, p.TH, p.TW)
            rows, columns = min(TILE, p.OH - th * TILE), min(TILE, p.OW - tw * TILE)
            y = p.y + n * p.y_n + th * TILE * p.y_h + tw * TILE * p.y_w
            r = p.r + n * p.r_n + th * TILE * p.r_h + tw * TILE * p.r_w
            for c in range(0, p.OC, LANES):
                from_points(
                    M + t * p.m_tile + 4 * c, p.m_point, p.bias + 4 * c,
                    y + 4 * c, p.y_h, p.y_w, r + 4 * c if p.r else 0, p.r_h, p.r_w,
                    rows, columns, p.OC - c, p.lo, p.hi,
                )  # fmt: skip
            if p.activate:
                activate_patch(p, y, rows, columns)

    return scatter


@inline
def split(tile, TH, TW):
    """Return column, row and image of a tile."""
    return tile % TW, tile // TW % TH, tile // (TW * TH)


@inline
def fill(table, address, stride, n_rows, n_repeats):
    """Write the addresses of `n_rows` rows, then repeat the last one."""
    rows = integers(table)
    for row in range(n_rows + n_repeats):
        rows[row] = address + min(row, n_rows - 1) * stride


@inline
def activate_patch(p, y, rows, columns):
    """Apply the epilogue's row function to an output patch."""
    for i in range(rows):
        for j in range(columns):
            pixel = y + i * p.y_h + j * p.y_w
            call_kernel(p.activate, p.activate_args, pixel, pixel, p.OC)
