"""Where Winograd's algorithm does a convolution, and in which tiles of outputs.

A tile of m outputs takes m + r - 1 products along each axis instead of m * r, r being the taps
of the filter (Lavin and Gray, "Fast algorithms for convolutional neural networks", 2016).
"""

from __future__ import annotations

from ..shapes import Pair

# Outputs of a tile along H and W by the taps of a filter; few channels take the first one.
TILES: dict[Pair, tuple[Pair, ...]] = {
    (2, 2): ((3, 3), (5, 5)),
    (3, 3): ((4, 4), (2, 2)),
    (4, 4): ((3, 3),),
    (5, 5): ((2, 2),),
    (1, 3): ((1, 4),),
    (3, 1): ((4, 1),),
    (1, 5): ((1, 2),),
    (1, 7): ((1, 2),),
    (7, 1): ((2, 1),),
}
# Channels times columns that pay for each transformed vector, in tiles of the first size.
# Fitted to measured layers of 1 to 128 channels; all instruction sets are alike, because with
# the width of a vector both change.
TRANSFORM: dict[Pair, int] = {
    (2, 2): 100, (3, 3): 60, (4, 4): 60, (5, 5): 60,
    (1, 3): 120, (3, 1): 120, (1, 5): 160, (1, 7): 160, (7, 1): 160,
}  # fmt: skip
VECTOR, UNIT = 16, 8  # floats of a vector, columns that are multiplied together
MIN_CHANNELS = 32  # with fewer, the steps of small tiles or of few cost what they save
# Fewer tiles per image do not pay for filters of several times the size, which must not grow
# more, unless these are so few floats that they stay in an L2 cache.
MIN_TILES, MIN_NEAR_TILES, MAX_GROWTH, NEAR_FLOATS = 8, 4, 4, 1 << 18
# Of a filter that is dilated along H and W: each of its images is a step of its own.
MAX_RATE = 4


def pays(C: int, OC: int, taps: Pair) -> bool:
    """Tell whether there are tiles, and the products saved take longer than the transforms."""
    columns = -(-OC // UNIT) * UNIT
    vectors = sum(-(-n // VECTOR) for n in (C, OC))
    return taps in TILES and C * columns > TRANSFORM[taps] * vectors


def best_tile(H: int, W: int, C: int, OC: int, taps: Pair, n_images: int = 1) -> Pair | None:
    """Return the tile that takes the fewest products; None where there are too few tiles.

    Parameters
    ----------
    H, W : outputs of each of `n_images` that have the filters in common
    """
    has_channels = min(C, OC) >= MIN_CHANNELS
    products = {}
    for tile in TILES[taps] if has_channels else TILES[taps][:1]:
        n_tiles = n_images * -(-H // tile[0]) * -(-W // tile[1])
        n_points = (tile[0] + taps[0] - 1) * (tile[1] + taps[1] - 1)
        is_near = has_channels and n_points * C * OC <= NEAR_FLOATS
        is_lean = is_near or n_points <= MAX_GROWTH * taps[0] * taps[1]
        if is_lean and n_tiles >= (MIN_NEAR_TILES if is_near else MIN_TILES):
            products[tile] = n_tiles * n_points, n_points
    return min(products, key=products.__getitem__, default=None)


def longest_tile(taps: Pair | None) -> int:
    """Return the most outputs of a tile along an axis."""
    return max(max(tile) for tile in TILES[taps]) if taps in TILES else 1


def kernels(taps: Pair) -> tuple[str, ...]:
    """Return the kernels that filters of these taps may need."""
    sizes = [f"{height}x{width}_{taps[0]}x{taps[1]}" for height, width in TILES[taps]]
    ends = "f32_winograd_input", "f32_winograd_output"
    return ("f32_conv", "f32_winograd", *(f"{end}_{size}" for size in sizes for end in ends))
