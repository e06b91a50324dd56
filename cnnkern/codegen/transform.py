"""The sizes of Winograd's F(m x m, 3x3), and the points at which they interpolate.

0, infinity and, for every root r, r and -r (Lavin and Gray, "Fast algorithms for
convolutional neural networks", 2016, takes 1 and 2 for m = 4). With 3/4 and 3/2 all squares
are exact in float32 and the error against float64 is less than half as large (Barabasz et
al., "Error analysis and improving the accuracy of Winograd convolution for deep neural
networks", 2018, on the choice of points).
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Transform:
    """One size of tile."""

    tile: int  # outputs per axis
    roots: tuple[float, ...]

    @property
    def patch(self) -> int:
        """Inputs per axis."""
        return self.tile + 2

    @property
    def finite_points(self) -> tuple[float, ...]:
        """The points in the order of V and M, but for infinity, which is the last one."""
        return (0.0, *(sign * root for root in self.roots for sign in (1, -1)))

    def filter_factors(self) -> np.ndarray:
        """Return G, float64[patch, 3]: a filter's value at every point.

        It is divided by the factors that B leaves out.
        """
        points = np.array(self.finite_points)
        gaps = points[:, None] - points[None, :] + np.eye(len(points))
        G = np.vander(points, 3, increasing=True) / gaps.prod(axis=1)[:, None]
        return np.vstack([G, [0.0, 0.0, 1.0]])


F4X4 = Transform(4, (0.75, 1.5))
F2X2 = Transform(2, (1.0,))
TRANSFORMS = {size.tile: size for size in (F4X4, F2X2)}
