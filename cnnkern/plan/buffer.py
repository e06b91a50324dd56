"""Buffers: where a tensor's elements stand in the arena, halo included."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from ..graph import NO_HALO, Halo
from ..shapes import product

FLOAT_NBYTES = 4
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
    halo: Halo = NO_HALO  # zeros around D, H and W that may be read

    @classmethod
    def allocate(cls, storage: str, shape: tuple[int, ...], halo: Halo = NO_HALO) -> Buffer:
        """Return a buffer that fills a storage of its own, halo included."""
        _, *space, channels = lifted(shape)
        d, h, w = (n + sum(pad) for n, pad in zip(space, halo, strict=True))
        s_w = FLOAT_NBYTES * channels
        strides = (d * h * w * s_w, h * w * s_w, w * s_w, s_w)
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

    def slice(self, axis: int, start: int, length: int) -> Buffer:
        """Return positions start .. start+length of one axis, which is counted from the end."""
        shape = list(self.shape)
        shape[axis] = length
        is_batch = len(self.shape) == -axis
        stride = (*self.strides, FLOAT_NBYTES)[0 if is_batch else axis]
        return Buffer(tuple(shape), self.address + start * stride, self.strides)


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

    @property
    def n_rows(self) -> int:
        return product(self.counts)

    def fields(self, *prefixes: str) -> dict[str, int]:
        """Return counts and strides under the names that kernel records use."""
        named = dict(zip("NDHW", self.counts, strict=True))
        for prefix, strides in zip(prefixes, self.strides, strict=True):
            named.update(stride_fields(prefix, strides))
        return named


def stride_fields(prefix: str, strides: Sequence[int]) -> dict[str, int]:
    """Return ``{prefix_n, prefix_d, prefix_h, prefix_w}``."""
    return {f"{prefix}_{axis}": s for axis, s in zip("ndhw", strides, strict=True)}


def walk(*buffers: Buffer) -> Walk:
    """Merge the axes of equally shaped buffers into rows as long as memory allows."""
    *counts, run = buffers[0].dims
    return _merged(counts, run, [buffer.strides for buffer in buffers])


def broadcast_walk(y: Buffer, *operands: Buffer) -> Walk:
    """Walk `y` and operands that broadcast to it: their strides are 0 along axes of length 1."""
    *counts, run = y.dims
    strides = [y.strides]
    for operand in operands:
        axes = zip(operand.dims, operand.strides, counts, strict=False)
        n, d, h, w = (0 if length == 1 < count else s for length, s, count in axes)
        strides.append((n, d, h, w))
    if any(operand.dims[-1] != run for operand in operands):
        return _walk(counts, run, strides)
    return _merged(counts, run, strides)


def pixels(*buffers: Buffer) -> Walk:
    """Walk equally shaped buffers pixel by pixel: rows of C floats."""
    *counts, channels = buffers[0].dims
    return _walk(counts, channels, [buffer.strides for buffer in buffers])


def _merged(counts: Sequence[int], run: int, strides: Sequence[Strides]) -> Walk:
    """Join the innermost axes to the row while they are contiguous in every buffer."""
    axes = list(zip(counts, *strides, strict=True))
    while axes and (axes[-1][0] == 1 or all(s == FLOAT_NBYTES * run for s in axes[-1][1:])):
        run *= axes.pop()[0]
    axes = [(1, *[0] * len(strides))] * (4 - len(axes)) + axes
    merged_counts, *merged_strides = zip(*axes, strict=True)
    return _walk(merged_counts, run, merged_strides)


def _walk(counts: Sequence[int], run: int, strides: Sequence[Sequence[int]]) -> Walk:
    n, d, h, w = counts
    return Walk((n, d, h, w), run, tuple((s[0], s[1], s[2], s[3]) for s in strides))
