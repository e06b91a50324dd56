"""The argument record of every kernel: what a plan writes and a kernel reads.

Fields are int64 unless named as float32. Addresses and strides are in bytes; a stride
is the distance between two positions that the kernel visits one after the other.
"""

import numpy as np


def _record(*fields: str, floats: tuple[str, ...] = ()) -> np.dtype:
    members = [(f, np.int64) for f in fields] + [(f, np.float32) for f in floats]
    return np.dtype(members, align=True)


CONV = _record(
    "x", "y", "r",  # input, output, residual (0 for none)
    "asks_output",  # whether tiles ask for what they write before they multiply
    "panels", "panel_nbytes", "group_nbytes",  # packed weights
    "scales",  # factors of the columns, of filters of 24 bits
    "ahead", "ahead_nbytes",  # what is asked for meanwhile, per panel; nbytes may be 0
    "ahead_rows",  # and from one block of rows to the next
    "runs", "n_runs", "run_len",  # the receptive field as runs of contiguous floats
    "part",  # products of a partial sum; as many as there are for one sum
    "OD", "OH", "OW", "M",  # output pixels: M = N*OD*OH*OW
    "x_n", "x_d", "x_h", "x_w",
    "y_n", "y_d", "y_h", "y_w",
    "r_n", "r_d", "r_h", "r_w",
    "OC", "x_group", "y_group",  # columns per group; from one group to the next
    "height", "row_unit", "rows_per_task", "row_blocks", "row_step",
    "panels_per_task", "panel_blocks", "panel_step", "group_step",
    "slopes",  # of the epilogue: float32[columns], or 0
    "activate", "activate_args",  # and its row function, or 0
    "gate", "gate_n",  # factors of the run's floats, per image; or 0
    "gated", "gated_row",  # where scaled rows stand in the scratch memory; from row to row
    floats=("lo", "hi"),
)  # fmt: skip

# A product in halves: of blocks of pixels, of channels and of columns.
STRASSEN = _record(
    "x", "y", "r",
    "panels", "pair_nbytes", "panel_nbytes", "scales",  # packed filters, factors of columns
    "runs", "K",  # where the halves of a row and S1 .. S4 begin; channels of a half
    "OD", "OH", "OW",
    "x_n", "x_d", "x_h", "x_w",
    "y_n", "y_d", "y_h", "y_w",
    "r_n", "r_d", "r_h", "r_w",
    "n_panels", "right",  # pairs of panels; bytes from a column to the one of the right half
    "height", "part_blocks", "panels_per_task", "panel_blocks",
    "table_nbytes", "partial", "partial_nbytes",  # tables and sums in the scratch memory
    "sums", "sum_row", "sum_block", "dump",
    "slopes", "activate", "activate_args",
    floats=("lo", "hi", "lowest", "highest"),
)  # fmt: skip

WINOGRAD = _record(
    "x", "y", "r",
    "panels", "panel_nbytes", "point_nbytes", "n_points", "bias",
    "runs", "K",  # a row of V: one run of K floats, C for each part of the filter
    "n_parts", "parts",  # where their pixels begin: int64 byte offsets
    "v_part",
    "to_points", "from_points",  # kernels of the transforms
    "C", "OC", "OD", "OH", "OW", "TH", "TW",  # TH x TW tiles of outputs per image
    "first", "patches", "blocks", "unit", "table_nbytes", "height",
    "v", "v_point", "v_tile", "m", "m_point", "m_tile",  # V and M; v, m of separate steps
    "x_n", "x_d", "x_h", "x_w",
    "x_row", "x_column",  # from a tile's patch to those of the next row and column of tiles
    "y_n", "y_d", "y_h", "y_w",
    "r_n", "r_d", "r_h", "r_w",
    "slopes", "activate", "activate_args",
    # The last products of panels ask for the block's outputs and the next one's patches: one
    # for each part of a row. Both nbytes may be 0.
    "silent",  # products before
    "y_rows", "y_row", "y_column",  # of a tile; bytes from tile to tile
    "row_parts", "y_part_nbytes", "part_nbytes",
    floats=("lo", "hi", "lowest", "highest"),
)  # fmt: skip

# Strides x_n .. x_w are between output positions, x_pixel between neighbouring inputs.
DEPTHWISE = _record(
    "x", "y", "filters",
    "filter_nbytes",  # packed filters per channel
    "runs", "x_pixel",
    "H", "KH", "SH", "PH", "DH", "runs_per_row",  # filter rows outside are left out
    "rows_at_once",  # 1, or 2 where there are two
    "N", "OD", "OH", "OW", "C", "channels_per_task", "rows_per_band", "pixels_per_call",
    "x_n", "x_d", "x_h", "x_w",
    "y_n", "y_d", "y_h", "y_w",
    "slopes", "activate", "activate_args",
    "sums", "sums_row",  # where each output row's sum goes, if it is wanted
    floats=("lo", "hi"),
)  # fmt: skip

# A convolution of H rows per image and what reads them and writes OH rows, or rows of tiles.
# Its record, of `reader_words`, begins with x, to which `reader_x` is to be added.
BANDS = _record(
    "conv", "reader",  # addresses of their records
    "conv_kernel", "reader_kernel", "reader_words", "reader_x",
    "tasks_per_row",  # of the reader
    "H", "OH", "KH", "SH", "PH",  # the reader's window along H: its span, stride and padding
    "rows_per_tile", "tiles",  # output rows; tiles per image
    "band_rows", "rows_at_once",  # rows of the buffer between the two; per call of the first
    "row_nbytes", "inside", "after",  # a padded row; its borders' bytes before and after
    "conv_copy", "reader_copy", "band", "reader_scratch",  # offsets in the scratch memory
)  # fmt: skip

# Two buffers walked together: N*D*H*W rows of `run` contiguous floats.
MAP = _record(
    "x", "y",
    "N", "D", "H", "W", "run",
    "x_n", "x_d", "x_h", "x_w",
    "y_n", "y_d", "y_h", "y_w",
    "chunk", "chunks",  # a tile is one chunk of floats of one row; chunks per row
    "function", "function_args",  # the row function
)  # fmt: skip

# Two inner axes I and J, and `axes`: int64[n_axes, 3] with count, x stride and y stride of
# the others, innermost first. A tile is `j_block` x `i_block` elements.
MOVE = _record(
    "x", "y",
    "I", "x_i", "y_i", "i_block", "i_blocks",
    "J", "x_j", "y_j", "j_block", "j_blocks",
    "axes", "n_axes",
)  # fmt: skip

# y = op(a, b): a step of 0 broadcasts along an axis, `a_run` and `b_run` within a row.
BINARY = _record(
    "a", "b", "y",
    "N", "D", "H", "W", "run",
    "a_n", "a_d", "a_h", "a_w", "a_run",
    "b_n", "b_d", "b_h", "b_w", "b_run",
    "y_n", "y_d", "y_h", "y_w",
    "chunk", "chunks",
    floats=("lo", "hi", "scale"),
)  # fmt: skip

# y[i*count + j] = x[i]; `run` and `chunk` count floats of `x`.
REPEAT = _record(
    "x", "y", "count",
    "N", "D", "H", "W", "run",
    "x_n", "x_d", "x_h", "x_w",
    "y_n", "y_d", "y_h", "y_w",
    "chunk", "chunks",
)  # fmt: skip

# y = op(x, scale[c], shift[c]): `scale` and `shift` repeat the channels up to `period` floats;
# `run` and `chunk` hold whole pixels.
SCALE_SHIFT = _record(
    "x", "y", "scale", "shift", "period",
    "N", "D", "H", "W", "run",
    "x_n", "x_d", "x_h", "x_w",
    "y_n", "y_d", "y_h", "y_w",
    "chunk", "chunks",
    floats=("lo", "hi"),
)  # fmt: skip

# Windows are clipped at the borders; strides of x are between neighbouring elements.
POOL = _record(
    "x", "y",
    "D", "H", "W", "C", "OD", "OH", "OW",
    "KD", "KH", "KW", "SD", "SH", "SW", "PD", "PH", "PW",
    "x_n", "x_d", "x_h", "x_w",
    "y_n", "y_d", "y_h", "y_w",
)  # fmt: skip

# One axis of images resampled: offsets int64[n_out, n_taps] in bytes, weights as float32.
RESAMPLE = _record(
    "x", "y",
    "H", "x_n", "x_h", "y_n", "y_h",  # the axes in front
    "n_out", "y_o", "o_block", "o_blocks", "n_taps", "offsets", "weights",
    "inner", "chunk", "chunks",  # contiguous floats behind the axis
)  # fmt: skip

# Receptive fields as rows; strides of x are between neighbouring elements.
UNFOLD = _record(
    "x", "y",
    "H", "W", "C", "OH", "OW",
    "KH", "KW", "SH", "SW", "DH", "DW", "PH", "PW",
    "x_n", "x_h", "x_w", "y_w",
)  # fmt: skip

# One vector of C results per image and block of rows; a mean is divided by `count`.
GLOBAL_POOL = _record(
    "x", "y",
    "D", "H", "W", "C",
    "channels_per_task", "channel_blocks", "rows_per_task", "row_blocks",
    "x_n", "x_d", "x_h", "x_w", "y_n", "y_block",
    floats=("count",),
)  # fmt: skip

# Rows of `run` floats that are normalised each by itself.
ROWS = _record(
    "x", "y",
    "N", "D", "H", "W", "run",
    "x_n", "x_d", "x_h", "x_w",
    "y_n", "y_d", "y_h", "y_w",
)  # fmt: skip

# The same with float32[run] scale and offset per row element.
NORM = _record(
    "x", "y", "gamma", "beta",
    "N", "D", "H", "W", "run",
    "x_n", "x_d", "x_h", "x_w",
    "y_n", "y_d", "y_h", "y_w",
    floats=("epsilon", "limit"),
)  # fmt: skip

# Groups of `size` channels that are normalised each by itself.
GROUP_NORM = _record(
    "x", "y", "gamma", "beta", "size",
    "D", "H", "W", "C", "channels_per_task", "channel_blocks",
    "x_n", "x_d", "x_h", "x_w",
    "y_n", "y_d", "y_h", "y_w",
    floats=("epsilon",),
)  # fmt: skip

# y[m, n] = sum over k of a[m, k] * b[k, n] per sample; k is contiguous in a, n in b and y.
DOT = _record(
    "a", "b", "y",
    "M", "K", "N",
    "a_batch", "a_m", "b_batch", "b_k", "y_batch", "y_m",
)  # fmt: skip

# The border of a buffer: `y` is the first element of the halo itself.
HALO = _record(
    "y",
    "border",  # a pixel that is repeated, or 0 for zeros
    "D", "H", "W",  # inside
    "D0", "H0", "W0", "D1", "H1", "W1",  # before and after
    "y_n", "y_d", "y_h", "y_w",
)  # fmt: skip

# Parameters of a row function.
PARAMETERS = _record(floats=("a", "b", "c"))

PEAK = _record("y")

STEP = _record(
    "kernel", "args", "n_tiles",
    "grain",  # tiles that a thread claims at once
    "joined",  # steps, this one the last, that must be finished before a thread goes on
)  # fmt: skip
STEP_NBYTES = STEP.itemsize

RUN = _record(
    "steps", "n_steps",  # table of STEP
    "counters",  # cache lines per step: the next tile of each thread's share, finished tiles
    "scratch", "scratch_nbytes", "n_threads",  # one piece per thread
)  # fmt: skip

# Where helper threads find work. `state` is the address of a word in a cache line of its
# own: the helpers inside, plus CLOSED while no run is open.
DOOR = _record("state", "sequence", "run", "begin", "end", "cpu")  # the leader's CPU

# What a helper remembers: the last run that it helped with; whether it shares the leader's
# CPU, where it would only be in the way.
HELPER = _record("seen", "is_crowded")
