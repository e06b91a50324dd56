"""Winograd convolution F(4x4, 3x3), stride 1: 36 small products for 144 multiply-adds.

    for each task: a block of 4x4 output tiles
        V[point][tile][c]   transform the 6x6 input patches         scratch
        M[point][tile][oc]  = V[point] x U[point], register tiles   scratch
        y                   transform back, add bias and residual, clip, activate

A block is sized so that V and M stay in the L2 cache; U streams once per block.
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
    Scratch: 3 int64 tables of ``patches_per_task + max(heights)``, then V, then M.
    """
    to_points, from_points, tile = input_transform(isa), output_transform(isa), tile_call(isa)
    LANES, NR, MR = isa.lanes, isa.tile_columns, isa.heights[0]

    def kernel(p, scratch, begin, end):
        CP = (p.C + LANES - 1) // LANES * LANES
        OCP = (p.OC + LANES - 1) // LANES * LANES
        T = p.patches_per_task
        v_rows = scratch
        m_rows = scratch + 8 * (T + MR)
        V = scratch + p.tables_nbytes
        M = V + 4 * POINTS * T * CP
        for task in range(begin, end):
            first = task * T
            n_tiles = min(T, p.patches - first)
            for t in range(n_tiles):
                tw, th, n = split(first + t, p.TH, p.TW)
                x = p.x + n * p.x_n + th * TILE * p.x_h + tw * TILE * p.x_w
                for c in range(0, p.C, LANES):
                    v = V + 4 * (t * CP + c)
                    to_points(x + 4 * c, p.x_h, p.x_w, v, 4 * T * CP, p.C - c)
            for point in range(POINTS):
                fill(v_rows, V + 4 * point * T * CP, 4 * CP, n_tiles, MR)
                fill(m_rows, M + 4 * point * T * OCP, 4 * OCP, n_tiles, MR)
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
            for t in range(n_tiles):
                tw, th, n = split(first + t, p.TH, p.TW)
                rows, columns = min(TILE, p.OH - th * TILE), min(TILE, p.OW - tw * TILE)
                y = p.y + n * p.y_n + th * TILE * p.y_h + tw * TILE * p.y_w
                r = p.r + n * p.r_n + th * TILE * p.r_h + tw * TILE * p.r_w
                for c in range(0, p.OC, LANES):
                    from_points(
                        M + 4 * (t * OCP + c), 4 * T * OCP, p.bias + 4 * c,
                        y + 4 * c, p.y_h, p.y_w, r + 4 * c if p.r else 0, p.r_h, p.r_w,
                        rows, columns, p.OC - c, p.lo, p.hi,
                    )  # fmt: skip
                if p.activate:
                    activate_patch(p, y, rows, columns)

    return kernel


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
