"""Convolutions with a channels-last input: Conv1D, Conv2D, Conv3D."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..codegen.isa import NARROW_COLUMNS
from ..codegen.transform import ONE, Size
from ..graph import Array, Halo, Op, as_array
from ..lazy import Scaled
from ..shapes import Pair, Shape
from . import winograd
from .activation import with_activation
from .common import by_rank, input_channels, known, spatial_rank
from .config import LayerConfig, Weights
from .regions import Axis, Region, cut, reach
from .sliding import SlidingFilter, check_strides, take_window
from .window import MAX_RATE, RowWindow, halo, lift, output_lengths

if TYPE_CHECKING:
    from ..plan import Buffer, Lowering


# Of scaled numbers, which are mostly about one: sums with a large shift in them round worse.
MAX_SHIFT = 4
MAX_SCALE = 1 << 20  # filters stay finite


@dataclass(frozen=True, eq=False)
class Conv(SlidingFilter):
    """Convolve: ``y[n, o, oc] = b[oc] + sum over k, c of x[n, o*S + k*D - P, c] * w[k, c, oc]``

    where ``o``, ``k``, ``S``, ``D`` and ``P`` have one entry per spatial axis. With `groups`
    above 1, output channel ``oc`` reads only the input channels of its own group.

    Parameters
    ----------
    filter : float32[*K, C / groups, OC]
    groups : int
    may_transform : fewer products that round less well may do: Winograd's algorithm for
        filters that it has tiles for, Strassen's for those of one tap
    may_round : for few pixels, a filter of one tap may be rounded to 24 bits
    border : float32[C], of what the padding consists, or None for zeros

    References
    ----------
    https://keras.io/api/layers/convolution_layers
    """

    keras_classes: ClassVar = by_rank("Conv{}D")

    groups: int = 1
    may_transform: bool = False
    may_round: bool = False
    border: Array | None = None

    @classmethod
    def from_keras(
        cls, config: LayerConfig, weights: Weights, shapes: Sequence[Shape]
    ) -> Op | tuple[Op, ...]:
        rank = spatial_rank(config.class_name)
        C = input_channels(config, shapes[0], rank)
        OC = config.integer("filters")
        groups = config.integer("groups", 1)
        if C % groups or OC % groups:
            config.malformed("groups", groups, f"a divisor of {C} inputs and {OC} filters")
        options = take_window(config, rank, *(("causal",) if rank == 1 else ()))
        check_strides(config, options)
        sizes = config.ints("kernel_size", rank)
        take = weights.take if groups == C else weights.defer  # depthwise ones are small
        filter = take("kernel", (*sizes, C // groups, OC))
        bias = weights.take("bias", (OC,)) if config.flag("use_bias", True) else None
        config.ignore_training("kernel", "bias")
        return with_activation(config, cls(filter, bias, groups=groups, **options))

    @property
    def in_channels(self) -> int:
        return int(self.filter.shape[-2]) * self.groups

    @property
    def out_channels(self) -> int:
        return int(self.filter.shape[-1])

    def multiply(self, x: Array, w: Array) -> Array:
        x_groups = np.split(x, self.groups, axis=-1)
        w_groups = np.split(w, self.groups, axis=-1)
        products = [a @ b for a, b in zip(x_groups, w_groups, strict=True)]
        return np.concatenate(products, axis=-1)

    def scaled(self, scale: Array, shift: Array) -> Conv:
        """Return the op whose result is ``y * scale + shift``, float32[OC] each."""
        bias = shift if self.bias is None else self.bias * scale + shift
        return replace(self, filter=Scaled(self.filter, scale), bias=bias)

    @np.errstate(all="ignore")
    def of_scaled(self, scale: Array, shift: Array) -> Conv | None:
        """Return the op that makes of x what this one makes of ``x * scale + shift``.

        None where there is none, or it would round worse: Strassen's algorithm adds channels,
        which must be of one size. Scale and shift are float32[C].
        """
        is_finite = np.isfinite(scale).all() and np.isfinite(shift).all()
        is_small = np.abs(scale).max() <= MAX_SCALE and np.abs(shift).max() <= MAX_SHIFT
        if self.groups > 1 or self.is_pointwise or not is_finite or not is_small:
            return None
        bias, border = self.bias, self.border
        if shift.any():
            taps = tuple(range(len(self.sizes)))
            sums = np.asarray(self.filter).sum(axis=taps, dtype=np.float64)
            bias = as_array(shift @ sums + (0 if bias is None else bias))
        if self.padding != "valid" and (shift.any() or border is not None):
            padding = np.zeros_like(shift) if border is None else border
            border = np.where(padding == shift, np.float32(0), (padding - shift) / scale)
        if not all(np.isfinite(v).all() for v in (bias, border) if v is not None):
            return None
        return replace(
            self, filter=Scaled(self.filter, scale[:, None]), bias=bias, border=border
        )

    @property
    def input_border(self) -> Array | None:
        return self.border

    @np.errstate(all="ignore")
    def reference(self, *inputs: Array) -> Array:
        if self.border is None:
            return super().reference(*inputs)
        x, *residual = inputs
        pads = ((0, 0), *self.paddings(x.shape[1:-1]), (0, 0))
        is_inside = np.pad(np.ones(x.shape, bool), pads)
        padded = np.where(is_inside, np.pad(x, pads), self.border)
        return replace(self, padding="valid", border=None).reference(padded, *residual)

    @property
    def is_pointwise(self) -> bool:
        """Whether each output pixel is a matrix times one input pixel."""
        return set(self.sizes) == {1} and self.groups == 1 and isinstance(self.padding, str)

    @property
    def is_small(self) -> bool:
        """Whether the filter is of one channel or few columns: it has kernels of its own."""
        return self.in_channels == 1 or self.out_channels <= NARROW_COLUMNS

    @property
    def is_depthwise(self) -> bool:
        """Whether each output channel reads one input channel, and each of them once."""
        return self.groups > 1 and self.groups == self.in_channels == self.out_channels

    @property
    def takes_residual(self) -> bool:
        return super().takes_residual and not self.is_depthwise

    @property
    def may_tile(self) -> bool:
        """Whether Winograd's tiles may do it, for images that are large enough."""
        return self.may_transform and not self.is_pointwise

    @property
    def size_kernels(self) -> tuple[str, ...]:
        if self.is_pointwise:
            return matrix_kernels(self.may_transform, self.may_round)
        if not self.may_transform:
            return ()
        return winograd.kernels(self.taps, self.plane_strides)

    @property
    def taps(self) -> Pair:
        """The filter's taps along H and W."""
        _, height, width = lift(self.sizes, 1)
        return height, width

    @property
    def plane_strides(self) -> Pair:
        """The strides along H and W."""
        _, along_h, along_w = lift(self.strides, 1)
        return along_h, along_w

    @property
    def has_winograd_tiles(self) -> bool:
        """Whether Winograd's algorithm does such a convolution, and faster."""
        most = {1: math.inf, 2: MAX_RATE, 3: 1}[len(self.sizes)]
        is_dense = max(self.dilation_rate) <= most
        return (
            self.groups == 1
            and is_dense
            and winograd.pays(*self.channels, self.taps, self.plane_strides)
        )

    @property
    def channels(self) -> Pair:
        """C and OC."""
        return self.in_channels, self.out_channels

    def winograd_size(self, lengths: Sequence[int]) -> Size | None:
        """Return the tiles for an input of these spatial lengths; None for direct sums."""
        if not self.may_tile:
            return None
        outputs = known(output_lengths(tuple(lengths), *self.window))
        # The pixels that a dilated filter meets together are an image, those of a line a row.
        along = zip(outputs, self.dilation_rate, strict=True)
        D, H, W = lift([-(-n // rate) for n, rate in along], 1)
        n_images = self.dilation_rate[0] if len(outputs) == 1 else D
        C, OC = self.in_channels * lift(self.sizes, 1)[0], self.out_channels
        return winograd.best_size(H, W, C, OC, self.taps, self.plane_strides, n_images)

    def regions(self, lengths: Sequence[int]) -> list[list[Region]] | None:
        """Return which taps reach an image of these lengths, where; None for all everywhere.

        A small filter is taken whole.
        """
        if self.is_small or self.groups > 1 or self.border is not None:
            return None
        axes = self._axes(lengths)
        regions = cut(axes, self.filter.size)
        everything = [[Region(range(a.n_out), range(a.size))] for a in axes]
        return None if regions == everything else regions

    def rows(self, shape: tuple[int, ...]) -> RowWindow | None:
        """Return the window of a row of Winograd's tiles along H.

        None where there is none, or filters from afar would be read for each row.
        """
        size = self.winograd_size(shape[1:-1])
        if size is None or size is not size.with_kernels:
            return None
        if winograd.are_far(size, *self.channels, self.taps, self.plane_strides):
            return None
        axis, stride = size.along_h, self.plane_strides[0]
        span = winograd.reach(axis.tile, self.taps[0], stride, axis)
        before, _ = self.paddings(shape[1:-1])[-2]
        return RowWindow(span, axis.tile * stride, before, in_tiles=True)

    def _axes(self, lengths: Sequence[int]) -> list[Axis]:
        n_outs = known(output_lengths(tuple(lengths), *self.window))
        windows = (self.sizes, self.strides, self.dilation_rate, self.paddings(lengths))
        return [Axis(*axis) for axis in zip(lengths, n_outs, *windows, strict=True)]

    def input_halo(self, *shapes: tuple[int, ...]) -> Halo:
        """Return the padding that is read, to whole tiles where Winograd is used."""
        lengths = shapes[0][1:-1]
        pads = self.paddings(lengths)
        size = self.winograd_size(lengths)
        if not size:
            regions = self.regions(lengths)
            return halo(pads if regions is None else reach(self._axes(lengths), regions))
        outputs = known(output_lengths(lengths, *self.window))
        axes = (ONE, *size.axes)[-len(outputs) :]
        spans = [
            winograd.reach(-(-n // rate), n_taps, stride, axis) * rate
            for n, rate, n_taps, stride, axis in zip(
                outputs, self.dilation_rate, self.sizes, self.strides, axes, strict=True
            )
        ]
        sides = zip(pads, lengths, spans, strict=True)
        return halo([(before, max(span - before - n, 0)) for (before, _), n, span in sides])

    def lower(self, lowering: Lowering, inputs: Sequence[Buffer], output: Buffer) -> None:
        x = inputs[0]
        lengths = x.shape[1:-1]
        if self.is_depthwise and not self.adds_residual:
            window = self.window_on(lengths)
            filters = np.asarray(self.filter).reshape(*self.sizes, self.groups, 1)
            lowering.depthwise(self, x, output, filters, self.bias, window, self.activation)
        elif size := self.winograd_size(lengths):
            self.lower_in_tiles(lowering, inputs, output, size)
        else:
            may_halve = self.may_transform and self.is_pointwise
            self.lower_as_matrix(lowering, inputs, output, may_halve)

    def lower_in_tiles(
        self, lowering: Lowering, inputs: Sequence[Buffer], output: Buffer,
        size: Size, pool: Pair = (1, 1),
    ) -> None:  # fmt: skip
        """Append Winograd's algorithm; of each window of `pool` the largest output remains."""
        x, *residual = inputs
        lowering.winograd(
            self, x, output, self.filter, self.bias, self.window_on(x.shape[1:-1]), size,
            self.activation, residual, pool,
        )  # fmt: skip

    def lower_as_matrix(
        self,
        lowering: Lowering,
        inputs: Sequence[Buffer],
        output: Buffer,
        may_halve: bool = False,
    ) -> None:
        """Append a product of receptive fields and filters, maybe in halves."""
        x, *residual = inputs
        lengths = x.shape[1:-1]
        lowering.conv(
            self, x, output, self.filter, self.bias, self.window_on(lengths), self.groups,
            self.activation, residual, may_halve=may_halve, may_round=self.may_round,
            regions=self.regions(lengths),
        )  # fmt: skip


def matrix_kernels(may_halve: bool, may_round: bool) -> tuple[str, ...]:
    """Return the kernels, one of which a matrix product takes by its number of rows."""
    chosen = ("f32_strassen",) * may_halve + ("f32_int24_conv",) * may_round
    return ("f32_conv", *chosen) if chosen else ()
