"""Transposed convolution as plain convolutions, one per phase of the output.

Along one axis, tap k of input i adds to output ``o = i*S + k*D - P``. The outputs with
``o % S == f``, one phase, therefore read a dense window: ``i = o//S + (f + P - k*D) / S``
for the taps k that make the quotient whole (Shi et al., "Is the deconvolution layer the
same as a convolutional layer?", 2016). Nothing is inserted, scattered or added twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product as combinations
from typing import TYPE_CHECKING

import numpy as np

from ..codegen.isa import Isa
from ..graph import Array
from ..kernels.pack import pack_columns, pack_panels
from ..lazy import Floats, LazyArray, Weight
from ..ops.window import Window, lift
from ..ops.winograd import best_size
from ..shapes import Pair, product
from .buffer import Buffer, Strides
from .conv import is_narrow
from .epilogue import Epilogue
from .matrix import Matrix, Runs, lower_matrix
from .winograd import lower_winograd

if TYPE_CHECKING:
    from .lowering import Lowering


@dataclass(frozen=True)
class Phase:
    """The outputs of one axis that are equal modulo the stride."""

    first: int  # the first output
    taps: tuple[int, ...]
    shifts: tuple[int, ...]  # per tap: input position minus output position within the phase


def phases(size: int, stride: int, dilation: int, before: int) -> list[Phase]:
    """Return the phases of one axis; a phase without taps holds the bias alone."""
    result = []
    for first in range(stride):
        pairs = [
            (k, (first + before - k * dilation) // stride)
            for k in range(size)
            if (first + before - k * dilation) % stride == 0
        ]
        result.append(Phase(first, tuple(k for k, _ in pairs), tuple(s for _, s in pairs)))
    return result


def lower_transpose(
    lowering: Lowering,
    owner: object,
    x: Buffer,
    y: Buffer,
    filters: Weight,
    bias: Array | None,
    window: Window,
    epilogue: Epilogue,
    tiled: Pair | None = None,
) -> None:
    """Append ``y = epilogue(transposed convolution(x, filters) + bias)``.

    Parameters
    ----------
    filters : float32[*K, OC, C]
    window : Window
        Of the convolution from y to x; its reach beyond x is present as the halo of x.
    tiled : taps along H and W of phases that may be done in Winograd's tiles
    """
    *taps, OC, C = filters.shape
    lengths = lift(taps, 1)
    axes = zip(lengths, window.strides, window.dilation, window.before, strict=True)
    for phase in combinations(*(phases(*axis) for axis in axes)):
        outputs = y.every(window.strides, [p.first for p in phase])
        if 0 in outputs.dims:
            continue
        _, OH, OW = outputs.dims[1:-1]
        _, *phase_taps = (len(p.taps) for p in phase)
        if tuple(phase_taps) == tiled and (size := best_size(OH, OW, C, OC, tiled)):
            _, above, left = (-min(p.shifts, default=0) for p in phase)
            lower_winograd(
                lowering, owner, x, outputs, _PhaseFilters(filters, phase), bias,
                Window(before=(0, above, left)), size, epilogue,
                name=f" of phase {[p.first for p in phase]}",
            )  # fmt: skip
            continue
        K = product(tuple(len(p.taps) for p in phase)) * C
        narrow = is_narrow(lowering, C, OC, K)
        packed = lowering.constant(
            owner, f"{'columns' if narrow else 'panels'} of phase {[p.first for p in phase]}",
            partial(_pack_phase, filters, bias, phase, lowering.isa, narrow),
        )  # fmt: skip
        lower_matrix(
            lowering, x.address, x.strides, outputs, Runs(_offsets(x.strides, phase), C),
            Matrix(packed, K, OC, is_narrow=narrow), epilogue,
        )  # fmt: skip


def _pack_phase(
    filters: Weight, bias: Array | None, phase: Sequence[Phase], isa: Isa, narrow: bool
) -> np.ndarray:
    """Pack the taps of a phase as one matrix ``float32[n_taps * C, OC]``."""
    w = _phase_filters(filters, phase)
    w = w.reshape(-1, w.shape[-1])
    C = filters.shape[-1]
    return pack_columns(w, bias, C, isa) if narrow else pack_panels(w, bias, isa)


def _phase_filters(filters: Weight, phase: Sequence[Phase]) -> np.ndarray:
    """Return the taps of a phase as float32[D, H, W, C, OC]."""
    *taps, OC, C = filters.shape
    lifted = np.asarray(filters).reshape(*lift(taps, 1), OC, C)
    return lifted[np.ix_(*(p.taps for p in phase))].swapaxes(-1, -2)


class _PhaseFilters(LazyArray):
    """The taps of a phase in the order of what they read, float32[H, W, C, OC]."""

    def __init__(self, filters: Weight, phase: Sequence[Phase]) -> None:
        self.filters, self.phase = filters, phase
        *_, OC, C = filters.shape
        self.shape = (*(len(p.taps) for p in phase[1:]), C, OC)

    def read(self) -> Floats:
        # The later a tap is, the earlier is the input that it adds.
        (chosen,) = _phase_filters(self.filters, self.phase)
        return np.ascontiguousarray(chosen[::-1, ::-1])

    def __getitem__(self, rows: slice) -> Floats:
        return self.read()[rows]

    def reshape(self, *shape: int) -> Weight:
        return self.read().reshape(shape)


def _offsets(strides: Strides, phase: Sequence[Phase]) -> tuple[int, ...]:
    """Return the byte offset of every tap's input pixel."""
    return tuple(
        sum(shift * s for shift, s in zip(shifts, strides[1:], strict=True))
        for shifts in combinations(*(p.shifts for p in phase))
    )
