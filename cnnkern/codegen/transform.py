"""The sizes of Winograd's F(m, r), m outputs of a filter of r taps, and where they interpolate.

At 0, infinity and, for every root r, r and -r (Lavin and Gray, "Fast algorithms for
convolutional neural networks", 2016, takes 1 and 2 for F(4, 3)). With 3/4 and 3/2 all squares
are exact in float32 and the error against float64 is less than half as large (Barabasz et
al., "Error analysis and improving the accuracy of Winograd convolution for deep neural
networks", 2018, on the choice of points).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..shapes import Pair


@dataclass(frozen=True)
class Transform:
    """F(tile, taps) along one axis."""

    tile: int  # outputs
    taps: int
    roots: tuple[float, ...]

    @property
    def patch(self) -> int:
        """Inputs, and as many points."""
        return self.tile + self.taps - 1

    @property
    def finite_points(self) -> tuple[float, ...]:
        """The points in the order of V and M, but for infinity, which is the last one."""
        points = (0.0, *(sign * root for root in self.roots for sign in (1, -1)))
        return points[: self.patch - 1]

    def filter_factors(self) -> np.ndarray:
        """Return G, float64[patch, taps]: what each tap adds to the values at the points.

        It is divided by the factors that B leaves out.
        """
        points = np.array(self.finite_points)
        gaps = points[:, None] - points[None, :] + np.eye(len(points))
        G = np.vander(points, self.taps, increasing=True) / gaps.prod(axis=1)[:, None]
        return np.vstack([G, np.eye(self.taps)[-1:]])


@dataclass(frozen=True)
class Size:
    """The tile of outputs, and the filter, of a convolution along H and W."""

    along_h: Transform
    along_w: Transform

    @property
    def axes(self) -> tuple[Transform, Transform]:
        return self.along_h, self.along_w

    @property
    def tile(self) -> Pair:
        """Outputs."""
        return self.along_h.tile, self.along_w.tile

    @property
    def taps(self) -> Pair:
        return self.along_h.taps, self.along_w.taps

    @property
    def n_outputs(self) -> int:
        return self.along_h.tile * self.along_w.tile

    @property
    def n_points(self) -> int:
        return self.along_h.patch * self.along_w.patch

    @property
    def turned(self) -> Size:
        """The same with H and W in each other's place."""
        return Size(self.along_w, self.along_h)

    @property
    def with_kernels(self) -> Size:
        """This size, or for a line along H the one along W, which has kernels."""
        return self.turned if self.along_w is ONE else self

    @property
    def pool(self) -> Pair:
        """The windows, 1 or 2 long, that a pooling has a whole number of in each tile."""
        height, width = (1 + (n % 2 == 0) for n in self.tile)
        return height, width

    def pooled_tile(self, pool: Pair) -> Pair:
        """Return how many windows of a pooling there are in a tile."""
        (height, width), (rows, columns) = self.tile, pool
        return height // rows, width // columns

    @property
    def name(self) -> str:
        """Tile and taps."""
        return "_".join(f"{height}x{width}" for height, width in (self.tile, self.taps))


ONE = Transform(1, 1, ())
F3_2 = Transform(3, 2, (1.0,))
F4_3, F2_3 = Transform(4, 3, (0.75, 1.5)), Transform(2, 3, (1.0,))
F3_4, F2_5 = Transform(3, 4, (0.75, 1.5)), Transform(2, 5, (0.75, 1.5))
EIGHT = (0.5, 1.0, 2.0)  # of these sets the one with the least error
F6_3, F5_4, F4_5 = Transform(6, 3, EIGHT), Transform(5, 4, EIGHT), Transform(4, 5, EIGHT)
# Of images, and of lines, where eight points along one axis round no worse than 6 x 6. The
# error of 8 x 6 is twice theirs, that of F(4x4) at 1 and 2; that of 8 x 8 is four times theirs.
PLANES = (*(Size(axis, axis) for axis in (F3_2, F4_3, F2_3, F3_4, F2_5)), Size(F6_3, F4_3))
LINES = tuple(Size(ONE, axis) for axis in (F4_3, F6_3, F5_4, F4_5))
SIZES = {size.name: size for size in PLANES + LINES}
POOLED_SIZES = {name: size for name, size in SIZES.items() if size.pool != (1, 1)}
