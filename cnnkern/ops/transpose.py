"""Transposed convolutions: the gradient of a convolution with respect to its input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..graph import Array, Halo, Op
from ..lazy import Scaled, Weight
from ..shapes import Pair, Shape, dilated_size, product
from . import winograd
from .activation import with_activation
from .common import by_rank, expect_channels, input_channels, known, spatial_rank
from .config import LayerConfig, Weights
from .prelu import Elementwise
from .residual import epilogue
from .sliding import check_strides, take_window
from .window import Window, halo, paddings, taps

if TYPE_CHECKING:
    from ..plan import Buffer, Lowering


@dataclass(frozen=True, eq=False)
class ConvTranspose(Op):
    """Spread every input over a window of the output:
    ``y[n, i*S + k*D - P, oc] += x[n, i, c] * w[k, oc, c]``, then add the bias.

    ``P`` is the padding that a convolution from ``y`` to ``x`` would have.

    Parameters
    ----------
    filter : float32[*K, OC, C]
    bias : float32[OC] or None
    strides, dilation_rate : one int per spatial axis
    padding : "valid" or "same"
    output_padding : elements added to the shortest output per spatial axis, or None
    activation : applied last, or None
    may_transform : Winograd's algorithm, which rounds less well, may be used

    References
    ----------
    https://keras.io/api/layers/convolution_layers/convolution2d_transpose
    """

    keras_classes: ClassVar = by_rank("Conv{}DTranspose")

    filter: Weight
    bias: Array | None = None
    strides: tuple[int, ...] = (1, 1)
    padding: str = "valid"
    dilation_rate: tuple[int, ...] = (1, 1)
    output_padding: tuple[int, ...] | None = None
    activation: Elementwise | None = None
    may_transform: bool = False

    @classmethod
    def from_keras(
        cls, config: LayerConfig, weights: Weights, shapes: Sequence[Shape]
    ) -> Op | tuple[Op, ...]:
        rank = spatial_rank(config.class_name)
        C = input_channels(config, shapes[0], rank)
        OC = config.integer("filters")
        options = take_window(config, rank)
        check_strides(config, options)
        sizes = config.ints("kernel_size", rank)
        filter = weights.defer("kernel", (*sizes, OC, C))
        bias = weights.take("bias", (OC,)) if config.flag("use_bias", True) else None
        config.choice("groups", (1,), 1)  # Keras 2 writes it
        config.ignore_training("kernel", "bias")
        op = cls(filter, bias, **options, output_padding=_output_padding(config, rank))
        op._check_output_padding(config)
        return with_activation(config, op)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Filter taps per spatial axis."""
        return self.filter.shape[:-2]

    @property
    def out_channels(self) -> int:
        return int(self.filter.shape[-2])

    @property
    def channels(self) -> tuple[int, int]:
        """C and OC."""
        OC, C = self.filter.shape[-2:]
        return C, OC

    @property
    def phase_taps(self) -> Pair | None:
        """The most taps along H and W that an output reads; None if it is no image."""
        if len(self.sizes) != 2 or max(self.dilation_rate) > 1:
            return None
        (KH, KW), (SH, SW) = self.sizes, self.strides
        return -(-KH // SH), -(-KW // SW)

    @property
    def has_winograd_tiles(self) -> bool:
        """Whether Winograd's algorithm gives some of the outputs, and faster."""
        taps = self.phase_taps
        return taps is not None and winograd.pays(*self.channels, taps)

    @property
    def size_kernels(self) -> tuple[str, ...]:
        taps = self.phase_taps
        return winograd.kernels(taps) if self.may_transform and taps else ()

    def _check_output_padding(self, config: LayerConfig) -> None:
        """Refuse an output from which no convolution leads back to the input's length."""
        for axis, extra in enumerate(self.output_padding or ()):
            span = dilated_size(self.sizes[axis], self.dilation_rate[axis])
            is_empty = self.padding == "same" and span % 2 == 0 and extra == 0
            if extra >= self.strides[axis] or is_empty:
                expected = "less than strides, and positive for a 'same' filter of even size"
                config.malformed("output_padding", self.output_padding, expected)

    def _output_length(self, axis: int, length: int | None) -> int | None:
        if length is None:
            return None
        stride = self.strides[axis]
        span = dilated_size(self.sizes[axis], self.dilation_rate[axis])
        if self.output_padding is None:
            return length * stride + (max(span - stride, 0) if self.padding == "valid" else 0)
        shortest = span if self.padding == "valid" else span % 2
        return (length - 1) * stride + shortest + self.output_padding[axis]

    def infer_shape(self, *shapes: Shape) -> Shape:
        (x,) = shapes
        *_, OC, C = self.filter.shape
        expect_channels("ConvTranspose", x, len(self.sizes), C)
        lengths = (self._output_length(axis, n) for axis, n in enumerate(x[1:-1]))
        return (x[0], *lengths, OC)

    @np.errstate(all="ignore")
    def reference(self, *inputs: Array) -> Array:
        (x,) = inputs
        y = np.zeros(known(self.infer_shape(x.shape)), np.float32)
        w = np.asarray(self.filter)
        window = (self.sizes, self.strides, self.dilation_rate, self.padding)
        for tap, reads, writes in taps(y.shape[1:-1], *window):
            y[writes] += x[reads] @ w[tap].T
        return epilogue(y, self.bias, (), self.activation)

    def scaled(self, scale: Array, shift: Array) -> ConvTranspose:
        """Return the op whose result is ``y * scale + shift``, float32[OC] each."""
        bias = shift if self.bias is None else self.bias * scale + shift
        return replace(self, filter=Scaled(self.filter, scale[:, None]), bias=bias)

    def window(self, *shapes: tuple[int, ...]) -> Window:
        """Return the window of the convolution from the output to the input."""
        return Window.along(self.strides, self.dilation_rate, self.paddings(*shapes))

    def paddings(self, *shapes: tuple[int, ...]) -> tuple[Pair, ...]:
        """Return (before, after) of that window's spatial axes."""
        lengths = known(self.infer_shape(*shapes))[1:-1]
        return paddings(lengths, self.sizes, self.strides, self.dilation_rate, self.padding)

    def input_halo(self, *shapes: tuple[int, ...]) -> Halo:
        """Return how far the taps reach beyond the input: a dense window per output phase.

        Tiles reach further.
        """
        (x,), y = shapes, known(self.infer_shape(*shapes))
        pads = self.paddings(*shapes)
        wanted = []
        for axis, (n_in, n_out) in enumerate(zip(x[1:-1], y[1:-1], strict=True)):
            stride, (before, _) = self.strides[axis], pads[axis]
            reach = (self.sizes[axis] - 1) * self.dilation_rate[axis]
            lowest, highest = -((reach - before) // stride), (n_out - 1 + before) // stride
            further = winograd.overhang(self.phase_taps or (1, 1)) if self.may_transform else 0
            wanted.append((max(-lowest, 0), max(highest + 1 + further - n_in, 0)))
        return halo(wanted)

    def lower(self, lowering: Lowering, inputs: Sequence[Buffer], output: Buffer) -> None:
        (x,) = inputs
        lowering.conv_transpose(
            self, x, output, self.filter, self.bias, self.window(x.shape), self.activation,
            self.phase_taps if self.may_transform else None,
        )  # fmt: skip

    def flops(self, *shapes: tuple[int, ...]) -> int:
        (x,) = shapes
        return 2 * product(self.filter.shape[:-1]) * product(x)


def _output_padding(config: LayerConfig, rank: int) -> tuple[int, ...] | None:
    if config.options.get("output_padding") is None:
        config.ignore("output_padding")
        return None
    return config.ints("output_padding", rank, least=0)
