"""Where Winograd's algorithm does a convolution, and in which tiles of outputs.

A tile of m outputs takes m + r - 1 products along each axis instead of m * r, r being the taps
of the filter (Lavin and Gray, "Fast algorithms for convolutional neural networks", 2016). A
filter of other taps, or of another stride, is cut into parts that have r of them: their
products at a point add up before they are transformed back, as those of channels do.
"""

from __future__ import annotations

from functools import lru_cache

from ..codegen.transform import LINES, PLANES, POOLED_SIZES, Size, Transform
from ..shapes import Pair

# What the transforms of a vector take per point, and how much more per output of a tile, in
# multiply-adds. Fitted to measured layers of 1 to 512 channels; all instruction sets are alike,
# because with the width of a vector both change.
TRANSFORM, OUTPUT = 130, 3
VECTOR, UNIT = 16, 8  # floats of a vector, columns that are multiplied together
# Filters of more floats stay in no L2 cache, or in no L3 cache. They arrive in the time in
# which so many pixels are multiplied by them, and once more per block of tiles, whose V and M
# fill the cache: tiles of so many floats wait for them as long as they compute.
NEAR_FLOATS, FAR_FLOATS, ARRIVAL = 1 << 18, 3 << 20, 3
BLOCK_FLOATS, FAR_BLOCK_FLOATS = 80_000, 120_000
MIN_GAIN = 1.05  # less is not worth the rounding, nor the memory of larger filters
# Tiles of more points round worse: so much they must gain over those of fewer.
MOST_POINTS, LARGE_TILE_GAIN = 36, 1.05
MAX_FLOATS = 1 << 26  # of filters, 256 MiB: more is worth no gain
# Tiles per image; fewer leave rows of a register tile idle. If filters are near, fewer will do
# where they have enough channels.
MIN_TILES, MIN_NEAR_TILES, MIN_CHANNELS = 8, 4, 32
TIE = 0.1  # of a part: the sums of each tile are transformed, too
ENDLESS = 1 << 12  # outputs along an axis


def cut_taps(n_taps: int, stride: int, most: int) -> list[range]:
    """Cut the taps along an axis into ranges of at most `most`, a stride from each other.

    Those of a range meet pixels that one output after the other reads.
    """
    starts = [
        start for phase in range(min(stride, n_taps))
        for start in range(phase, n_taps, stride * most)
    ]  # fmt: skip
    return [range(start, min(start + stride * most, n_taps), stride) for start in starts]


def reach(n_outputs: int, n_taps: int, stride: int, axis: Transform) -> int:
    """Return the length of the input that whole tiles of outputs read along an axis."""
    last = max(part.start for part in cut_taps(n_taps, stride, axis.taps))
    n_whole = -(-n_outputs // axis.tile) * axis.tile
    return last + (n_whole + axis.taps - 2) * stride + 1


def overhang(taps: Pair) -> int:
    """Return how far whole tiles of any size read beyond those of one output, stride 1."""
    ends = [
        reach(1, n_taps, 1, axis) - n_taps
        for size in sizes(taps) for n_taps, axis in zip(taps, size.axes, strict=True)
    ]  # fmt: skip
    return max(ends, default=0)


@lru_cache(maxsize=1024)
def sizes(taps: Pair, strides: Pair = (1, 1)) -> tuple[Size, ...]:
    """Return the sizes that no other one beats in both products and size of filters."""
    every = PLANES if min(taps) > 1 else LINES
    if taps[1] == 1:
        every = tuple(size.turned for size in LINES) if taps[0] > 1 else ()
    best: dict[Size, tuple[float, int]] = {}
    for size in every:
        count = n_parts(taps, strides, size)
        cost = size.n_points * (count + TIE) / size.n_outputs, size.n_points * count
        if not any(o[0] <= cost[0] and o[1] <= cost[1] for o in best.values()):
            best = {s: o for s, o in best.items() if o[0] < cost[0] or o[1] < cost[1]}
            best[size] = cost
    return tuple(best)


def n_parts(taps: Pair, strides: Pair, size: Size) -> int:
    """Return the parts of a filter."""
    along_h, along_w = (
        len(cut_taps(n, stride, axis.taps))
        for n, stride, axis in zip(taps, strides, size.axes, strict=True)
    )
    return along_h * along_w


def pays(C: int, OC: int, taps: Pair, strides: Pair = (1, 1)) -> bool:
    """Tell whether there are tiles, and the products saved take longer than the transforms."""
    return best_size(ENDLESS, ENDLESS, C, OC, taps, strides) is not None


def best_size(
    H: int, W: int, C: int, OC: int, taps: Pair, strides: Pair = (1, 1), n_images: int = 1
) -> Size | None:
    """Return the size of tiles that takes the least time; None for a direct sum.

    Parameters
    ----------
    H, W : outputs of each of `n_images` that have the filters in common
    """
    best = None
    pixels, n_taps = n_images * H * W, taps[0] * taps[1]
    least = (pixels + _arrival(n_taps * C * OC)) * n_taps * C * _columns(OC) / MIN_GAIN
    for size in sizes(taps, strides):
        height, width = size.tile
        n_tiles = n_images * -(-H // height) * -(-W // width)
        count = n_parts(taps, strides, size)
        n_floats = size.n_points * count * C * OC
        is_near = not _arrival(n_floats) and min(C, OC) >= MIN_CHANNELS
        is_enough = n_tiles >= (MIN_NEAR_TILES if is_near else MIN_TILES)
        work = _work(size, n_tiles, count, C, OC)
        gain = LARGE_TILE_GAIN if size.n_points > MOST_POINTS else 1
        if is_enough and n_floats <= MAX_FLOATS and work * gain <= least:
            best, least = size, work
    return best


def are_far(size: Size, C: int, OC: int, taps: Pair, strides: Pair = (1, 1)) -> bool:
    """Tell whether the filters at all points stay in no L2 cache."""
    return _arrival(size.n_points * n_parts(taps, strides, size) * C * OC) > 0


def kernels(taps: Pair, strides: Pair = (1, 1)) -> tuple[str, ...]:
    """Return the kernels that filters of these taps may need."""
    ends = "f32_winograd_input", "f32_winograd_output"
    names = (size.with_kernels.name for size in sizes(taps, strides))
    return ("f32_conv", "f32_winograd", *(f"{end}_{name}" for name in names for end in ends))


def pooled_kernels(taps: Pair, strides: Pair = (1, 1)) -> tuple[str, ...]:
    """Return the kernels that they may need besides where a pooling follows."""
    names = (size.with_kernels.name for size in sizes(taps, strides))
    return tuple(f"f32_winograd_pooled_{name}" for name in names if name in POOLED_SIZES)


def _work(size: Size, n_tiles: int, count: int, C: int, OC: int) -> float:
    """Return the multiply-adds that a convolution of `count` parts takes the time of."""
    K = count * C
    tiles: float = n_tiles
    n_floats = size.n_points * K * OC
    if arrival := _arrival(n_floats):
        block = BLOCK_FLOATS if n_floats <= FAR_FLOATS else FAR_BLOCK_FLOATS
        tiles += arrival + n_tiles * size.n_points * (K + OC) / block
    vectors = count * -(-C // VECTOR) + -(-OC // VECTOR)
    transform = TRANSFORM + OUTPUT * size.n_outputs
    return size.n_points * (tiles * K * _columns(OC) + n_tiles * transform * vectors)


def _arrival(n_floats: int) -> int:
    """Return the pixels that are multiplied while filters arrive."""
    return 0 if n_floats <= NEAR_FLOATS else ARRIVAL


def _columns(OC: int) -> int:
    return -(-OC // UNIT) * UNIT
