"""The micro-kernel: one register tile of a convolution or matrix product.

Operation, for the `height` pixels m and the columns n of one panel:

    y[m, n] = clip((b[n] + sum_k x[m, k] * w[k, n] + u[m, n]) * s[n] + r[m, n], lo, hi)

where there are slopes, what is negative is multiplied by a[n] before the clip.

The K-axis is walked as `n_runs` runs of `run_len` contiguous floats (virtual im2col):
run s of pixel m starts at ``x_rows[m] + runs[s]``. The sum is taken in that order, one
fused multiply-add per k, whatever the tile, so that every tile height gives the same bits.
A sum may be taken in parts of `part` products each, which are then added: its rounding error
grows with the roots of part and K / part, not with the root of K (Higham, "The accuracy of
floating point summation", 1993).

    packed panel:  | bias: NR | k = 0: NR | k = 1: NR | ... | k = K-1: NR |

The bias is float32; filters stand as their format says (codegen/filters.py).
Columns at and beyond `n_valid` are computed and not stored; the panel holds zeros there.
All addresses need float alignment only. The last two rows may be one: both read what is added
before either is stored, so it is written twice with the same values.
"""

from functools import reduce

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .filters import FLOAT32, Format
from .isa import TAIL, Isa
from .tiles import TILE_ARGUMENTS, GeneralTile, PlainTile
from .vector import I64, call_one_of


def tile_call(isa: Isa, narrowest: int = 1, most_panels: int = 1, format: Format = FLOAT32):
    """Return ``tile(n_rows, n_units, *TILE_ARGUMENTS, lo, hi)`` for Numba code.

    It runs the smallest tile of at least `n_rows` pixels, as often as `n_tiles` says; the row
    tables must repeat their last entry up to the tallest tile. There is none of less than
    `narrowest` units. A single pixel may have several panels, all of them whole.
    """

    @intrinsic
    def tile(typing, n_rows, n_units, n_tiles, x_rows, runs, n_runs, run_len, panel,
             panel_nbytes, y_rows, asks_output, r_rows, u_rows, scale, slopes, column_offset,
             n_valid, part, totals, number, ahead, ahead_step, lo, hi):  # fmt: skip
        def emit(context, builder, signature, args):
            n_rows, n_units, *tile_args = args
            shapes = _shapes(isa, narrowest, most_panels)
            _emit_dispatch(builder, isa, shapes, format, n_rows, n_units, tile_args)
            return context.get_dummy_value()

        integers = [types.int64] * (2 + len(TILE_ARGUMENTS))
        return types.void(*integers, types.float32, types.float32), emit

    return tile


def _shapes(isa, narrowest, most_panels):
    """Return the height, the units and the panels of every tile."""
    units = isa.tile_columns // isa.unit  # of a panel
    shapes = [(height, n, 1) for n in range(narrowest, units + 1) for height in isa.heights]
    return shapes + [(1, n * units, n) for n in range(2, most_panels + 1)]


def _emit_dispatch(builder, isa, shapes, format, n_rows, n_units, tile_args):
    """Emit a call of the smallest tile that has room for so many rows and units."""
    named = dict(zip(TILE_ARGUMENTS, tile_args, strict=False))  # the bounds follow
    choice = builder, isa, format, n_rows, n_units, tile_args
    with builder.if_else(_is_plain(builder, isa, n_units, named)) as (plain, general):
        with plain:
            _emit_choice(*choice, PlainTile, [shape for shape in shapes if shape[-1] == 1])
        with general:
            _emit_choice(*choice, GeneralTile, shapes)


def _emit_choice(builder, isa, format, n_rows, n_units, tile_args, kind, shapes):
    most = max(n for _, n, _ in shapes)
    number = builder.add(builder.mul(n_rows, ir.Constant(I64, most + 1)), n_units)
    tiles = []
    for height, n, panels in shapes:
        shorter = max((h for h in isa.heights if h < height), default=0)
        numbers = [rows * (most + 1) + n for rows in range(shorter + 1, height + 1)]
        tile = kind(isa, height, n * isa.unit, panels, format)
        tiles.append((numbers, tile.function(builder.module)))
    call_one_of(builder, number, tiles, tile_args)


def _is_plain(builder, isa, n_units, named):
    """Return whether the tiles of a call are plain ones."""
    b, zero = builder, ir.Constant(I64, 0)
    conditions = (
        b.icmp_signed("<=", n_units, ir.Constant(I64, isa.tile_columns // isa.unit)),
        b.icmp_signed("<=", b.mul(n_units, ir.Constant(I64, isa.unit)), named["n_valid"]),
        b.icmp_signed(">", named["n_runs"], zero),
        b.icmp_signed(">=", named["run_len"], ir.Constant(I64, TAIL)),
        b.icmp_signed("==", named["totals"], zero),
        b.icmp_signed("==", named["slopes"], zero),
    )
    return reduce(b.and_, conditions)
