"""Direct convolution and matrix product: panels outside, register tiles inside.

    for each task:   a block of output pixels (M), a block of column panels (N), one group
        for each panel:              its weights stay in the cache for all tiles
            for each register tile:  codegen/ukernel.py

A matrix product is the 1x1 convolution with one run of K floats per row.
"""

from ..codegen.filters import FLOAT32, INT24, Format
from ..codegen.isa import LINE, Isa, n_requests
from ..codegen.jit import inline
from ..codegen.ukernel import tile_call
from ..codegen.vector import call_kernel, floats, integers


def f32_conv(isa: Isa):
    """Return the kernel ``y = activate(clip(conv(x, w) + b + r, lo, hi))``; record CONV.

    With slopes, what is negative is multiplied by its column's before it is clipped.
    A task is one (group, panel block, row block); the steps between neighbours of each kind
    are the plan's choice.
    With a gate x is first scaled: ``x[n, .., c] * gate[n, c]``, for filters of one tap.
    Scratch: 3 int64 tables of ``rows_per_task + max(heights)`` row addresses, one tile, then
    with a gate the scaled rows.
    """
    return _convolution(isa)


def f32_int24_conv(isa: Isa):
    """Return the same kernel for filters of 24 bits in whole panels; record CONV."""
    return _convolution(isa, narrowest=isa.tile_columns // isa.unit, format=INT24)


def _convolution(isa: Isa, narrowest: int = 1, format: Format = FLOAT32):
    UNIT, NR, MR = isa.unit, isa.tile_columns, isa.heights[0]
    PANELS_OF_PIXEL, NARROWEST, IS_SCALED = isa.panels_of_pixel, narrowest, format is INT24
    multiply_panel = panel_product(isa, narrowest, PANELS_OF_PIXEL, format)
    fill_tables = row_tables(MR)

    def kernel(p, scratch, begin, end):
        table_nbytes = 8 * (p.rows_per_task + MR)
        x_rows, y_rows = scratch, scratch + table_nbytes
        r_rows = scratch + 2 * table_nbytes if p.r else 0
        totals = scratch + 3 * table_nbytes if p.part < p.run_len * p.n_runs else 0
        filled = m0 = n_rows = -1
        for task in range(begin, end):
            row_block = task // p.row_step % p.row_blocks
            panel_block = task // p.panel_step % p.panel_blocks
            group = task // p.group_step
            if group * p.row_blocks + row_block != filled:
                filled = group * p.row_blocks + row_block
                m0, n_rows = rows_of_block(row_block, p.row_blocks, p.M, p.row_unit)
                fill_tables(p, scratch, group, m0, n_rows)
            first = panel_block * p.panels_per_task
            last = min(first + p.panels_per_task, (p.OC + NR - 1) // NR)
            panels = p.panels + group * p.group_nbytes
            ahead = p.ahead + group * p.group_nbytes + row_block * p.ahead_rows
            at_once = PANELS_OF_PIXEL if n_rows == 1 else 1
            panel = first
            while panel < last:
                n_panels = max(min(at_once, last - panel, p.OC // NR - panel), 1)
                n_valid = min(p.OC - panel * NR, n_panels * NR)
                n_units = max((n_valid + UNIT - 1) // UNIT, NARROWEST)
                multiply_panel(
                    n_rows, p.height, n_units, x_rows, p.runs, p.n_runs, p.run_len,
                    panels + panel * p.panel_nbytes, p.panel_nbytes,
                    y_rows, p.asks_output, r_rows, 0,
                    p.scales + 4 * panel * NR if IS_SCALED else 0,
                    p.slopes + 4 * (group * p.OC + panel * NR) if p.slopes else 0,
                    4 * panel * NR, n_valid, p.part, totals,
                    ahead + panel * p.ahead_nbytes, p.ahead_nbytes, p.lo, p.hi,
                )  # fmt: skip
                panel += n_panels
            if p.activate:
                n_columns = min(p.OC, last * NR) - first * NR
                activate_rows(p, y_rows, m0, n_rows, 4 * first * NR, n_columns)

    return kernel


def row_tables(n_repeats):
    """Return ``fill_tables(p, scratch, group, m0, n_rows)``: the row addresses of a task.

    With a gate the rows are scaled, too, and those are what x stands for.
    """

    @inline
    def fill_tables(p, scratch, group, m0, n_rows):
        OD, OH, OW, nbytes = p.OD, p.OH, p.OW, 8 * (p.rows_per_task + n_repeats)
        x, y, r = p.x + group * p.x_group, p.y + group * p.y_group, p.r + group * p.y_group
        x_rows, y_rows, r_rows = scratch, scratch + nbytes, scratch + 2 * nbytes
        fill_rows(x_rows, m0, n_rows, OD, OH, OW, x, p.x_n, p.x_d, p.x_h, p.x_w, n_repeats)
        if p.gate:
            gate_rows(p, x_rows, m0, n_rows, scratch + p.gated, n_repeats)
        fill_rows(y_rows, m0, n_rows, OD, OH, OW, y, p.y_n, p.y_d, p.y_h, p.y_w, n_repeats)
        if p.r:
            fill_rows(r_rows, m0, n_rows, OD, OH, OW, r, p.r_n, p.r_d, p.r_h, p.r_w, n_repeats)

    return fill_tables


@inline
def rows_of_block(block, n_blocks, n_rows, unit):
    """Return the first row of a block and how many it has: whole units, but for the last."""
    units = (n_rows + unit - 1) // unit
    begin, end = units * block // n_blocks * unit, units * (block + 1) // n_blocks * unit
    return begin, min(end, n_rows) - begin


def panel_product(isa: Isa, narrowest: int = 1, most_panels: int = 1, format: Format = FLOAT32):
    """Return ``multiply_panel(n_rows, height, n_units, ...)``: any rows, in register tiles.

    All but the last tiles have `height` rows; one row may have several panels. The tiles ask
    for `ahead_nbytes` at `ahead`, filters that are to come. The other arguments are those of a
    tile, as are the conditions (`tile_call`).
    """
    tile, FEW_ROWS = tile_call(isa, narrowest, most_panels, format), isa.least_rows // 2
    FIRST, UNROLL, count_requests = isa.first_tiles, isa.unroll, inline(n_requests)

    @inline
    def multiply_panel(
        n_rows, height, n_units, x_rows, runs, n_runs, run_len, panel, panel_nbytes,
        y_rows, asks_output, r_rows, u_rows, scale, slopes, column_offset, n_valid, part,
        totals, ahead, ahead_nbytes, lo, hi,
    ):  # fmt: skip
        rest = n_rows % height
        # So few rows wait for their own sums. With a full tile's they are two halves, for
        # which there are tiles of their heights: no row is done twice.
        halves = height if 0 < rest <= FEW_ROWS and n_rows > height else 0
        whole = n_rows - rest - halves
        n_tiles = (n_rows - 1) // height + 1
        requests = count_requests(n_tiles, n_runs * run_len, FIRST, UNROLL)
        step = 0
        if ahead_nbytes and requests:
            step = min((ahead_nbytes + requests - 1) // requests, LINE)
        m = number = 0
        while m < n_rows:  # a range whose step may be 0 could raise
            rows, n_tiles = n_rows - m, 1
            if m < whole:
                rows, n_tiles = height, whole // height
            elif rows > height:
                rows = (rows + 1) // 2
            tile(
                rows, n_units, n_tiles,
                x_rows + 8 * m, runs, n_runs, run_len, panel, panel_nbytes,
                y_rows + 8 * m, asks_output, r_rows + 8 * m if r_rows else 0,
                u_rows + 8 * m if u_rows else 0,
                scale, slopes, column_offset, n_valid, part, totals,
                number, ahead, step, lo, hi,
            )  # fmt: skip
            m += rows * n_tiles
            number += n_tiles

    return multiply_panel


@inline
def fill_line(table, address, step, count):
    """Write `count` addresses that are `step` apart."""
    rows = integers(table)
    for i in range(count):
        rows[i] = address + i * step


@inline
def repeat_last(table, n_rows, n_repeats):
    """Write the last of `n_rows` addresses again behind them."""
    rows = integers(table)
    for m in range(n_rows, n_rows + n_repeats):
        rows[m] = rows[n_rows - 1]


@inline
def fill_table(table, address, step, n_rows, n_repeats):
    """Write the addresses of `n_rows` rows that are `step` apart, then repeat the last one."""
    fill_line(table, address, step, n_rows)
    repeat_last(table, n_rows, n_repeats)


@inline
def fill_rows(table, m0, n_rows, OD, OH, OW, base, s_n, s_d, s_h, s_w, n_repeats):
    """Write the addresses of output pixels m0 .. m0+n_rows, then repeat the last one."""
    if s_h == OW * s_w and s_d == OH * s_h and s_n == OD * s_d:
        OW = m0 + n_rows  # pixels that are equally far apart are one row
    ow = m0 % OW
    oh = m0 // OW % OH
    od = m0 // (OW * OH) % OD
    n = m0 // (OW * OH * OD)
    m = 0
    while m < n_rows:
        count = min(OW - ow, n_rows - m)
        fill_line(table + 8 * m, base + n * s_n + od * s_d + oh * s_h + ow * s_w, s_w, count)
        m += count
        ow = 0
        oh += 1
        if oh == OH:
            oh = 0
            od += 1
            if od == OD:
                od = 0
                n += 1
    repeat_last(table, n_rows, n_repeats)


@inline
def gate_rows(p, table, m0, n_rows, gated, n_repeats):
    """Scale the rows of a table and let it point to the results."""
    rows, pixels = integers(table), p.OD * p.OH * p.OW
    for m in range(n_rows):
        target = gated + m * p.gated_row
        gate = p.gate + (m0 + m) // pixels * p.gate_n
        multiply_row(floats(rows[m]), floats(gate), floats(target), p.run_len)
        rows[m] = target
    repeat_last(table, n_rows, n_repeats)


@inline
def multiply_row(a, b, y, n):
    for i in range(n):
        y[i] = a[i] * b[i]


@inline
def activate_rows(p, y_rows, m0, n_rows, offset, n_columns):
    """Apply the epilogue's row function in place while the rows are in the cache.

    Pixels that touch in memory are one row to it.
    """
    rows = integers(y_rows)
    touch = 4 * n_columns == p.y_w
    is_dense = p.y_h == p.OW * p.y_w and p.y_d == p.OH * p.y_h and p.y_n == p.OD * p.y_d
    m = 0
    while m < n_rows:
        count = 1
        if touch:
            count = n_rows if is_dense else min(p.OW - (m0 + m) % p.OW, n_rows - m)
        address = rows[m] + offset
        call_kernel(p.activate, p.activate_args, address, address, count * n_columns)
        m += count
