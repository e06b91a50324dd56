"""Convolutional networks in plain Python loops: the specification, the teacher, the oracle.

Read it from top to bottom. `conv2d` says what a convolution is: for every output pixel, for
every filter tap, multiply and add. `im2col` and `dense` say how a convolution becomes a
matrix product. `run` computes a whole graph through the reference of each op.

Sums are accumulated in double precision and rounded to float32 once. Arrays are
channels-last; upper-case letters are lengths and lower-case ones their indices:

    N, H, W, C     batch, height, width, channels of the input
    OH, OW, OC     height, width, channels of the output
    KH, KW         height and width of a filter or window
    SH, SW         strides           DH, DW     dilation
    PT, PL         padding on top and on the left
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from .arguments import (
    activation_op,
    axis_of,
    bias_vector,
    grouped_channels,
    int_pair,
    padding_mode,
    real_array,
)
from .errors import ShapeError
from .graph import Array, Graph
from .ops.common import known, same_shape
from .ops.layout import Input
from .ops.pool import LOWEST
from .ops.window import output_lengths, paddings
from .shapes import Pair


@np.errstate(over="ignore")  # a sum beyond float32 is infinite
def conv2d(
    x: Any,
    w: Any,
    b: Any = None,
    strides: int | Pair = 1,
    padding: str = "valid",
    dilation_rate: int | Pair = 1,
    groups: int = 1,
    activation: str | None = None,
) -> Array:
    """Convolve images with filters.

    ``y[n, oh, ow, oc] = b[oc] + sum over kh, kw, c of
    x[n, oh*SH + kh*DH - PT, ow*SW + kw*DW - PL, c] * w[kh, kw, c, oc]``

    Parameters
    ----------
    x : float32[N, H, W, C]
    w : float32[KH, KW, C/groups, OC]
    b : float32[OC], optional
    strides, dilation_rate : int or (int, int)
    padding : "valid" or "same"
    groups : int
        Input and output channels are cut into this many groups that do not see each other.
    activation : str, optional
        Name of a Keras activation.

    Returns
    -------
    float32[N, OH, OW, OC]

    Raises
    ------
    ShapeError
        An array's rank, the channels, the groups or the bias do not fit.
    DTypeError
        An array does not hold real numbers.
    ValueError
        Another argument is out of its range.
    """
    x, w = real_array("x", x, "[N, H, W, C]"), real_array("w", w, "[KH, KW, C/groups, OC]")
    N, H, W, _ = x.shape
    KH, KW, CG, OC = w.shape
    grouped_channels(x, w, groups)
    bias = bias_vector(b, OC)
    (SH, SW), (DH, DW) = int_pair("strides", strides), int_pair("dilation_rate", dilation_rate)
    OH, OW, PT, PL = _geometry((H, W), (KH, KW), (SH, SW), (DH, DW), padding)
    y = np.zeros((N, OH, OW, OC), np.float32)
    for n, oh, ow, oc in np.ndindex(y.shape):
        first = oc // (OC // groups) * CG  # the first input channel of oc's group
        total = float(bias[oc])
        for kh, kw in np.ndindex(KH, KW):
            h, v = oh * SH + kh * DH - PT, ow * SW + kw * DW - PL
            if 0 <= h < H and 0 <= v < W:  # padding adds nothing
                for c in range(CG):
                    total += float(x[n, h, v, first + c]) * float(w[kh, kw, c, oc])
        y[n, oh, ow, oc] = total
    return _activate(y, activation)


def im2col(
    x: Any,
    kernel_size: int | Pair,
    strides: int | Pair = 1,
    padding: str = "valid",
    dilation_rate: int | Pair = 1,
) -> Array:
    """Copy what each output pixel of a convolution reads into one row of a matrix.

    ``im2col(x, (KH, KW)) @ w.reshape(KH*KW*C, OC)`` is ``conv2d(x, w)``, pixel by pixel.

    Parameters
    ----------
    x : float32[N, H, W, C]
    kernel_size, strides, dilation_rate : int or (int, int)
    padding : "valid" or "same"

    Returns
    -------
    float32[N*OH*OW, KH*KW*C]
        Zero where a filter tap lies in the padding.

    Raises
    ------
    ShapeError, DTypeError, ValueError
        As for `conv2d`.
    """
    x = real_array("x", x, "[N, H, W, C]")
    N, H, W, C = x.shape
    KH, KW = int_pair("kernel_size", kernel_size)
    (SH, SW), (DH, DW) = int_pair("strides", strides), int_pair("dilation_rate", dilation_rate)
    OH, OW, PT, PL = _geometry((H, W), (KH, KW), (SH, SW), (DH, DW), padding)
    rows = np.zeros((N * OH * OW, KH * KW * C), np.float32)
    for n, oh, ow, kh, kw in np.ndindex(N, OH, OW, KH, KW):
        h, v = oh * SH + kh * DH - PT, ow * SW + kw * DW - PL
        if 0 <= h < H and 0 <= v < W:
            row, column = (n * OH + oh) * OW + ow, (kh * KW + kw) * C
            for c in range(C):
                rows[row, column + c] = x[n, h, v, c]
    return rows


def relu(x: Any) -> Array:
    """Set negative elements to zero: ``y = max(x, 0)``; NaN stays NaN."""
    return _each(lambda value: 0.0 if value <= 0.0 else value, x)


def sigmoid(x: Any) -> Array:
    """Squeeze elements into 0..1: ``y = 1 / (1 + exp(-x))``."""

    def scalar(value: float) -> float:
        if value >= 0.0:
            return 1.0 / (1.0 + math.exp(-value))
        return math.exp(value) / (1.0 + math.exp(value))  # exp(-value) could overflow

    return _each(scalar, x)


def tanh(x: Any) -> Array:
    """Squeeze elements into -1..1: ``y = (exp(x) - exp(-x)) / (exp(x) + exp(-x))``."""
    return _each(math.tanh, x)


def softmax(x: Any, axis: int = -1) -> Array:
    """Turn each row along `axis` into probabilities: ``y = exp(x) / sum(exp(x))``.

    The row's largest element is subtracted first, so that exp cannot overflow.

    Raises
    ------
    ShapeError
        `x` has no such axis.
    """
    x = real_array("x", x)
    axis = axis_of(x, axis)
    y = np.zeros(x.shape, np.float32)
    x_rows, y_rows = np.moveaxis(x, axis, -1), np.moveaxis(y, axis, -1)
    for row in np.ndindex(x_rows.shape[:-1]):
        values = [float(value) for value in x_rows[row]]
        largest = max(values, default=0.0)
        exponentials = [math.exp(value - largest) for value in values]
        total = sum(exponentials)
        for i, exponential in enumerate(exponentials):
            y_rows[(*row, i)] = exponential / total
    return y


def max_pool2d(
    x: Any, pool_size: int | Pair = 2, strides: int | Pair | None = None, padding: str = "valid"
) -> Array:
    """Take the largest element of each window; padding and NaN do not take part.

    Parameters
    ----------
    x : float32[N, H, W, C]
    pool_size : int or (int, int)
    strides : int or (int, int), optional
        `pool_size` by default.
    padding : "valid" or "same"

    Returns
    -------
    float32[N, OH, OW, C]

    Raises
    ------
    ShapeError, DTypeError, ValueError
        As for `conv2d`.
    """

    def largest(window: Iterator[float]) -> float:
        best = float(LOWEST)
        for value in window:
            if value > best:
                best = value
        return best

    return _pool(x, pool_size, strides, padding, largest)


def average_pool2d(
    x: Any, pool_size: int | Pair = 2, strides: int | Pair | None = None, padding: str = "valid"
) -> Array:
    """Take the mean of each window; padding does not count.

    Parameters, result and errors are those of `max_pool2d`.
    """

    def mean(window: Iterator[float]) -> float:
        total, count = 0.0, 0
        for value in window:
            total += value
            count += 1
        return total / count

    return _pool(x, pool_size, strides, padding, mean)


@np.errstate(over="ignore")
def dense(x: Any, w: Any, b: Any = None, activation: str | None = None) -> Array:
    """Multiply vectors by a matrix: ``y[n, o] = b[o] + sum over c of x[n, c] * w[c, o]``.

    Parameters
    ----------
    x : float32[N, C]
    w : float32[C, OC]
    b : float32[OC], optional
    activation : str, optional
        Name of a Keras activation.

    Returns
    -------
    float32[N, OC]

    Raises
    ------
    ShapeError
        Ranks, C or the bias do not fit.
    DTypeError, ValueError
        As for `conv2d`.
    """
    x, w = real_array("x", x, "[N, C]"), real_array("w", w, "[C, OC]")
    (N, C), OC = x.shape, w.shape[1]
    if w.shape[0] != C:
        raise ShapeError(f"dense: expected w of {C} rows, got {w.shape}")
    bias = bias_vector(b, OC)
    y = np.zeros((N, OC), np.float32)
    for n, oc in np.ndindex(y.shape):
        total = float(bias[oc])
        for c in range(C):
            total += float(x[n, c]) * float(w[c, oc])
        y[n, oc] = total
    return _activate(y, activation)


def run(graph: Graph, inputs: Sequence[Any]) -> list[Array]:
    """Compute a graph through the reference of each op.

    Parameters
    ----------
    inputs : one float32 array per graph input, in their order

    Returns
    -------
    One float32 array per graph output, in their order.

    Raises
    ------
    ShapeError
        The number or the shape of the inputs differs from the graph's.
    DTypeError
        An input does not hold real numbers.
    """
    tensors = trace(graph, inputs)
    return [tensors[name] for name in graph.outputs]


def trace(graph: Graph, inputs: Sequence[Any]) -> dict[str, Array]:
    """Compute a graph as `run` does and return every tensor by its node's name."""
    if len(inputs) != len(graph.inputs):
        raise ShapeError(f"expected {len(graph.inputs)} inputs, got {len(inputs)}")
    tensors: dict[str, Array] = {}
    for name, value in zip(graph.inputs, inputs, strict=True):
        x, op = real_array(name, value), graph[name].op
        if isinstance(op, Input) and not same_shape(op.shape, x.shape):
            raise ShapeError(f"input {name!r}: expected {op.shape}, got {x.shape}")
        tensors[name] = x
    for node in graph.nodes:
        if node.name not in tensors:
            tensors[node.name] = node.op.reference(*(tensors[i] for i in node.inputs))
    return tensors


def _pool(
    x: Any,
    pool_size: int | Pair,
    strides: int | Pair | None,
    padding: str,
    reduce: Callable[[Iterator[float]], float],
) -> Array:
    x = real_array("x", x, "[N, H, W, C]")
    N, H, W, C = x.shape
    KH, KW = int_pair("pool_size", pool_size)
    SH, SW = (KH, KW) if strides is None else int_pair("strides", strides)
    OH, OW, PT, PL = _geometry((H, W), (KH, KW), (SH, SW), (1, 1), padding)
    y = np.zeros((N, OH, OW, C), np.float32)
    for n, oh, ow, c in np.ndindex(y.shape):
        top, left = oh * SH - PT, ow * SW - PL
        rows = range(max(top, 0), min(top + KH, H))
        columns = range(max(left, 0), min(left + KW, W))
        y[n, oh, ow, c] = reduce(float(x[n, h, v, c]) for h in rows for v in columns)
    return y


def _geometry(
    lengths: Pair, sizes: Pair, strides: Pair, dilation: Pair, padding: str
) -> tuple[int, int, int, int]:
    """Return OH, OW and the padding on top and on the left."""
    window = (lengths, sizes, strides, dilation, padding_mode(padding))
    OH, OW = known(output_lengths(*window))
    (PT, _), (PL, _) = paddings(*window)
    return OH, OW, PT, PL


def _each(function: Callable[[float], float], x: Any) -> Array:
    x = real_array("x", x)
    y = np.zeros(x.shape, np.float32)
    for index in np.ndindex(x.shape):
        y[index] = function(float(x[index]))
    return y


def _activate(y: Array, name: str | None) -> Array:
    op = activation_op(name)
    return y if op is None else op.reference(y)
