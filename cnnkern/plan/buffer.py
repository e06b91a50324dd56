"""Buffers: where a tensor's elements stand in the arena, halo included."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import Any

from ..graph import NO_HALO, Halo
from ..kernels.memory import ALIGNMENT
from ..shapes import product

FLOAT_NBYTES = 4
MAX_RANK = 5  # of a buffer whose axes keep their own strides
# Addresses this far apart share one of two sets of 8 lines: 32 KiB of L1d, 8 ways.
L1_REPEATS = 2048
ABSOLUTE = ""  # the storage of addresses that do not depend on the arena


@dataclass(frozen=True)
class Address:
    """A place in the arena: a storage, which the layout puts somewhere, and an offset."""

    storage: str
    offset_bytes: int = 0

    def __add__(self, nbytes: int) -> Address:
        return Address(self.storage, self.offset_bytes + nbytes)


Strides = tuple[int, int, int, int]  # bytes between neighbours along N, D, H and W


@dataclass(frozen=True)
class Buffer:
    """A tensor's elements in a storage: channels contiguous, other axes at any stride."""

    shape: tuple[int, ...]
    address: Address  # of the first element
    strides: Strides
    halo: Halo = NO_HALO  # elements around D, H and W that may be read, mostly zeros

    @classmethod
    def allocate(
        cls, storage: str, shape: tuple[int, ...], halo: Halo = NO_HALO, is_spread: bool = False
    ) -> Buffer:
        """Return a buffer that fills a storage of its own, halo included.

        One that `is_spread` or has a halo, and so is read in windows, has a gap after each
        pixel where too many pixels would otherwise share a set of the L1 cache. With a halo it
        has one after each row, too, where the rows of a window would share sets.
        """
        _, *space, channels = lifted(shape)
        d, h, w = (n + sum(pad) for n, pad in zip(space, halo, strict=True))
        s_w = FLOAT_NBYTES * channels
        if is_spread or halo != NO_HALO:
            s_w = spread(s_w)
        s_h = w * s_w
        if halo != NO_HALO and s_w % (2 * ALIGNMENT) == 0:
            s_h += ALIGNMENT
        strides = (d * h * s_h, h * s_h, s_h, s_w)
        start = sum(pad[0] * s for pad, s in zip(halo, strides[1:], strict=True))
        return cls(shape, Address(storage, start), strides, halo)

    @cached_property
    def dims(self) -> tuple[int, int, int, int, int]:
        """N, D, H, W, C."""
        return lifted(self.shape)

    @property
    def storage(self) -> str:
        return self.address.storage

    @property
    def axis_strides(self) -> tuple[int, ...]:
        """Bytes between neighbours along each axis of `shape`."""
        batch, *space = self.strides
        inner = self.shape[1:-1]
        if len(inner) > 3:
            space = [space[-1] * product(inner[i + 1 :]) for i in range(len(inner))]
        return (batch, *space[len(space) - len(inner) :], FLOAT_NBYTES)[: len(self.shape)]

    @property
    def nbytes(self) -> int:
        """Size of the storage that `allocate` fills."""
        return self.dims[0] * self.strides[0]

    @property
    def is_dense(self) -> bool:
        """Whether the elements stand one after the other with nothing between them."""
        return self.strides == Buffer.allocate(self.storage, self.shape).strides

    def reshape(self, shape: tuple[int, ...]) -> Buffer:
        """Return the same elements, which must be dense, under another shape."""
        return Buffer(shape, self.address, Buffer.allocate(self.storage, shape).strides)

    def with_border(self, shape: tuple[int, ...], border: Halo) -> Buffer | None:
        """Return the elements and zeros around them, if the halo has as many."""
        sides = zip(self.halo, border, strict=True)
        if any(h < b for halo, pads in sides for h, b in zip(halo, pads, strict=True)):
            return None
        return Buffer(shape, self.before([first for first, _ in border]), self.strides)

    def before(self, pixels: Sequence[int]) -> Address:
        """Return the address so many pixels before the first one along D, H and W."""
        nbytes = sum(n * s for n, s in zip(pixels, self.strides[1:], strict=True))
        return self.address + -nbytes

    def slice(self, axis: int, start: int, length: int) -> Buffer:
        """Return positions start .. start+length of one axis, which is counted from the end."""
        shape = list(self.shape)
        shape[axis] = length
        is_batch = len(self.shape) == -axis
        stride = (*self.strides, FLOAT_NBYTES)[0 if is_batch else axis]
        halo = self.halo if axis == -1 else NO_HALO
        return Buffer(tuple(shape), self.address + start * stride, self.strides, halo)

    def every(self, steps: Sequence[int], first: Sequence[int]) -> Buffer:
        """Return the pixels at first, first + step, ... along D, H and W."""
        N, *lengths, C = self.dims
        skipped = sum(f * s for f, s in zip(first, self.strides[1:], strict=True))
        along = zip(lengths, first, steps, strict=True)
        shape = (N, *(-(-(n - f) // step) for n, f, step in along), C)
        return Buffer(shape, self.address + skipped, stepped(self.strides, steps))

    def split(self, axis: int, lengths: Sequence[int]) -> list[Buffer]:
        """Return neighbouring ranges of one axis, which is counted from the end.

        Where the axis has no stride of its own, the ranges are rows of a matrix.
        """
        whole, lengths = self, list(lengths)
        if len(self.shape) > MAX_RANK:
            inner = product(self.shape[axis:][1:])
            rows = product(self.shape[:axis])
            whole = self.reshape((rows, self.shape[axis] * inner))
            axis, lengths = -1, [length * inner for length in lengths]
        starts = accumulate(lengths, initial=0)
        return [whole.slice(axis, start, n) for start, n in zip(starts, lengths, strict=False)]


def spread(nbytes: int) -> int:
    """Return the stride of rows of `nbytes`: with a gap where they would share L1 sets."""
    return nbytes if nbytes % L1_REPEATS else nbytes + ALIGNMENT


def lifted(shape: tuple[int, ...]) -> tuple[int, int, int, int, int]:
    """Return N, D, H, W, C: missing spatial axes are 1, surplus ones are merged into W."""
    batch, *space, channels = shape if len(shape) > 1 else (*shape, 1)
    if len(space) > 3:
        space = [product(tuple(space))]
    depth, height, width = [1] * (3 - len(space)) + space
    return batch, depth, height, width, channels


@dataclass(frozen=True)
class Walk:
    """Several buffers visited together: counts of rows per axis, floats per row, strides."""

    counts: tuple[int, int, int, int]  # N, D, H, W
    run: int  # contiguous floats
    strides: tuple[Strides, ...]  # per buffer
    steps: tuple[int, ...] = ()  # bytes between a row's floats per buffer; 0 repeats one

    @property
    def n_rows(self) -> int:
        return product(self.counts)

    def joined(self) -> Walk:
        """Return the same rows with as many of them as memory allows on the last axis."""
        return _padded(joined(zip(self.counts, *self.strides, strict=True)), self)

    def fields(self, *prefixes: str) -> dict[str, int]:
        """Return counts and strides under the names that kernel records use."""
        named = dict(zip("NDHW", self.counts, strict=True))
        for prefix, strides in zip(prefixes, self.strides, strict=True):
            named.update(stride_fields(prefix, strides))
        return named


def stepped(strides: Strides, steps: Sequence[int]) -> Strides:
    """Return the bytes from one to the next of every step-th pixel along D, H and W."""
    d, h, w = (s * step for s, step in zip(strides[1:], steps, strict=True))
    return strides[0], d, h, w


def stride_fields(prefix: str, strides: Sequence[int]) -> dict[str, int]:
    """Return ``{prefix_n, prefix_d, prefix_h, prefix_w}``."""
    return {f"{prefix}_{axis}": s for axis, s in zip("ndhw", strides, strict=True)}


def residual_fields(residual: Buffer | None) -> dict[str, Any]:
    """Return where a residual stands, if there is one, under the names in kernel records."""
    if residual is None:
        return {}
    return {"r": residual.address, **stride_fields("r", residual.strides)}


def walk(*buffers: Buffer) -> Walk:
    """Merge the axes of equally shaped buffers into rows as long as memory allows."""
    *counts, run = buffers[0].dims
    return _merged(counts, run, [buffer.strides for buffer in buffers])


def broadcast_walk(y: Buffer, *operands: Buffer) -> Walk:
    """Walk `y` and operands that broadcast to it, with a stride of 0 where they repeat."""
    buffers = (y, *operands)
    axes = []
    for axis, count in enumerate(y.dims):
        strides = (
            0 if b.dims[axis] == 1 < count else (*b.strides, FLOAT_NBYTES)[axis]
            for b in buffers
        )
        axes.append((count, *strides))
    axes = joined(axes)
    is_row = axes and all(s in (0, FLOAT_NBYTES) for s in axes[-1][1:])
    run, *steps = axes.pop() if is_row else (1, *[FLOAT_NBYTES] * len(buffers))
    return _padded(axes, Walk((1, 1, 1, 1), run, ((0, 0, 0, 0),) * len(buffers), tuple(steps)))


def pixels(*buffers: Buffer) -> Walk:
    """Walk equally shaped buffers pixel by pixel: rows of C floats."""
    *counts, channels = buffers[0].dims
    return _walk(counts, channels, [buffer.strides for buffer in buffers])


def joined(axes: Iterable[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Merge neighbouring axes where every buffer's memory allows.

    An axis is its length and one stride per buffer; the outermost is first.
    """
    result: list[tuple[int, ...]] = []
    for axis in axes:
        count, *steps = axis
        if count == 1:
            continue
        if result and list(result[-1][1:]) == [count * step for step in steps]:
            result[-1] = (result[-1][0] * count, *steps)
        else:
            result.append(axis)
    return result


def _merged(counts: Sequence[int], run: int, strides: Sequence[Strides]) -> Walk:
    """Join the innermost axes to the row while they are contiguous in every buffer."""
    axes = list(zip(counts, *strides, strict=True))
    while axes and (axes[-1][0] == 1 or all(s == FLOAT_NBYTES * run for s in axes[-1][1:])):
        run *= axes.pop()[0]
    return _padded(axes, _walk((1, 1, 1, 1), run, [(0, 0, 0, 0)] * len(strides)))


def _padded(axes: Sequence[tuple[int, ...]], rows: Walk) -> Walk:
    """Return `rows` with other axes, a count and a stride per buffer each."""
    unit = (1, *[0] * len(rows.strides))
    counts, *strides = zip(*[unit] * (4 - len(axes)), *axes, strict=True)
    return replace(rows, counts=counts, strides=tuple(strides))


def _walk(counts: Sequence[int], run: int, strides: Sequence[Sequence[int]]) -> Walk:
    n, d, h, w = counts
    return Walk((n, d, h, w), run, tuple((s[0], s[1], s[2], s[3]) for s in strides))
