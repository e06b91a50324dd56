"""Matrix product in halves: seven products of half the size each way do the work of eight.

Neighbouring pixels are halved (upper, lower), so are the channels and the columns:

    | C11 C12 |   | A11 A12 |   | B11 B12 |       P1 = A11 B11     P5 = S1 T1
    |         | = |         | x |         |       P2 = A12 B21     P6 = S2 T2
    | C21 C22 |   | A21 A22 |   | B21 B22 |       P3 = S4 B22      P7 = S3 T3
                                                  P4 = A22 T4
    S1 = A21 + A22     T1 = B12 - B11
    S2 = S1 - A11      T2 = B22 - T1              C11 = P1 + P2
    S3 = A11 - A21     T3 = B22 - B12             C12 = P1 + P6 + P5 + P3
    S4 = A12 - S2      T4 = B21 - T2              C21 = P1 + P6 + P7 + P4
                                                  C22 = P1 + P6 + P7 + P5

This is Winograd's form of Strassen's algorithm (Higham, "Accuracy and stability of numerical
algorithms", 2002, section 23.1). The filters are packed with their sums T. Register tiles add
to a product what it goes on from; only S1 .. S4 and the addition of P5 are loops of their own.
"""

from ..codegen.isa import Isa
from ..codegen.jit import inline
from ..codegen.ukernel import tile_call
from ..codegen.vector import call_kernel, floats, integers
from .conv import fill_line, fill_rows, repeat_last


def f32_strassen(isa: Isa):
    """Return the kernel ``y = activate(clip(x w + b + r, lo, hi))``; record STRASSEN.

    A task is one (image, block of pixels, block of panels), where a panel is a pair of column
    panels: ``float32[P1 P2 P6 P7 P4 P5 P3, 1 + K, NR]``, P2, P4 and P5 with the bias. Where a
    block has an odd number of pixels, its halves share the middle one, and the upper half
    writes it.
    Scratch, n being half of ``rows_per_task``: 10 int64 tables of ``n + max(heights)``, then at
    offsets of the record the partial sums ``[3, n, NR]``, S ``[4, n, K]`` and a pixel that is
    not kept.
    """
    tile = tile_call(isa)
    NR, MR, UNITS = isa.tile_columns, isa.heights[0], isa.tile_columns // isa.unit
    ROW_NBYTES = 4 * NR  # of partial sums

    @inline
    def multiply(
        p, n_rows, height, x_rows, run, n_runs, panel, y_rows, r_rows, u_rows, column, lo, hi
    ):
        m = 0
        while m < n_rows:
            tile(
                min(n_rows - m, height), UNITS, x_rows + 8 * m, run, n_runs, p.K, panel,
                y_rows + 8 * m, r_rows + 8 * m if r_rows else 0,
                u_rows + 8 * m if u_rows else 0, column, NR, p.K, 0, lo, hi,
            )  # fmt: skip
            m += height

    @inline
    def add_product(p, n_rows, height, x_rows, run, panel, y_rows, u_rows):
        """Set partial sums to a product, plus other partial sums if given."""
        multiply(
            p, n_rows, height, x_rows, run, 1, panel, y_rows, 0, u_rows, 0, p.lowest, p.highest
        )

    def kernel(p, scratch, begin, end):
        table = p.table_nbytes
        x1, y1 = scratch, scratch + table
        x2, y2 = scratch + 2 * table, scratch + 3 * table
        r1, r2 = (scratch + 4 * table, scratch + 5 * table) if p.r else (0, 0)
        s, u = scratch + 6 * table, scratch + 7 * table
        v, w = u + table, u + 2 * table
        U = scratch + p.partial
        V, W = U + p.partial_nbytes, U + 2 * p.partial_nbytes
        A1, A2 = p.runs, p.runs + 8
        S1, S2, S3, S4 = p.runs + 16, p.runs + 24, p.runs + 32, p.runs + 40
        for task in range(begin, end):
            panel_block, row_block = task % p.panel_blocks, task // p.panel_blocks
            pixels = p.OD * p.OH * p.OW
            m0 = row_block % p.row_blocks * p.rows_per_task
            n_pixels = min(p.rows_per_task, pixels - m0)
            n = (n_pixels + 1) // 2
            if panel_block == 0 or task == begin:
                pixel = row_block // p.row_blocks * pixels + m0
                fill_tables(p, x1, y1, r1, pixel, n, MR)
                fill_tables(p, x2, y2, r2, pixel + n_pixels - n, n, MR)
                if n_pixels % 2:  # the middle pixel once more
                    integers(y2)[0] = scratch + p.dump
                add_halves(p, x1, x2, n, scratch + p.sums)
                fill(s, scratch + p.sums, p.sum_row, n, MR)
                fill(u, U, ROW_NBYTES, n, MR)
                fill(v, V, ROW_NBYTES, n, MR)
                fill(w, W, ROW_NBYTES, n, MR)
            first = panel_block * p.panels_per_task
            last = min(first + p.panels_per_task, p.n_panels)
            for panel in range(first, last):
                size, left = p.panel_nbytes, 4 * panel * NR
                right, B = left + p.right, p.panels + panel * p.pair_nbytes
                add_product(p, n, p.height, x1, A1, B, u, 0)  # U = P1
                multiply(p, n, p.height, x1, A2, 1, B + size, y1, r1, u, left, p.lo, p.hi)
                add_product(p, n, MR, s, S2, B + 2 * size, u, u)  # U = P1 + P6
                add_product(p, n, MR, s, S3, B + 3 * size, v, u)  # V = U + P7
                multiply(p, n, p.height, x2, A2, 1, B + 4 * size, y2, r2, v, left, p.lo, p.hi)
                add_product(p, n, MR, s, S1, B + 5 * size, w, 0)  # W = P5
                add_row(floats(U), floats(W), n * NR)
                add_row(floats(V), floats(W), n * NR)
                multiply(p, n, MR, s, S1, 0, B, y2, r2, v, right, p.lo, p.hi)
                multiply(p, n, MR, s, S4, 1, B + 6 * size, y1, r1, u, right, p.lo, p.hi)
            if p.activate:
                for y_rows in (y1, y2):
                    for column in (4 * first * NR, 4 * first * NR + p.right):
                        activate_columns(p, y_rows, n, column, (last - first) * NR)

    return kernel


@inline
def fill_tables(p, x_rows, y_rows, r_rows, pixel, n_rows, n_repeats):
    """Write the addresses of output pixels in x, y and r, then repeat the last ones."""
    OD, OH, OW = p.OD, p.OH, p.OW
    fill_rows(x_rows, pixel, n_rows, OD, OH, OW, p.x, p.x_n, p.x_d, p.x_h, p.x_w, n_repeats)
    fill_rows(y_rows, pixel, n_rows, OD, OH, OW, p.y, p.y_n, p.y_d, p.y_h, p.y_w, n_repeats)
    if p.r:
        fill_rows(r_rows, pixel, n_rows, OD, OH, OW, p.r, p.r_n, p.r_d, p.r_h, p.r_w, n_repeats)


@inline
def fill(table, address, step, n_rows, n_repeats):
    """Write the addresses of `n_rows` rows, then repeat the last one."""
    fill_line(table, address, step, n_rows)
    repeat_last(table, n_rows, n_repeats)


@inline
def add_halves(p, x1, x2, n_rows, sums):
    """Write S1 .. S4 of the pixel pairs whose addresses stand in two tables."""
    upper, lower = integers(x1), integers(x2)
    for m in range(n_rows):
        a11, a12 = floats(upper[m]), floats(upper[m] + 4 * p.K)
        a21, a22 = floats(lower[m]), floats(lower[m] + 4 * p.K)
        s1 = sums + m * p.sum_row
        s2 = s1 + p.sum_block
        set_sum(a21, a22, floats(s1), p.K)
        set_difference(floats(s1), a11, floats(s2), p.K)
        set_difference(a11, a21, floats(s2 + p.sum_block), p.K)
        set_difference(a12, floats(s2), floats(s2 + 2 * p.sum_block), p.K)


@inline
def set_sum(a, b, y, n):
    for i in range(n):
        y[i] = a[i] + b[i]


@inline
def set_difference(a, b, y, n):
    for i in range(n):
        y[i] = a[i] - b[i]


@inline
def add_row(y, a, n):
    for i in range(n):
        y[i] += a[i]


@inline
def activate_columns(p, y_rows, n_rows, offset, n_columns):
    """Apply the epilogue's row function to some columns of every row, in place."""
    rows = integers(y_rows)
    for m in range(n_rows):
        address = rows[m] + offset
        call_kernel(p.activate, p.activate_args, address, address, n_columns)
