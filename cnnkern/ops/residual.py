"""What ops share that add another tensor to their result."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import ShapeError
from ..graph import Array, Op
from ..shapes import Shape
from .common import same_shape
from .prelu import Elementwise


class Residual(Op):
    """An op that may add input 1 to its result, and write over it, before its activation."""

    activation: Elementwise | None
    adds_residual: bool

    @property
    def overwritten_input(self) -> int | None:
        return 1 if self.adds_residual else None

    @property
    def takes_residual(self) -> bool:
        """Whether a pass may let this op add another tensor to its result."""
        return self.activation is None and not self.adds_residual


def expect_residual(name: str, residual: Sequence[Shape], y: Shape) -> None:
    """Raise ShapeError unless the residual, if there is one, has the output's shape."""
    for shape in residual:
        if not same_shape(shape, y):
            raise ShapeError(f"{name}: expected a residual of shape {y}, got {shape}")


def epilogue(
    y: Array, bias: Array | None, residual: Sequence[Array], activation: Elementwise | None
) -> Array:
    """Return ``activation(y + bias + residual)``."""
    for term in (bias, *residual):
        if term is not None:
            y = y + term
    return y if activation is None else activation.reference(y)
