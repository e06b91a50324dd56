"""The kernels on plain arrays, with the names and arguments of `cnnkern.naive`.

A call plans an op and runs it. Plans of ops without weights on small arrays are kept; for the
rest a `Model`, which plans once, is the way to run a network.
Arrays of other real types are cast to float32. All functions raise ShapeError where
shapes do not fit, and ValueError for an option that is not among the accepted values.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from .arguments import (
    activation_op,
    axis_of,
    bias_vector,
    grouped_channels,
    int_pair,
    padding_mode,
    real_array,
)
from .engine import Model
from .graph import Array, Graph, Node, Op
from .ops.activation import Activation
from .ops.conv import Conv
from .ops.dense import Dense
from .ops.layout import Input
from .ops.pool import AveragePool, MaxPool
from .ops.softmax import Softmax
from .ops.unfold import Im2col
from .shapes import Pair

IntOrPair = int | Pair

KEPT_NBYTES = 1 << 18  # of an array whose plan is kept, with memory for its tensors


def conv2d(
    x: ArrayLike,
    w: ArrayLike,
    b: ArrayLike | None = None,
    strides: IntOrPair = 1,
    padding: str = "valid",
    dilation_rate: IntOrPair = 1,
    groups: int = 1,
    activation: str | None = None,
) -> Array:
    """Convolve images with filters.

    ``y[n, oh, ow, oc] = b[oc] + sum over kh, kw, c of
    x[n, oh*SH + kh*DH - PT, ow*SW + kw*DW - PL, c] * w[kh, kw, c, oc]``

    Parameters
    ----------
    x : float32[N, H, W, C]
    w : float32[KH, KW, C / groups, OC]
    b : float32[OC], optional
    strides, dilation_rate : int or (int, int)
    padding : "valid" or "same"
    groups : int
        Divides C and OC; output channels read the input channels of their own group only.
    activation : str, optional
        A name of https://keras.io/api/layers/activations

    Returns
    -------
    float32[N, OH, OW, OC]

    Raises
    ------
    ShapeError
        An array's rank or an axis does not fit.
    ValueError
        `padding`, `activation`, `strides`, `dilation_rate` or `groups` is not accepted.
    """
    x = real_array("x", x, "[N, H, W, C]")
    w = real_array("w", w, "[KH, KW, C/groups, OC]")
    grouped_channels(x, w, groups)
    conv = Conv(
        w, bias_vector(b, w.shape[-1]), int_pair("strides", strides), padding_mode(padding),
        int_pair("dilation_rate", dilation_rate), groups=groups,
    )  # fmt: skip
    return _run(x, conv, activation_op(activation))


def im2col(
    x: ArrayLike,
    kernel_size: IntOrPair,
    strides: IntOrPair = 1,
    padding: str = "valid",
    dilation_rate: IntOrPair = 1,
) -> Array:
    """Copy each receptive field into a row of a matrix.

    Parameters
    ----------
    x : float32[N, H, W, C]
    kernel_size, strides, dilation_rate : int or (int, int)
    padding : "valid" or "same"

    Returns
    -------
    float32[N*OH*OW, KH*KW*C]

    Raises
    ------
    ShapeError
        `x` is not of rank 4.
    ValueError
        An option is not accepted.
    """
    op = Im2col(
        int_pair("kernel_size", kernel_size),
        int_pair("strides", strides),
        padding_mode(padding),
        int_pair("dilation_rate", dilation_rate),
    )
    y = _run(real_array("x", x, "[N, H, W, C]"), op)
    return y.reshape(-1, y.shape[-1])


def max_pool2d(
    x: ArrayLike,
    pool_size: IntOrPair = 2,
    strides: IntOrPair | None = None,
    padding: str = "valid",
) -> Array:
    """Take the largest element of each window; padding does not take part.

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
    ShapeError
        `x` is not of rank 4.
    ValueError
        An option is not accepted.
    """
    sizes, steps = _window(pool_size, strides)
    return _run(
        real_array("x", x, "[N, H, W, C]"), MaxPool(sizes, steps, padding_mode(padding))
    )


def average_pool2d(
    x: ArrayLike,
    pool_size: IntOrPair = 2,
    strides: IntOrPair | None = None,
    padding: str = "valid",
) -> Array:
    """Take the mean of each window; padding does not count. Arguments of `max_pool2d`."""
    sizes, steps = _window(pool_size, strides)
    return _run(
        real_array("x", x, "[N, H, W, C]"), AveragePool(sizes, steps, padding_mode(padding))
    )


def dense(
    x: ArrayLike, w: ArrayLike, b: ArrayLike | None = None, activation: str | None = None
) -> Array:
    """Multiply by a matrix: ``y[n, oc] = b[oc] + sum over c of x[n, c] * w[c, oc]``.

    Parameters
    ----------
    x : float32[N, C]
    w : float32[C, OC]
    b : float32[OC], optional
    activation : str, optional
        A name of https://keras.io/api/layers/activations

    Returns
    -------
    float32[N, OC]

    Raises
    ------
    ShapeError
        An array's rank or an axis does not fit.
    ValueError
        `activation` is not accepted.
    """
    x, w = real_array("x", x, "[N, C]"), real_array("w", w, "[C, OC]")
    return _run(x, Dense(w, bias_vector(b, w.shape[-1])), activation_op(activation))


def relu(x: ArrayLike) -> Array:
    """Return max(x, 0) for float32 `x` of any shape."""
    return _elementwise(x, Activation("relu"))


def sigmoid(x: ArrayLike) -> Array:
    """Return 1 / (1 + exp(-x)) for float32 `x` of any shape."""
    return _elementwise(x, Activation("sigmoid"))


def tanh(x: ArrayLike) -> Array:
    """Return the hyperbolic tangent of float32 `x` of any shape."""
    return _elementwise(x, Activation("tanh"))


def softmax(x: ArrayLike, axis: int = -1) -> Array:
    """Return exp(x) / sum(exp(x)) along `axis` of float32 `x`."""
    x = real_array("x", x)
    axis = axis_of(x, axis)
    last = np.moveaxis(x, axis, -1)
    rows = np.ascontiguousarray(last).reshape(-1, x.shape[axis])
    y = _run(rows, Softmax()) if rows.size else rows
    return np.ascontiguousarray(np.moveaxis(y.reshape(last.shape), -1, axis))


def _run(x: Array, *chain: Op | None) -> Array:
    """Plan and run ops one after the other."""
    ops = tuple(filter(None, chain))
    is_kept = x.nbytes <= KEPT_NBYTES and all(op.is_value for op in ops)
    make_model = _kept_model if is_kept else _model
    result: Array = make_model(x.shape, ops)(x)
    return result


def _model(shape: tuple[int, ...], ops: tuple[Op, ...]) -> Model:
    nodes = [Node("x", Input(shape))]
    for op in ops:
        nodes.append(Node(f"y{len(nodes)}", op, (nodes[-1].name,)))
    graph = Graph(tuple(nodes), ("x",), (nodes[-1].name,))
    # Transformed filters take longer to prepare than one image takes to convolve.
    return Model(graph, precision="strict")


_kept_model = lru_cache(maxsize=64)(_model)


def _elementwise(x: ArrayLike, op: Op) -> Array:
    x = real_array("x", x)
    return _run(x.reshape(1, -1), op).reshape(x.shape)


def _window(
    pool_size: IntOrPair, strides: IntOrPair | None
) -> tuple[tuple[int, int], tuple[int, int]]:
    sizes = int_pair("pool_size", pool_size)
    return sizes, sizes if strides is None else int_pair("strides", strides)
