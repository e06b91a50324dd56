"""What an op's `lower` may use: kernel calls, constants, scratch memory, epilogues."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..codegen.isa import Isa, best
from ..codegen.transform import Size
from ..errors import PlanError
from ..graph import NO_HALO, Array, Halo
from ..kernels import KERNELS, address
from ..lazy import Weight
from ..ops.activation import Activation
from ..ops.prelu import Elementwise, PReLU
from ..ops.regions import Region
from ..ops.resize import Taps
from ..ops.window import RowWindow, Window
from ..shapes import Pair, product
from .bands import join_in_bands, pays_in_bands
from .buffer import ABSOLUTE, Address, Buffer
from .call import MAX_CLAIMS, HostCall, Step
from .constants import Constants
from .conv import lower_conv
from .depthwise import lower_depthwise
from .dot import lower_dot
from .elementwise import (
    constant,
    lower_affine,
    lower_binary,
    lower_border,
    lower_channel_repeats,
    lower_map,
    lower_standardize,
)
from .epilogue import Epilogue
from .int24 import lower_int24, pays_in_int24
from .move import lower_move
from .pool import lower_global_pool, lower_pool
from .resample import lower_repeats, lower_resampling
from .rows import lower_group_norm, lower_rows, norm_fields
from .strassen import lower_strassen, pays_in_halves
from .transpose import lower_transpose
from .winograd import lower_winograd


@dataclass
class Lowering:
    """Collects the steps of a plan, node by node."""

    constants: Constants
    isa: Isa = field(default_factory=best)
    in_parts: bool = False  # long sums are taken in parts, which rounds less
    steps: list[Step] = field(default_factory=list)
    host_calls: list[HostCall] = field(default_factory=list)
    temporaries: list[tuple[int, Buffer]] = field(default_factory=list)  # and first steps
    shared: dict[tuple[tuple[int, ...], Halo], Buffer] = field(default_factory=dict)
    scratch_nbytes: int = 0
    node: str = ""
    flops: int = 0

    def call(
        self, kernel: str, n_tiles: int, max_claims: int = MAX_CLAIMS, **fields: Any
    ) -> None:
        """Append a call of `kernel` over `n_tiles` tiles; fields not given are 0."""
        unknown = set(fields).difference(KERNELS[kernel].record.names or ())
        if unknown:
            raise PlanError(f"{kernel} has no argument {sorted(unknown)}")
        if n_tiles > 0:
            step = Step(
                kernel, fields, self.node, n_tiles, self.flops, max_claims, self.scratch_nbytes
            )
            self.steps.append(step)
            self.flops = self.scratch_nbytes = 0

    def host_call(
        self, function: Callable[..., Array], inputs: Sequence[Buffer], output: Buffer
    ) -> None:
        """Append ``output = function(*inputs)``, computed in Python."""
        self.host_calls.append(HostCall(len(self.steps), function, tuple(inputs), output))

    def kernel_address(self, kernel: str) -> int:
        """Return a row function's address, to be called by another kernel."""
        return address(kernel, self.isa)

    def constant(self, owner: object, name: str, make: Callable[[], np.ndarray]) -> int:
        """Return the address of a constant of op `owner`, made once per model."""
        return self.constants.address((id(owner), name, self.isa.name), make)

    def scalar(self, value: float) -> Buffer:
        """Return a constant number as a buffer that broadcasts."""
        key = ("scalar", float(value).hex())
        number = self.constants.address(key, lambda: np.array([value], np.float32))
        return Buffer((1,), Address(ABSOLUTE, number), (0, 0, 0, 0))

    def table(self, values: tuple[int, ...]) -> int:
        """Return the address of a constant int64 table."""
        return self.constants.address(values, lambda: np.array(values, np.int64))

    def temporary(
        self, shape: tuple[int, ...], halo: Halo = NO_HALO, from_last_step: bool = False
    ) -> Buffer:
        """Return a buffer that lives from the next step, or the last one, to the node's end."""
        buffer = Buffer.allocate(f"{self.node}#{len(self.temporaries)}", shape, halo)
        self.temporaries.append((len(self.steps) - from_last_step, buffer))
        return buffer

    def bordered(self, shape: tuple[int, ...], halo: Halo) -> Buffer:
        """Return a temporary with zeros around it, which all nodes that ask for the same share.

        Its inside is the current node's alone; the border is cleared once. Without a border
        there is nothing to share.
        """
        if halo == NO_HALO:
            return self.temporary(shape)
        buffer = self.shared.get((shape, halo))
        if buffer is None:
            buffer = self.shared[shape, halo] = self.temporary(shape, halo)
            self.clear_border(buffer, halo)
        else:
            self.temporaries.append((len(self.steps), buffer))
        return buffer

    def take_temporaries(self) -> list[tuple[int, Buffer]]:
        """Return the temporaries of the current node with their first steps; forget them."""
        taken, self.temporaries = self.temporaries, []
        return taken

    def scratch(self, nbytes: int) -> None:
        """Ask for this many bytes of scratch memory per thread for the next call."""
        self.scratch_nbytes = nbytes

    def conv(
        self,
        owner: object,
        x: Buffer,
        y: Buffer,
        filters: Weight,
        bias: Array | None,
        window: Window | None = None,
        groups: int = 1,
        activation: Elementwise | None = None,
        residual: Sequence[Buffer] = (),
        gate: Buffer | None = None,
        may_halve: bool = False,
        may_round: bool = False,
        regions: Sequence[Sequence[Region]] | None = None,
    ) -> None:
        """Append ``y = activation(conv(x * gate, filters) + bias + residual)``.

        Without `window` the filters are one matrix, applied to the channels of each pixel.
        A gate is of one pixel per image, for filters of one tap. Those may be multiplied in
        halves or, for few pixels, be rounded to 24 bits. `regions` of each spatial axis tell
        which taps count where, if not all of them do.
        """
        window, epilogue = window or Window(), self.epilogue(activation, y)
        if may_round and pays_in_int24(y):
            lower_int24(self, owner, x, y, filters, bias, window, epilogue, *residual)
        elif may_halve and pays_in_halves(y, filters.shape[-2], self.isa):
            lower_strassen(self, owner, x, y, filters, bias, window, epilogue, *residual)
        else:
            lower_conv(
                self, owner, x, y, filters, bias, window, groups,
                epilogue, next(iter(residual), None), gate, regions,
            )  # fmt: skip

    def winograd(
        self,
        owner: object,
        x: Buffer,
        y: Buffer,
        filters: Weight,
        bias: Array | None,
        window: Window,
        size: Size,
        activation: Elementwise | None = None,
        residual: Sequence[Buffer] = (),
        pool: Pair = (1, 1),
    ) -> None:
        """Append a convolution by Winograd's algorithm; x has a halo of whole tiles.

        Of each window of `pool`, which is that of the size, only the largest result is stored.
        """
        epilogue = self.epilogue(activation, y)
        added = next(iter(residual), None)
        lower_winograd(
            self, owner, x, y, filters, bias, window, size, epilogue, added, pool=pool
        )  # fmt: skip

    def depthwise(
        self,
        owner: object,
        x: Buffer,
        y: Buffer,
        filters: Array,
        bias: Array | None,
        window: Window,
        activation: Elementwise | None = None,
    ) -> None:
        """Append a depthwise convolution like `conv`, filters float32[*K, C, CM]."""
        *taps, C, CM = filters.shape
        if CM > 1:
            repeated = self.temporary((*x.shape[:-1], C * CM), x.halo)
            self.clear_border(repeated, repeated.halo)
            self.repeat_channels(x, repeated, CM)
            x = repeated
        lower_depthwise(
            self, owner, x, y, filters.reshape(*taps, C * CM), bias, window,
            self.epilogue(activation, y),
        )  # fmt: skip

    def takes_bands(self, middle: Buffer, K: int, rows: RowWindow) -> bool:
        """Tell whether what a convolution gives its reader is better not written to memory.

        Parameters
        ----------
        middle : as `band` gives it
        K : products of each element of `middle`
        """
        return pays_in_bands(middle, K, rows)

    def band(self, shape: tuple[int, ...], halo: Halo) -> Buffer:
        """Return a tensor without a storage, for `join_in_bands`."""
        return Buffer.allocate(ABSOLUTE, shape, halo)

    def join_in_bands(self, middle: Buffer, rows: RowWindow) -> None:
        """Make the last two steps, which write and read `middle`, one that needs no storage."""
        reader, conv = self.steps.pop(), self.steps.pop()
        join_in_bands(self, conv, reader, middle, rows)

    def conv_transpose(
        self,
        owner: object,
        x: Buffer,
        y: Buffer,
        filters: Weight,
        bias: Array | None,
        window: Window,
        activation: Elementwise | None = None,
        tiled: Pair | None = None,
    ) -> None:
        """Append the transpose of a convolution of `window`, filters float32[*K, OC, C].

        Outputs that read `tiled` taps along H and W may come in Winograd's tiles.
        """
        epilogue = self.epilogue(activation, y)
        lower_transpose(self, owner, x, y, filters, bias, window, epilogue, tiled)

    def repeat_channels(self, x: Buffer, y: Buffer, count: int) -> None:
        """Append ``y[..., c*count + i] = x[..., c]``."""
        lower_channel_repeats(self, x, y, count)

    def pool(
        self, kernel: str, x: Buffer, y: Buffer, sizes: Sequence[int], window: Window
    ) -> None:
        """Append a pooling over windows."""
        lower_pool(self, kernel, x, y, sizes, window)

    def unfold(self, x: Buffer, y: Buffer, sizes: Sequence[int], window: Window) -> None:
        """Append im2col on a 2D input into a dense `y`."""
        N, _, H, W, C = x.dims
        _, _, OH, OW, _ = y.dims
        (KH, KW), (_, SH, SW), (_, DH, DW) = sizes, window.strides, window.dilation
        _, PH, PW = window.before
        self.call(
            "f32_im2col",
            N * OH * OW,
            x=x.address, y=y.address, H=H, W=W, C=C, OH=OH, OW=OW,
            KH=KH, KW=KW, SH=SH, SW=SW, DH=DH, DW=DW, PH=PH, PW=PW,
            x_n=x.strides[0], x_h=x.strides[2], x_w=x.strides[3], y_w=y.strides[3],
        )  # fmt: skip

    def global_pool(self, kernel: str, x: Buffer, y: Buffer) -> None:
        """Append a pooling over all pixels of each channel."""
        lower_global_pool(self, kernel, x, y)

    def affine(
        self,
        owner: object,
        x: Buffer,
        y: Buffer,
        scale: Array,
        shift: Array,
        activation: Activation | None = None,
    ) -> None:
        """Append ``y = activation(x * scale + shift)``; the activation may only clip.

        The constants broadcast to a sample.
        """
        lower_affine(self, owner, x, y, scale, shift, self.epilogue(activation, y))

    def standardize(
        self, owner: object, x: Buffer, y: Buffer, mean: Array, deviation: Array
    ) -> None:
        """Append ``y = (x - mean) / deviation`` with constants that broadcast to a sample."""
        lower_standardize(self, owner, x, y, mean, deviation)

    def constant_buffer(self, owner: object, name: str, values: Array, rank: int) -> Buffer:
        """Return a constant that broadcasts to samples as a buffer of `rank` axes."""
        return constant(self, owner, name, values, rank)

    def binary(self, kernel: str, a: Buffer, b: Buffer, y: Buffer, scale: float = 0.0) -> None:
        """Append ``y = kernel(a, b)``; axes of length 1 are broadcast."""
        lower_binary(self, kernel, a, b, y, scale)

    def rows(
        self, kernel: str, x: Buffer, y: Buffer, axes: Sequence[int] = (-1,), **fields: Any
    ) -> None:
        """Append a kernel that treats the elements along `axes` as one row."""
        lower_rows(self, kernel, x, y, axes, **fields)

    def norm(
        self, kernel: str, owner: object, x: Buffer, y: Buffer, axes: Sequence[int],
        gamma: Array | None = None, beta: Array | None = None, **fields: float,
    ) -> None:  # fmt: skip
        """Append a row kernel with a factor and an offset per element of a row."""
        run = product(tuple(x.shape[axis] for axis in axes))
        arrays = norm_fields(self, owner, run, gamma, beta)
        lower_rows(self, kernel, x, y, axes, **arrays, **fields)

    def group_norm(
        self, owner: object, x: Buffer, y: Buffer, groups: int, axis: int,
        gamma: Array | None, beta: Array | None, epsilon: float,
    ) -> None:  # fmt: skip
        """Append group normalization of the channels that stand along `axis`."""
        lower_group_norm(self, owner, x, y, groups, axis, gamma, beta, epsilon)

    def dot(
        self, x0: Buffer, x1: Buffer, y: Buffer, axes: tuple[int, int], limit: float
    ) -> None:
        """Append ``y[n, i.., j..] = sum over k of x0[n, i.., k] * x1[n, j.., k]``."""
        lower_dot(self, x0, x1, y, axes, limit)

    def move(self, x: Buffer, y: Buffer, x_strides: Sequence[int]) -> None:
        """Append ``y[i, j, ..] = x[i * x_strides[0] + j * x_strides[1] + ..]``; bytes."""
        axes = zip(y.shape, x_strides, y.axis_strides, strict=True)
        lower_move(self, x.address, y.address, axes)

    def permute(self, x: Buffer, y: Buffer, order: Sequence[int]) -> None:
        """Append a copy of which axis i is axis ``order[i]`` of `x`."""
        self.move(x, y, [x.axis_strides[axis] for axis in order])

    def repeat(self, x: Buffer, y: Buffer, factors: Sequence[int]) -> None:
        """Append ``y[n, i*f + j, .., c] = x[n, i, .., c]`` for every spatial axis."""
        lower_repeats(self, x, y, factors)

    def resample(self, x: Buffer, y: Buffer, taps: Sequence[Taps]) -> None:
        """Append weighted sums along H, then along W of [N, H, W, C]."""
        lower_resampling(self, x, y, taps)

    def copy(self, x: Buffer, y: Buffer) -> None:
        """Append a copy of x's elements, in order, into `y` of maybe another shape."""
        if x.address == y.address and x.strides == y.strides:
            return  # written in place
        if x.is_dense:
            x = x.reshape(y.shape)
        elif y.is_dense:
            y = y.reshape(x.shape)
        elif x.dims != y.dims:
            dense = self.temporary(x.shape)
            self.move(x, dense, x.axis_strides)
            x = dense.reshape(y.shape)
        self.move(x, y, x.axis_strides)

    def epilogue(self, activation: Elementwise | None, y: Buffer) -> Epilogue:
        """Return how a kernel computes `activation` on its way out to `y`."""
        if activation is None:
            return Epilogue()
        if activation.bounds is not None:
            return Epilogue(*activation.bounds)
        values = activation.slopes(y.shape[-1])
        slopes = 0 if values is None else self.slopes(values)
        if isinstance(activation, PReLU):
            return Epilogue(slopes=slopes)
        kernel, parameters = activation.row_function
        return Epilogue(
            slopes=slopes,
            activate=self.kernel_address(kernel), activate_args=self.parameters(parameters),
        )  # fmt: skip

    def slopes(self, values: Array) -> int:
        """Return the address of a factor per column, with room behind for a whole tile."""
        padding = (0, self.isa.tile_columns)
        key = ("slopes", values.tobytes(), self.isa.name)
        return self.constants.address(key, lambda: np.pad(values, padding))

    def activate(self, activation: Activation, x: Buffer, y: Buffer) -> None:
        """Append ``y = activation(x)``."""
        kernel, parameters = activation.row_function
        self.map(kernel, x, y, self.parameters(parameters))

    def parameters(self, values: tuple[float, ...]) -> int:
        """Return the address of a row function's parameters."""
        key = ("parameters", *(float(v).hex() for v in values))
        return self.constants.address(key, lambda: np.array([*values, 0, 0, 0], np.float32))

    def map(self, function: str, x: Buffer, y: Buffer, parameters: int = 0) -> None:
        """Append ``y = function(x)`` for a row function."""
        lower_map(self, function, x, y, parameters)

    def clear_border(self, inner: Buffer, halo: Halo, border: Array | None = None) -> None:
        """Append the writing of zeros, or of a pixel again and again, around `inner`."""
        lower_border(self, inner, halo, border)
