"""Winograd convolutions: when they pay, how they are blocked, how filters are prepared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from itertools import product as combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from ..codegen.isa import Isa
from ..codegen.transform import Size
from ..graph import Array
from ..kernels.memory import ALIGNMENT, Empty, aligned_empty, whole_lines
from ..kernels.pack import packed_floats, panel_floats, split_panels, write_rows
from ..lazy import Weight
from ..ops.window import Triple, Window, lift
from ..ops.winograd import cut_taps
from ..shapes import Pair, product
from .ahead import most_nbytes
from .buffer import (
    ABSOLUTE,
    FLOAT_NBYTES,
    Buffer,
    Strides,
    residual_fields,
    stepped,
    stride_fields,
)
from .epilogue import INFINITY, Epilogue
from .matrix import Matrix, Runs, lower_matrix

if TYPE_CHECKING:
    from .lowering import Lowering

Part = tuple[range, ...]  # taps along D, H and W


@dataclass(frozen=True)
class Tiles:
    """What all images of a convolution have in common."""

    size: Size
    panels: int  # address of the filters at each point
    touch: bool  # whether the pixels of a row of x touch in memory
    pool: Pair = (1, 1)  # of each such window the largest output is stored
    in_band: bool = False  # whether x is a band, which has all rows under a row of tiles
    is_far: bool = False  # whether y is in no L2 cache when it is written

    @property
    def stored(self) -> Pair:
        """Rows and columns that are stored of a tile."""
        return self.size.pooled_tile(self.pool)

    @property
    def to_points(self) -> str:
        """The kernel that makes V."""
        return f"f32_winograd_input_{self.size.name}"

    @property
    def from_points(self) -> str:
        """The kernel that makes outputs of M."""
        end = "output" if self.pool == (1, 1) else "pooled"
        return f"f32_winograd_{end}_{self.size.name}"


# V and M of a block: most of a 1 MiB L2, the rest for the panels that stream through.
BLOCK_NBYTES = 704 * 1024
# Filters beyond the first leave the L2 cache before the next block reads them again, beyond
# the second the L3 cache, too. From there they arrive in time for register tiles, of which so
# much is filled.
L2_NBYTES, L3_NBYTES, FILLED = 1 << 20, 12 << 20, 0.9
FAR_NBYTES = 512 << 10  # outputs in no L2 cache when they are written again
CHUNK_NBYTES = 4 << 20  # V and M of a chunk: they pass through the L3 cache
MIN_TASKS = 8  # enough for several threads to end together
# Filter elements transformed at a time: their 36 points stay in L2, and the product is small
# enough that BLAS does not wake its threads.
ELEMENTS_PER_BLOCK = 768
READ_NBYTES = 1 << 20  # of filters that are read at a time


def lower_winograd(
    lowering: Lowering,
    owner: object,
    x: Buffer,
    y: Buffer,
    filters: Weight,
    bias: Array | None,
    window: Window,
    size: Size,
    epilogue: Epilogue,
    residual: Buffer | None = None,
    name: str = "",
    pool: Pair = (1, 1),
) -> None:
    """Append ``y = pooled(epilogue(conv(x, filters) + bias + residual))``.

    Parameters
    ----------
    filters : float32[*K, C, OC]
    window : Window
        The halo of x covers whole tiles.
    name : tells these filters from others of the owner
    pool : of each such window the largest result is kept; (1, 1) or, where the epilogue is
        done in registers and there is no residual, `size.pool`
    """
    *taps, C, OC = filters.shape
    isa = lowering.isa
    lengths, strides, rates = lift(taps, 1), window.strides, window.dilation
    x = Buffer(y.dims, x.before(window.before), x.strides)  # what each output reads first
    if size is not size.with_kernels:
        size, x, y, pool = size.with_kernels, _turned(x), _turned(y), pool[::-1]
        residual = residual and _turned(residual)
        lengths, strides, rates = ((d, w, h) for d, h, w in (lengths, strides, rates))
    parts = filter_parts(lengths, strides, size)
    K = len(parts) * C
    CP, OCP = (-(-n // isa.lanes) * isa.lanes for n in (C, OC))
    KP = K - C + CP  # what the last vector of a part has too much, the next part replaces
    panels = lowering.constant(
        owner, f"points {size.name}{name}",
        lambda: transform_filters(
            filters.reshape(-1, OC), lengths, parts, size, isa, lowering.constants.empty
        ),
    )  # fmt: skip
    common: dict[str, Any] = {
        "bias": lowering.constant(owner, "bias", lambda: _padded_bias(bias, OCP)),
        "C": C, "OC": OC, "v_tile": FLOAT_NBYTES * KP, "m_tile": FLOAT_NBYTES * OCP,
        "runs": lowering.table((0,)), "K": K,
        "n_parts": len(parts), "v_part": FLOAT_NBYTES * C,
        **epilogue.fields,
    }  # fmt: skip
    touch = x.strides[3] == FLOAT_NBYTES * C and rates[2] == 1
    is_far = y.nbytes >= FAR_NBYTES and y.strides[3] == FLOAT_NBYTES * OC
    in_band = x.storage == ABSOLUTE  # it has no storage
    tiles = Tiles(size, panels, touch, pool, in_band, is_far)
    added = [None] if residual is None else _undilated(residual, rates)
    for x_part, y_part, r_part in zip(_undilated(x, rates), _undilated(y, rates), cycle(added)):
        offsets = (_offset(part, x_part.strides) for part in parts)
        fields = {
            "x": x_part.address, "parts": lowering.table(tuple(offsets)),
            **stride_fields("x", stepped(x_part.strides, strides)),
            "y": y_part.address, **stride_fields("y", y_part.strides),
            **residual_fields(r_part), **common,
        }  # fmt: skip
        flops = 2 * product(filters.shape) * product(y_part.dims[:-1]) * product(pool)
        _lower_image(lowering, tiles, y_part, fields, flops)


def _lower_image(
    lowering: Lowering, tiles: Tiles, y: Buffer, fields: dict[str, Any], flops: int
) -> None:
    """Append what takes all tiles of y through all stages."""
    batch, OD, OH, OW, _ = y.dims
    TH, TW = (-(-n // along) for n, along in zip((OH, OW), tiles.stored, strict=True))
    n_tiles = batch * OD * TH * TW
    n_points = tiles.size.n_points
    tile_nbytes = n_points * (fields["v_tile"] + fields["m_tile"])
    blocks, unit = (
        _split_rows(n_tiles, TW, tile_nbytes, lowering.isa)
        if tiles.in_band
        else _split(n_tiles, tile_nbytes, lowering.isa)
    )
    rows, columns = tiles.size.tile
    y_rows, y_columns = tiles.stored
    fields |= {
        "OD": OD, "OH": OH, "OW": OW, "TH": TH, "TW": TW,
        "x_row": rows * fields["x_h"], "x_column": columns * fields["x_w"],
        "y_row": y_rows * fields["y_h"], "y_column": y_columns * fields["y_w"],
        "patches": n_tiles, "blocks": blocks, "unit": unit,
    }  # fmt: skip
    # With one block each, two threads read all filters twice, which steps read once.
    is_filled = n_tiles >= FILLED * lowering.isa.heights[0] * blocks
    most = L3_NBYTES if blocks > 2 and is_filled else L2_NBYTES
    nbytes = n_points * fields["v_tile"] * fields["m_tile"] // FLOAT_NBYTES
    lower = _lower_blocks if tiles.in_band or nbytes <= most else _lower_steps
    lower(lowering, tiles, fields, flops)


def filter_parts(lengths: Triple, strides: Triple, size: Size) -> list[Part]:
    """Cut a filter into parts that fit the tiles; along D each has one tap."""
    most = (1, *(axis.taps for axis in size.axes))
    return list(combinations(*map(cut_taps, lengths, strides, most)))


def _offset(part: Part, strides: Strides) -> int:
    """Return the bytes from the first pixel under a filter to the first one under a part."""
    return sum(taps.start * s for taps, s in zip(part, strides[1:], strict=True))


def _turned(image: Buffer) -> Buffer:
    """Return an image with H and W in each other's place."""
    (N, D, H, W, C), (n, d, h, w) = image.dims, image.strides
    return Buffer((N, D, W, H, C), image.address, (n, d, w, h))


def _undilated(image: Buffer, rates: Triple) -> list[Buffer]:
    """Return the images of pixels that a dilated filter meets together.

    Those of a line are the rows of one image, or of two where they differ in length.
    """
    batch, D, H, W, channels = image.dims
    s_n, s_d, _, s_w = image.strides
    rate = rates[2]
    if D == H == 1 < rate:
        short, n_long = divmod(W, rate)
        rows = [(0, n_long, short + 1), (n_long, rate - n_long, short)]
        return [
            Buffer(
                (batch, 1, n_rows, length, channels),
                image.address + first * s_w,
                (s_n, s_d, s_w, rate * s_w),
            )
            for first, n_rows, length in rows
            if n_rows and length
        ]
    return [image.every(rates, first) for first in np.ndindex(rates)]


def _lower_blocks(lowering: Lowering, tiles: Tiles, fields: dict[str, Any], flops: int) -> None:
    """Append one step that takes block after block through all stages."""
    n_tiles, blocks, K, OC = (fields[key] for key in ("patches", "blocks", "K", "OC"))
    isa, n_points = lowering.isa, tiles.size.n_points
    MR = isa.heights[0]
    most = -(-n_tiles // blocks) + fields["unit"] - 1
    table_nbytes = whole_lines(8 * (most + MR))
    v_point, m_point = (_odd_lines(most * fields[key]) for key in ("v_tile", "m_tile"))
    lowering.scratch(2 * table_nbytes + n_points * (v_point + m_point))
    lowering.flops = flops
    lowering.call(
        "f32_winograd",
        blocks if n_tiles else 0,
        to_points=lowering.kernel_address(tiles.to_points),
        from_points=lowering.kernel_address(tiles.from_points),
        n_points=n_points, panels=tiles.panels,
        panel_nbytes=FLOAT_NBYTES * panel_floats(K, isa),
        point_nbytes=FLOAT_NBYTES * packed_floats(K, OC, isa),
        table_nbytes=table_nbytes,
        v_point=v_point, m_point=m_point, height=MR,
        lowest=-INFINITY, highest=INFINITY,
        **_requests(tiles, fields, isa), **fields,
    )  # fmt: skip


def _requests(tiles: Tiles, fields: dict[str, Any], isa: Isa) -> dict[str, int]:
    """Return which products ask for outputs and the next patches, and each for how much.

    They are the last ones, as few as have the time: what they ask for has to stay in the cache.
    """
    n_tiles = -(-fields["patches"] // fields["blocks"])
    n_panels = -(-fields["OC"] // isa.tile_columns)
    most = n_panels * most_nbytes(-(-n_tiles // isa.heights[0]), fields["K"], fields["K"], isa)
    has_next = fields["blocks"] > 2 and tiles.touch and not tiles.in_band
    if not most or not (has_next or tiles.is_far):
        return {"row_parts": 1}
    y_rows, y_nbytes = tiles.stored[0], n_tiles * fields["y_column"]
    x_rows, x_nbytes = tiles.size.along_h.patch, n_tiles * fields["x_column"]
    if not tiles.is_far:
        y_rows = y_nbytes = 0
    if not has_next:
        x_rows = x_nbytes = 0
    rows, n_points = y_rows + x_rows, tiles.size.n_points
    points = min(-(-max(y_nbytes, x_nbytes) // most), n_points // rows)
    parts = n_panels * points
    return {
        "silent": (n_points - rows * points) * n_panels, "y_rows": y_rows, "row_parts": parts,
        "y_part_nbytes": whole_lines(-(-y_nbytes // parts)),
        "part_nbytes": whole_lines(-(-x_nbytes // parts)),
    }  # fmt: skip


def _lower_steps(lowering: Lowering, tiles: Tiles, fields: dict[str, Any], flops: int) -> None:
    """Append a step per stage, chunk by chunk of tiles, with V and M in the arena.

    Threads share out tiles when they write V and read M, and points in between. A core writes
    fast what it read last, and slowly what another one has read since: V and M change places.
    """
    n_tiles, K, OC = (fields[key] for key in ("patches", "K", "OC"))
    n_points = tiles.size.n_points
    tile_nbytes = n_points * (fields["v_tile"] + fields["m_tile"])
    n_chunks = max(-(-n_tiles * tile_nbytes // CHUNK_NBYTES), 1)
    chunk = max(-(-n_tiles // n_chunks), 1)
    places = [
        lowering.temporary((n_points, _odd_lines(chunk * fields[key]) // FLOAT_NBYTES))
        for key in ("v_tile", "m_tile")
    ]
    are_alike = places[0].nbytes == places[1].nbytes
    for first in range(0, n_tiles, chunk):
        v, m = reversed(places) if are_alike and _chunks_so_far(lowering) % 2 else places
        fields |= {
            "v": v.address, "v_point": v.strides[0],
            "m": m.address, "m_point": m.strides[0],
        }  # fmt: skip
        matrix = Matrix(tiles.panels, K, OC, n_points, fields["v_point"], fields["m_point"])
        count = min(chunk, n_tiles - first)
        tasks = min(count, MIN_TASKS)
        fields |= {"first": first, "patches": count, "blocks": tasks, "unit": 1}
        lowering.call(tiles.to_points, tasks, **fields)
        rows = Buffer((1, count, OC), m.address, (0, 0, 0, fields["m_tile"]))
        lower_matrix(
            lowering, v.address, (0, 0, 0, fields["v_tile"]), rows, Runs((0,), K), matrix,
            flops=flops * count // n_tiles,
        )  # fmt: skip
        lowering.call(tiles.from_points, tasks, **fields)


def _chunks_so_far(lowering: Lowering) -> int:
    """Return how often V was written."""
    return sum(step.kernel.startswith("f32_winograd_input") for step in lowering.steps)


def _odd_lines(nbytes: int) -> int:
    """Return the bytes from one point to the next: those of a tile meet in no set of L1."""
    return whole_lines(nbytes) | ALIGNMENT


def _split(n_tiles: int, tile_nbytes: int, isa: Isa) -> Pair:
    """Return the blocks of about equal size, as few as their V and M have room in the cache.

    No block has fewer tiles than keep a core busy: it would take no less time. The second
    number is the tiles that all blocks but the last have a whole multiple of: those of a
    register tile where each block has one.
    """
    MR = isa.heights[0]
    fitting = max(BLOCK_NBYTES // tile_nbytes, MR)
    if fitting >= 2 * MR and n_tiles > MIN_TASKS * fitting:
        fitting -= fitting % MR  # of many blocks it does not matter that they are a few more
    blocks = 2 * max(-(-n_tiles // (2 * fitting)), 1)  # two threads end together
    blocks = max(min(blocks, -(-n_tiles // isa.least_rows)), 1)
    return blocks, MR if n_tiles >= MR * blocks else 1


def _split_rows(n_tiles: int, TW: int, tile_nbytes: int, isa: Isa) -> Pair:
    """Return the blocks and their unit where none has tiles of two rows, of TW tiles each."""
    fitting = max(BLOCK_NBYTES // tile_nbytes, isa.heights[0])
    return n_tiles // TW * -(-TW // fitting), 1


def transform_filters(
    filters: Weight,
    lengths: Triple,
    parts: Sequence[Part],
    size: Size,
    isa: Isa,
    empty: Empty = aligned_empty,
) -> np.ndarray:
    """Return G w G' in float64, rounded once and packed into panels per point.

    The parts of ``filters[KD * KH * KW * C, OC]`` stand beside each other like channels.
    """
    OC, C = filters.shape[1], filters.shape[0] // product(lengths)
    K = len(parts) * C
    along_h, along_w = (axis.filter_factors() for axis in size.axes)
    nbytes = size.n_points * FLOAT_NBYTES * packed_floats(K, OC, isa)
    packed = empty(nbytes).view(np.float32).reshape(size.n_points, -1)
    panels = split_panels(packed, K, OC, isa)
    write_rows(panels, np.zeros((size.n_points, 1, OC), np.float32), 0)
    step = max(ELEMENTS_PER_BLOCK // max(OC, 1), 1)
    for begin, block in _channel_blocks(filters, lengths):
        for first, part in zip(range(1 + begin, K + 1, C), parts, strict=True):
            _, *counts = map(len, part)
            factors = np.kron(along_h[:, : counts[0]], along_w[:, : counts[1]])
            taps = block[tuple(slice(t.start, t.stop, t.step) for t in part)]
            for c in range(0, block.shape[3], step):
                some = taps[..., c : c + step, :].astype(np.float64)
                points = factors @ some.reshape(factors.shape[1], -1)
                write_rows(panels, points.reshape(size.n_points, -1, OC), first + c)
    return packed


def _channel_blocks(filters: Weight, lengths: Triple) -> Iterator[tuple[int, np.ndarray]]:
    """Yield some channels of all taps, float32[KD, KH, KW, some, OC], and the first one.

    Parameters
    ----------
    filters : float32[KD * KH * KW * C, OC]
        They are read so that few of them are in memory at a time.
    """
    n_taps, (n_rows, OC) = product(lengths), filters.shape
    C = n_rows // n_taps
    at_once = max(READ_NBYTES // (FLOAT_NBYTES * n_taps * max(OC, 1)), 1)
    for begin in range(0, C, at_once):
        end = min(begin + at_once, C)
        rows = [filters[t * C + begin : t * C + end] for t in range(n_taps)]
        yield begin, np.reshape(rows, (*lengths, end - begin, OC))


def _padded_bias(bias: Array | None, length: int) -> np.ndarray:
    padded = np.zeros(length, np.float32)
    if bias is not None:
        padded[: bias.size] = bias
    return padded
