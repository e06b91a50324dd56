"""Ops that do the work of two, so that the tensor between them need not be stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..codegen.transform import Size
from ..errors import ShapeError
from ..graph import Array, Halo, Op
from ..shapes import Shape, product
from . import winograd
from .common import known
from .config import LayerConfig, Weights
from .conv import Conv
from .depthwise import DepthwiseConv
from .pool import MaxPool, Pool
from .window import RowWindow, lift

if TYPE_CHECKING:
    from ..plan import Buffer, Lowering


class Pair(Op):
    """What a pass makes of two ops; no file holds it."""

    @classmethod
    def from_keras(cls, config: LayerConfig, weights: Weights, shapes: Sequence[Shape]) -> Op:
        config.unsupported("class_name", config.class_name, "layers that Keras has")


@dataclass(frozen=True, eq=False)
class ConvAndReader(Pair):
    """Convolve, then slide other windows over the result: ``y = reader(conv(x))``.

    Parameters
    ----------
    conv : Conv of one group that adds no residual
    reader : DepthwiseConv with one filter per channel, pooling, or what takes Winograd's tiles
    """

    conv: Conv
    reader: DepthwiseConv | Pool | Conv | PooledConv

    def infer_shape(self, *shapes: Shape) -> Shape:
        return self.reader.infer_shape(self.conv.infer_shape(*shapes))

    def reference(self, *inputs: Array) -> Array:
        return self.reader.reference(self.conv.reference(*inputs))

    def input_halo(self, *shapes: tuple[int, ...]) -> Halo:
        return self.conv.input_halo(*shapes)

    @property
    def input_border(self) -> Array | None:
        return self.conv.input_border

    def flops(self, *shapes: tuple[int, ...]) -> int:
        middle = known(self.conv.infer_shape(*shapes))
        return self.conv.flops(*shapes) + self.reader.flops(middle)

    @property
    def n_params(self) -> int:
        return self.conv.n_params + self.reader.n_params


class ConvInBands(ConvAndReader):
    """Band by band of rows, where that pays."""

    @property
    def size_kernels(self) -> tuple[str, ...]:
        return ("f32_bands", "f32_halo", *self.conv.size_kernels, *self.reader.size_kernels)

    def lower(self, lowering: Lowering, inputs: Sequence[Buffer], output: Buffer) -> None:
        (x,) = inputs
        shape = known(self.conv.infer_shape(x.shape))
        halo, rows = self.reader.input_halo(shape), self.reader.rows(shape)
        middle, K = lowering.band(shape, halo), product(self.conv.filter.shape[:-1])
        if rows is None or not lowering.takes_bands(middle, K, rows):
            middle = lowering.bordered(shape, halo)
            self.conv.lower(lowering, inputs, middle)
            self.reader.lower(lowering, [middle], output)
            return
        self.conv.lower_as_matrix(lowering, inputs, middle)
        self.reader.lower(lowering, [middle], output)
        lowering.join_in_bands(middle, rows)


class PooledConv(ConvAndReader):
    """In Winograd's tiles, where each has a whole number of the windows of a max-pooling."""

    reader: MaxPool

    @staticmethod
    def joins(conv: Conv, reader: MaxPool) -> bool:
        """Tell whether that may be, for images of some sizes."""
        activation = conv.activation
        in_registers = (
            activation is None
            or activation.bounds is not None
            or activation.slopes(conv.out_channels) is not None
        )
        reads_once = max(conv.dilation_rate) == 1 and reader.pool_size == reader.strides
        sizes = winograd.sizes(conv.taps, conv.plane_strides) if conv.may_tile else ()
        return in_registers and reads_once and any(_divides(reader, size) for size in sizes)

    @property
    def size_kernels(self) -> tuple[str, ...]:
        pooled = winograd.pooled_kernels(self.conv.taps, self.conv.plane_strides)
        return (*self.conv.size_kernels, *pooled, self.reader.kernel)

    def lower(self, lowering: Lowering, inputs: Sequence[Buffer], output: Buffer) -> None:
        (x,) = inputs
        if size := self._size(x.shape):
            self.conv.lower_in_tiles(lowering, inputs, output, size, size.pool)
            return
        middle = lowering.temporary(known(self.conv.infer_shape(x.shape)))
        self.conv.lower(lowering, inputs, middle)
        self.reader.lower(lowering, [middle], output)

    def rows(self, shape: tuple[int, ...]) -> RowWindow | None:
        """Return the window of a row of tiles along H; None where there is none."""
        return self.conv.rows(shape) if self._size(shape) else None

    def _size(self, shape: tuple[int, ...]) -> Size | None:
        """Return the tiles that an image of this shape takes; None for two steps."""
        size = self.conv.winograd_size(shape[1:-1])
        lengths = known(self.conv.infer_shape(shape))[1:-1]
        is_padded = any(map(any, self.reader.paddings(lengths)))
        return size if size and _divides(self.reader, size) and not is_padded else None


def _divides(pool: MaxPool, size: Size) -> bool:
    """Tell whether the windows of a pooling are those that divide a tile."""
    return lift(pool.pool_size, 1) == (1, *size.pool)


@dataclass(frozen=True, eq=False)
class GatedConv(Pair):
    """Scale the channels of each image, then mix them pixel by pixel: ``y = conv(x * gate)``.

    So ends a squeeze-and-excitation block (Hu et al., "Squeeze-and-excitation networks",
    2018). Inputs are ``x``, ``gate: float32[N, 1, .., C]`` and the residual, if there is one.

    Parameters
    ----------
    conv : Conv of one tap and one group
    """

    conv: Conv

    def infer_shape(self, *shapes: Shape) -> Shape:
        x, gate, *residual = shapes
        if not is_gate(gate, x):
            raise ShapeError(f"GatedConv: expected one pixel of {x[-1]} factors, got {gate}")
        return self.conv.infer_shape(x, *residual)

    @np.errstate(all="ignore")
    def reference(self, *inputs: Array) -> Array:
        x, gate, *residual = inputs
        return self.conv.reference(x * gate, *residual)

    @property
    def overwritten_input(self) -> int | None:
        return 2 if self.conv.adds_residual else None

    def lower(self, lowering: Lowering, inputs: Sequence[Buffer], output: Buffer) -> None:
        x, gate, *residual = inputs
        conv = self.conv
        lowering.conv(
            self, x, output, conv.filter, conv.bias, conv.window_on(x.shape[1:-1]),
            activation=conv.activation, residual=residual, gate=gate,
        )  # fmt: skip

    def flops(self, *shapes: tuple[int, ...]) -> int:
        x, _, *residual = shapes
        return self.conv.flops(x, *residual)

    @property
    def n_params(self) -> int:
        return self.conv.n_params


def is_gate(gate: Shape, x: Shape) -> bool:
    """Tell whether a tensor has one factor per image and channel of `x`."""
    return len(gate) == len(x) > 2 and gate == (x[0], *[1] * (len(x) - 2), x[-1])
