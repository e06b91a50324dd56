"""Products of few rows with filters of 24 bits: they take as long as memory takes.

Rounded filters err less than a long float32 sum that they go into: their error grows with the
root of K and with the largest filter, the sum's with K and with the typical one. Sums are of
integers, up to 2**31 times as large as what comes out: inputs beyond 1e29 may overflow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..graph import Array
from ..kernels.pack import int24_nbytes, pack_int24
from ..lazy import Weight
from ..ops.window import Window
from ..shapes import product
from .ahead import FEW_ROWS
from .buffer import Buffer, stepped
from .epilogue import Epilogue
from .matrix import Matrix, Runs, lower_matrix

if TYPE_CHECKING:
    from .lowering import Lowering


def pays_in_int24(y: Buffer) -> bool:
    """Tell whether `y` has so few pixels per sample that filters take the most time."""
    return product(y.dims[1:-1]) < FEW_ROWS


def lower_int24(
    lowering: Lowering,
    owner: object,
    x: Buffer,
    y: Buffer,
    filters: Weight,
    bias: Array | None,
    window: Window,
    epilogue: Epilogue,
    residual: Buffer | None = None,
) -> None:
    """Append ``y = epilogue(x filters + bias + residual)``.

    Parameters
    ----------
    filters : float32[*1, K, N]
        They are rounded to 24 bits of each column's largest number.
    """
    isa, (K, N) = lowering.isa, filters.shape[-2:]
    w = filters.reshape(K, N)
    empty = lowering.constants.empty
    panels = lowering.constant(owner, "int24", lambda: pack_int24(w, bias, isa, empty))
    matrix = Matrix(panels, K, N, scales=panels + int24_nbytes(K, N, isa))
    strides = stepped(x.strides, window.strides)
    lower_matrix(lowering, x.address, strides, y, Runs((0,), K), matrix, epilogue, residual)
