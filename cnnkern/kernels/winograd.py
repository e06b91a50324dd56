"""Winograd convolution: F(4x4, 3x3) does 36 products for 144 multiply-adds.

    V[point][tile][c]   transform the input patches
    M[point][tile][oc]  = V[point] x U[point], register tiles
    y                   transform back, add bias and residual, clip, activate

`f32_winograd` does all three for one block of output tiles after the other; V and M of a
block stay in the L2 cache, and U streams once per block; the last products ask for the outputs
and for the patches of the next one. Where U is the larger one, it streams once per chunk of
many tiles: `f32_winograd_input_4x4_3x3`, `f32_conv` with a group per point, and
`f32_winograd_output_4x4_3x3` are steps of their own, with V and M in the arena. Images of few
tiles take F(2x2, 3x3), 16 products for 36: less of it lies beyond the border; large ones
F(6x4, 3x3), 48 products for 216. F(3x3, 4x4) does 36 products for 144, F(1x5, 1x4) 8 for 20.

Other filters are sums of parts that fit the tiles: taps along D, those beyond the first 4 of
7, every other tap where the stride is 2. In V they stand beside each other like channels.

Where a max-pooling follows whose windows divide the tiles, `f32_winograd_pooled_4x4_3x3` stores
the largest number of each window and no more.
"""

from ..codegen.isa import Isa
from ..codegen.jit import inline
from ..codegen.transform import POOLED_SIZES, SIZES, Size
from ..codegen.vector import address_of, call_kernel, integers
from ..codegen.winograd import input_transform, output_transform
from ..shapes import Pair
from .conv import fill_table, panel_product


def f32_winograd(isa: Isa):
    """Return the kernel ``y = activate(clip(conv(x, w) + b + r, lo, hi))``; record WINOGRAD.

    `x` is the corner of the first patch; patches may reach into the halo. The kernels of the
    other two stages find V and M where their scratch memory would be.
    Scratch: 2 int64 tables of ``table_nbytes``, then V, then M.
    """
    multiply_panel = panel_product(isa)
    UNIT, NR, MR = isa.unit, isa.tile_columns, isa.heights[0]

    def kernel(p, scratch, begin, end):
        v_rows, m_rows = scratch, scratch + p.table_nbytes
        V = m_rows + p.table_nbytes
        M = V + p.n_points * p.v_point
        for task in range(begin, end):
            n_tiles = first_tile(p, task + 1) - first_tile(p, task)
            call_kernel(p.to_points, address_of(p), V, task, task + 1)
            outputs = outputs_of(p, *split(first_tile(p, task), p))
            next_patch = patch_of(p, *split(first_tile(p, task + 1), p))
            request = -p.silent
            for point in range(p.n_points):
                fill_table(v_rows, V + point * p.v_point, p.v_tile, n_tiles, MR)
                fill_table(m_rows, M + point * p.m_point, p.m_tile, n_tiles, MR)
                for panel in range((p.OC + NR - 1) // NR):
                    n_units = (min(p.OC - panel * NR, NR) + UNIT - 1) // UNIT
                    ahead, ahead_nbytes = requested(p, request, outputs, next_patch)
                    multiply_panel(
                        n_tiles, p.height, n_units, v_rows, p.runs, 1, p.K,
                        p.panels + point * p.point_nbytes + panel * p.panel_nbytes, 0,
                        m_rows, 0, 0, 0, 0, 0, 4 * panel * NR, n_units * UNIT, p.K, 0,
                        ahead, ahead_nbytes, p.lowest, p.highest,
                    )  # fmt: skip
                    request += 1
            call_kernel(p.from_points, address_of(p), M, task, task + 1)

    return kernel


def _input(size: Size):
    """Return the factory of a kernel that transforms patches into V; record WINOGRAD."""

    def factory(isa: Isa):
        gather = _gather(isa, size)

        def kernel(p, scratch, begin, end):
            for task in range(begin, end):
                t = first_tile(p, task)
                n_tiles = first_tile(p, task + 1) - t
                gather(p, p.first + t, n_tiles, p.v + t * p.v_tile if p.v else scratch)

        return kernel

    return factory


def _output(size: Size, pool: Pair = (1, 1)):
    """Return the factory of a kernel that transforms M into output tiles; record WINOGRAD.

    With a pool, y and all that is counted in outputs is what remains of them.
    """

    def factory(isa: Isa):
        scatter = _scatter(isa, size, pool)

        def kernel(p, scratch, begin, end):
            for task in range(begin, end):
                t = first_tile(p, task)
                n_tiles = first_tile(p, task + 1) - t
                scatter(p, p.first + t, n_tiles, p.m + t * p.m_tile if p.m else scratch)

        return kernel

    return factory


def _gather(isa: Isa, size: Size):
    """Return ``gather(p, first, n_tiles, V)``: the points of tiles first, first+1, ..."""
    to_points = input_transform(isa, size)

    @inline
    def gather(p, first, n_tiles, V):
        offsets = integers(p.parts)
        tw, th, d, n = split(first, p)
        for t in range(n_tiles):
            x = patch_of(p, tw, th, d, n)
            for part in range(p.n_parts):
                patch, v = x + offsets[part], V + t * p.v_tile + part * p.v_part
                to_points(p.C, patch, p.x_h, p.x_w, v, p.v_point)
            tw, th, d, n = next_tile(tw, th, d, n, p)

    return gather


def _scatter(isa: Isa, size: Size, pool: Pair):
    """Return ``scatter(p, first, n_tiles, M)``: outputs of tiles first, first+1, ..."""
    from_points, (ROWS, COLUMNS) = output_transform(isa, size, pool), size.pooled_tile(pool)

    @inline
    def scatter(p, first, n_tiles, M):
        tw, th, d, n = split(first, p)
        for t in range(n_tiles):
            oh, ow = th * ROWS, tw * COLUMNS
            rows, columns = min(ROWS, p.OH - oh), min(COLUMNS, p.OW - ow)
            y = p.y + n * p.y_n + d * p.y_d + oh * p.y_h + ow * p.y_w
            r = p.r + n * p.r_n + d * p.r_d + oh * p.r_h + ow * p.r_w
            from_points(
                p.OC, M + t * p.m_tile, p.m_point, p.bias,
                y, p.y_h, p.y_w, r if p.r else 0, p.r_h, p.r_w,
                p.slopes, rows, columns, p.lo, p.hi,
            )  # fmt: skip
            if p.activate:
                activate_patch(p, y, rows, columns)
            tw, th, d, n = next_tile(tw, th, d, n, p)

    return scatter


# Kernels are looked up by name in their module.
globals().update(
    {
        f"f32_winograd_{end}_{name}": factory(size)
        for name, size in SIZES.items()
        for end, factory in (("input", _input), ("output", _output))
    }
    | {
        f"f32_winograd_pooled_{name}": _output(size, size.pool)
        for name, size in POOLED_SIZES.items()
    }
)


@inline
def first_tile(p, block):
    """Return where a block begins: all are of about one size, and no unit is cut."""
    if block == p.blocks:
        return p.patches
    return (p.patches * block // p.blocks + p.unit // 2) // p.unit * p.unit


@inline
def split(tile, p):
    """Return column, row, depth and image of a tile."""
    TW, TH, OD = p.TW, p.TH, p.OD
    return tile % TW, tile // TW % TH, tile // (TW * TH) % OD, tile // (TW * TH * OD)


@inline
def patch_of(p, tw, th, d, n):
    """Return the address of the patch that a tile is made of."""
    return p.x + n * p.x_n + d * p.x_d + th * p.x_row + tw * p.x_column


@inline
def outputs_of(p, tw, th, d, n):
    """Return the address of the outputs of a tile."""
    return p.y + n * p.y_n + d * p.y_d + th * p.y_row + tw * p.y_column


@inline
def requested(p, request, outputs, next_patch):
    """Return address and bytes of what a product of a panel asks for."""
    row, part = request // p.row_parts, request % p.row_parts
    if row < p.y_rows:
        nbytes = p.y_part_nbytes if request >= 0 else 0
        return outputs + row * p.y_h + part * nbytes, nbytes
    return next_patch + (row - p.y_rows) * p.x_h + part * p.part_nbytes, p.part_nbytes


@inline
def next_tile(tw, th, d, n, p):
    """Return column, row, depth and image of the tile that follows: a division takes longer."""
    tw += 1
    if tw == p.TW:
        tw = 0
        th += 1
        if th == p.TH:
            th = 0
            d += 1
            if d == p.OD:
                d = 0
                n += 1
    return tw, th, d, n


@inline
def activate_patch(p, y, rows, columns):
    """Apply the epilogue's row function to an output patch."""
    for i in range(rows):
        for j in range(columns):
            pixel = y + i * p.y_h + j * p.y_w
            call_kernel(p.activate, p.activate_args, pixel, pixel, p.OC)
