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
Its errors are small beside the largest column of B: so that they are small beside each one, the
columns are brought to one size by powers of two, and the results back.
"""

from ..codegen.isa import Isa
from ..codegen.jit import inline
from ..codegen.vector import call_kernel, floats, integers
from .conv import fill_rows, fill_table, panel_product, rows_of_block

# The tables of row addresses: x, y and r of the upper and the lower half, S, partial sums.
X1, Y1, R1, X2, Y2, R2, S, U, V, W = range(10)


def f32_strassen(isa: Isa):
    """Return the kernel ``y = activate(clip(x w + b + r, lo, hi))``; record STRASSEN.

    A task is one (image, block of pixels, block of panels), where a panel is a pair of column
    panels: ``float32[P1 P2 P6 P7 P4 P5 P3, 1 + K, NR]``, P2, P4 and P5 with the bias. Where a
    block has an odd number of pixels, its halves share the middle one, and the upper half
    writes it.
    Scratch, n being half of ``rows_per_task``: int64 tables of ``n + max(heights)``, then at
    offsets of the record the partial sums ``U V W [n, NR]``, S ``[4, n, K]`` and a pixel that
    is not kept.
    """
    NR, MR = isa.tile_columns, isa.heights[0]
    multiply_halves = _products(isa)

    @inline
    def load(p, scratch, row_block):
        """Fill the tables and S for a block of pixels; return half of their number."""
        pixels = p.OD * p.OH * p.OW
        image, block = row_block // (2 * p.part_blocks), row_block % (2 * p.part_blocks)
        first, n = block_of(block, p.part_blocks, pixels, MR // 2)
        n_pixels = min(2 * n, pixels - 2 * first)
        upper = image * pixels + 2 * first
        fill_tables(p, scratch, X1, upper, n, MR)
        fill_tables(p, scratch, X2, upper + n_pixels - n, n, MR)
        if n_pixels % 2:  # the middle pixel once more
            integers(table(p, scratch, Y2))[0] = scratch + p.dump
        add_halves(p, scratch, n)
        fill_table(table(p, scratch, S), scratch + p.sums, p.sum_row, n, MR)
        for i in range(3):
            rows = scratch + p.partial + i * p.partial_nbytes
            fill_table(table(p, scratch, U + i), rows, 4 * NR, n, MR)
        return n

    def kernel(p, scratch, begin, end):
        n = 0
        for task in range(begin, end):
            panel_block = task % p.panel_blocks
            if panel_block == 0 or task == begin:
                n = load(p, scratch, task // p.panel_blocks)
            first = panel_block * p.panels_per_task
            last = min(first + p.panels_per_task, p.n_panels)
            for panel in range(first, last):
                multiply_halves(p, scratch, n, panel)
            if p.activate:
                for column in (4 * first * NR, 4 * first * NR + p.right):
                    for rows in (Y1, Y2):
                        activate_columns(p, scratch, rows, n, column, (last - first) * NR)

    return kernel


def _products(isa: Isa):
    """Return ``multiply_halves(p, scratch, n, panel)``: all rows of a pair of panels."""
    NR, MR, UNITS = isa.tile_columns, isa.heights[0], isa.tile_columns // isa.unit
    multiply_panel = panel_product(isa, narrowest=UNITS)

    @inline
    def add(p, n, height, x_rows, run, panel, u_rows, y_rows):
        """Set partial sums to a product, plus other partial sums if given."""
        multiply_panel(
            n, height, UNITS, x_rows, run, 1, p.K, panel, 0, y_rows, 0,
            0, u_rows, 0, 0, 0, NR, p.K, 0, panel + p.panel_nbytes, p.panel_nbytes,
            p.lowest, p.highest,
        )  # fmt: skip

    @inline
    def finish(p, n, height, x_rows, run, n_runs, panel, u_rows, y_rows, r_rows, column):
        """Set columns of y to a product, if it has a run, plus partial sums, and the rest.

        A product takes long enough for y to come from a far cache.
        """
        multiply_panel(
            n, height, UNITS, x_rows, run, n_runs, p.K, panel, 0, y_rows, n_runs,
            r_rows if p.r else 0, u_rows, p.scales + column,
            p.slopes + column if p.slopes else 0, column, NR, p.K, 0,
            panel + p.panel_nbytes, p.panel_nbytes, p.lo, p.hi,
        )  # fmt: skip

    @inline
    def multiply_halves(p, scratch, n, panel):
        x1, y1, r1 = table(p, scratch, X1), table(p, scratch, Y1), table(p, scratch, R1)
        x2, y2, r2 = table(p, scratch, X2), table(p, scratch, Y2), table(p, scratch, R2)
        s, u = table(p, scratch, S), table(p, scratch, U)
        v, w = table(p, scratch, V), table(p, scratch, W)
        A1, A2 = p.runs, p.runs + 8
        S1, S2, S3, S4 = p.runs + 16, p.runs + 24, p.runs + 32, p.runs + 40
        B, size = p.panels + panel * p.pair_nbytes, p.panel_nbytes
        left = 4 * panel * NR
        right = left + p.right
        add(p, n, p.height, x1, A1, B, 0, u)  # u = P1
        finish(p, n, p.height, x1, A2, 1, B + size, u, y1, r1, left)
        add(p, n, MR, s, S2, B + 2 * size, u, u)  # u = P1 + P6
        add(p, n, MR, s, S3, B + 3 * size, u, v)  # v = P1 + P6 + P7
        finish(p, n, p.height, x2, A2, 1, B + 4 * size, v, y2, r2, left)
        add(p, n, MR, s, S1, B + 5 * size, 0, w)  # w = P5
        sums = scratch + p.partial
        p5 = floats(sums + 2 * p.partial_nbytes)
        add_row(floats(sums), p5, n * NR)
        add_row(floats(sums + p.partial_nbytes), p5, n * NR)
        finish(p, n, MR, s, S1, 0, B, v, y2, r2, right)
        finish(p, n, MR, s, S4, 1, B + 6 * size, u, y1, r1, right)

    return multiply_halves


@inline
def block_of(block, part_blocks, pixels, unit):
    """Return the first pair of pixels of a block, and how many it has.

    An image has two parts, of equal work for two threads. Each is cut after whole units, half
    a tile: tiles of fewer rows wait for their sums.
    """
    pairs = (pixels + 1) // 2
    middle = (pairs + 1) // 2
    part, i = block // part_blocks, block % part_blocks
    rows = pairs - middle if part else middle
    begin, n_pairs = rows_of_block(i, part_blocks, rows, unit)
    return part * middle + begin, n_pairs


@inline
def table(p, scratch, number):
    return scratch + number * p.table_nbytes


@inline
def fill_tables(p, scratch, first, pixel, n_rows, n_repeats):
    """Write three tables: the addresses of output pixels in x, y and r, the last repeated."""
    OD, OH, OW, x = p.OD, p.OH, p.OW, table(p, scratch, first)
    y, r = x + p.table_nbytes, x + 2 * p.table_nbytes
    fill_rows(x, pixel, n_rows, OD, OH, OW, p.x, p.x_n, p.x_d, p.x_h, p.x_w, n_repeats)
    fill_rows(y, pixel, n_rows, OD, OH, OW, p.y, p.y_n, p.y_d, p.y_h, p.y_w, n_repeats)
    if p.r:
        fill_rows(r, pixel, n_rows, OD, OH, OW, p.r, p.r_n, p.r_d, p.r_h, p.r_w, n_repeats)


@inline
def add_halves(p, scratch, n):
    """Write S1 .. S4 of `n` pairs of pixels."""
    upper, lower = integers(table(p, scratch, X1)), integers(table(p, scratch, X2))
    for m in range(n):
        a11, a12 = floats(upper[m]), floats(upper[m] + 4 * p.K)
        a21, a22 = floats(lower[m]), floats(lower[m] + 4 * p.K)
        s1 = scratch + p.sums + m * p.sum_row
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
def activate_columns(p, scratch, number, n_rows, offset, n_columns):
    """Apply the epilogue's row function to some columns of a table's rows, in place."""
    rows = integers(table(p, scratch, number))
    for m in range(n_rows):
        address = rows[m] + offset
        call_kernel(p.activate, p.activate_args, address, address, n_columns)
