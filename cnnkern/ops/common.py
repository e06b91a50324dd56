"""What several op families check: layouts, ranks, axes, numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import ShapeError
from ..graph import Array, Axes, as_array
from ..shapes import Pair, Shape
from .config import MAX_INT, LayerConfig

LAYOUTS = {1: "[N, W, C]", 2: "[N, H, W, C]", 3: "[N, D, H, W, C]"}


def spatial_rank(class_name: str) -> int:
    """Return the number of spatial axes that a Keras class name gives: 2 for Conv2D."""
    return next(int(letter) for letter in class_name if letter.isdigit())


def by_rank(*names: str, ranks: Sequence[int] = (1, 2, 3)) -> tuple[str, ...]:
    """Return the registry keys of ``keras.layers`` classes such as Conv1D, Conv2D, Conv3D.

    ``{}`` in a name stands for the rank.
    """
    return tuple(f"keras.layers>{name.format(rank)}" for name in names for rank in ranks)


def known(shape: Shape) -> tuple[int, ...]:
    """Return a shape without unknown axes; raise ShapeError if it has one."""
    lengths = tuple(n for n in shape if n is not None)
    if len(lengths) != len(shape):
        raise ShapeError(f"expected a shape without unknown axes, got {shape}")
    return lengths


def same_shape(one: Shape, other: Shape) -> bool:
    """Tell whether two shapes can be equal; an unknown axis fits any length."""
    return len(one) == len(other) and all(
        a is None or b is None or a == b for a, b in zip(one, other, strict=True)
    )


def expect_rank(name: str, shape: Shape, rank: int) -> None:
    """Raise ShapeError unless `shape` has `rank` spatial axes."""
    if len(shape) != rank + 2:
        raise ShapeError(f"{name}: expected {LAYOUTS[rank]}, got {shape}")


def expect_channels(name: str, shape: Shape, rank: int, channels: int) -> None:
    """Raise ShapeError unless `shape` has `rank` spatial axes and C = `channels`."""
    if len(shape) != rank + 2 or shape[-1] not in (None, channels):
        expected = LAYOUTS[rank].replace("C", str(channels))
        raise ShapeError(f"{name}: expected {expected}, got {shape}")


def expect_inputs(name: str, shapes: Sequence[Shape], count: int) -> None:
    """Raise ShapeError unless there are `count` inputs."""
    if len(shapes) != count:
        raise ShapeError(f"{name}: expected {count} inputs, got {len(shapes)}")


def expect_axis(name: str, shape: Shape, axis: int, length: int) -> None:
    """Raise ShapeError unless `axis`, counted from the end, has this length."""
    if len(shape) < -axis or shape[axis] not in (None, length):
        raise ShapeError(f"{name}: expected {length} along axis {axis}, got {shape}")


def channels_last(config: LayerConfig) -> None:
    """Take `data_format`, which must be channels_last."""
    config.choice("data_format", ("channels_last", None), "channels_last")


def axis_length(config: LayerConfig, shape: Shape, axis: int) -> int:
    """Return the length of an axis that a layer's weights depend on."""
    length = shape[axis]
    if length is None:
        raise ShapeError(f"{config.title}: axis {axis} of the input must be known, got {shape}")
    return length


def input_channels(config: LayerConfig, shape: Shape, rank: int) -> int:
    """Return C of an input that must have `rank` spatial axes."""
    expect_rank(config.title, shape, rank)
    return axis_length(config, shape, -1)


def from_end(config: LayerConfig, key: str, axis: Any, rank: int) -> int:
    """Return an axis of a tensor of `rank` axes counted from the end, -1 is the last.

    The batch axis is unsupported: a batch may be cut into chunks.
    """
    if type(axis) is not int or not -rank <= axis < rank:
        config.malformed(key, axis, f"an axis of a tensor of {rank} axes")
    if axis % rank == 0:
        config.unsupported(key, axis, "axes behind the batch axis")
    return axis % rank - rank


def take_axes(config: LayerConfig, rank: int, least: int = 1) -> tuple[int, ...]:
    """Take `axis`, one or several different axes; return them as from_end, sorted.

    Where no axis is allowed (`least` is 0), Keras also writes null for none.
    """
    value = config.take("axis", -1)
    axes = [] if value is None and least == 0 else value
    axes = axes if isinstance(axes, (list, tuple)) else [axes]
    counted = tuple(sorted(from_end(config, "axis", axis, rank) for axis in axes))
    if not len(set(counted)) == len(axes) >= least:
        config.malformed("axis", value, f"at least {least} axes, all different")
    return counted


def take_pairs(config: LayerConfig, key: str, rank: int) -> tuple[Pair, ...]:
    """Take (before, after) per spatial axis, given as an int, as ints or as pairs."""
    value = config.take(key)
    entries = value if isinstance(value, (list, tuple)) else (value,) * rank
    if rank == 1 and value is entries:
        entries = (value,)
    pairs = [e if isinstance(e, (list, tuple)) else (e, e) for e in entries]
    ints = all(
        len(p) == 2 and all(type(n) is int and 0 <= n <= MAX_INT for n in p) for p in pairs
    )
    if len(pairs) != rank or not ints:
        config.malformed(key, value, f"{rank} pairs of ints of at least 0")
    return tuple((before, after) for before, after in pairs)


def take_array(config: LayerConfig, key: str, default: Any = None) -> Array:
    """Take an option that is a number or a nested list of numbers, as a float32 array."""
    value = config.take(key, default)
    if isinstance(value, dict) and value.get("class_name") == "__numpy__":
        inner = value.get("config")
        value = inner.get("value") if isinstance(inner, dict) else None
    try:
        array = np.array(value)
    except ValueError:  # lists of different lengths
        array = np.array(None)
    with np.errstate(over="ignore"):
        numbers = as_array(array if array.dtype.kind in "if" else np.nan)
    if not np.isfinite(numbers).all():
        config.malformed(key, value, "a number or a list of numbers")
    return numbers.reshape(array.shape)


def permuted_axis(axis: int, order: Axes) -> int:
    """Return which axis of `x` is `axis` of ``transpose(x, order)``; both from the end."""
    return order[axis] - len(order)


def permuted_axes(axes: Axes, order: Axes) -> Axes:
    """Return the axes of `x` that are `axes` of ``transpose(x, order)``, sorted."""
    return tuple(sorted(permuted_axis(axis, order) for axis in axes))


def permuted_constant(values: Array, order: Axes) -> Array:
    """Return the array that scales `x` as `values` scale ``transpose(x, order)``.

    Both broadcast to a sample. The result has as many axes as a sample.
    """
    lifted = values.reshape((1,) * (len(order) - 1 - values.ndim) + values.shape)
    inverse = [order.index(axis) - 1 for axis in range(1, len(order))]
    return np.ascontiguousarray(lifted.transpose(inverse))
