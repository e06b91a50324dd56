"""Convolution to few columns: register tiles of pixels, vectors along the sum.

    for each task:   a block of output pixels
        for each register tile:  codegen/narrow.py

The filters are few enough to stay in the L1 cache.
"""

from ..codegen.isa import Isa
from ..codegen.narrow import narrow_call
from .conv import activate_rows, row_tables, rows_of_block


def f32_narrow_conv(isa: Isa):
    """Return the kernel ``y = activate(clip(conv(x, w) + b + r, lo, hi))``; record CONV.

    Scratch: 3 int64 tables of ``rows_per_task + max(heights)`` row addresses.
    """
    tile, PIXELS, MR = narrow_call(isa), isa.narrow_pixels, isa.heights[0]
    fill_tables = row_tables(MR)

    def kernel(p, scratch, begin, end):
        table_nbytes = 8 * (p.rows_per_task + MR)
        x_rows, y_rows = scratch, scratch + table_nbytes
        r_rows = scratch + 2 * table_nbytes if p.r else 0
        for task in range(begin, end):
            m0, n_rows = rows_of_block(task, p.row_blocks, p.M, p.row_unit)
            fill_tables(p, scratch, 0, m0, n_rows)
            for m in range(0, n_rows, PIXELS):
                tile(
                    p.OC, x_rows + 8 * m, p.runs, p.n_runs, p.run_len, p.panels,
                    y_rows + 8 * m, r_rows + 8 * m if p.r else 0, p.lo, p.hi,
                )  # fmt: skip
            if p.activate:
                activate_rows(p, y_rows, m0, n_rows, 0, p.OC)

    return kernel
