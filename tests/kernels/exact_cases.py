"""Random convolutions, poolings and matrix products on small integers.

Every float32 sum of them is exact, so a kernel must give the bits of int64 arithmetic.
`expected` is written against the definitions in Keras' documentation, not against ops/.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cnnkern.graph import Array, Graph, Op
from cnnkern.ops.activation import Activation
from cnnkern.ops.conv import Conv
from cnnkern.ops.dense import Dense
from cnnkern.ops.depthwise import DepthwiseConv
from cnnkern.ops.pool import AveragePool, GlobalAveragePool, GlobalMaxPool, MaxPool
from cnnkern.ops.transpose import ConvTranspose
from support import graph_of

Pair = tuple[int, int]
Ints = np.ndarray  # int64

BATCHES = (0, 1, 1, 1, 2, 3)
# 1, B-1, B, B+1, 2B+3 for vectors of 4, 8 and 16 floats and panels of 2 vectors; primes.
CHANNELS = (1, 2, 3, 4, 5, 7, 8, 9, 11, 15, 16, 17, 19, 31, 32, 33, 35, 67)
FEW_CHANNELS = (1, 2, 3, 4, 5, 7, 8, 13, 16, 17)
# The same for tiles of 6 and 14 rows and for tasks of 112 rows.
LINES = (1, 2, 5, 6, 7, 13, 14, 15, 31, 111, 112, 113, 227)
SIDES = {1: LINES, 2: (1, 2, 3, 5, 7, 11, 14, 17), 3: (1, 2, 3, 4, 5)}
# Pixels a page apart are walked in shorter tiles; several panels are several tasks.
DEPTHS = (1, 3, 16, 35, 67, 300, 1024)
WIDTHS = (1, 7, 8, 9, 31, 32, 33, 67, 131, 547)
CLIPS = {"relu": (0, None), "relu6": (0, 6), "hard_tanh": (-1, 1), "bounded_relu": (0, 3)}


@dataclass(frozen=True)
class Case:
    """A graph, its integer inputs, and its exact output."""

    graph: Graph
    inputs: tuple[Ints, ...]
    expected: Array

    @property
    def title(self) -> str:
        """The options of the op, arrays as their shapes."""
        op = self.graph["y"].op
        options = {k: v.shape if isinstance(v, np.ndarray) else v for k, v in vars(op).items()}
        return f"{type(op).__name__} {options} on {[x.shape for x in self.inputs]}"


def random_case(rng: np.random.Generator) -> Case:
    """Return a convolution (9 of 14), matrix product, pooling or global pooling."""
    convolutions = (conv_case,) * 5 + (depthwise_case,) * 2 + (transpose_case,) * 2
    kinds = convolutions + (dense_case,) * 2 + (pool_case,) * 2 + (global_pool_case,)
    return kinds[rng.integers(len(kinds))](rng)


def conv_case(rng: np.random.Generator) -> Case:
    """Draw a convolution; one in three is followed by one that wants zeros around its input."""
    rank = int(rng.choice((1, 2, 2, 2, 3)))
    groups = int(rng.choice((1, 1, 1, 2, 3, 5)))
    C, OC = (groups * int(rng.choice(FEW_CHANNELS if groups > 1 else CHANNELS)) for _ in "io")
    space = [int(rng.choice(SIDES[rank])) for _ in range(rank)]
    sizes, strides, dilation, padding = _window(rng, space, dilates=True)
    w = rng.integers(-4, 5, (*sizes, C // groups, OC))
    b = rng.integers(-9, 10, OC) if rng.random() < 0.7 else None
    x = rng.integers(-4, 5, (int(rng.choice(BATCHES)), *space, C))
    pads = _pads(space, sizes, strides, dilation, padding)
    y = convolve(x, w, strides, dilation, pads, groups) + (0 if b is None else b)
    residual = [rng.integers(-50, 50, y.shape)] if rng.random() < 0.3 else []
    activation, clip = _activation(rng)
    op = Conv(
        _float(w), None if b is None else _float(b), strides, padding, dilation,
        activation, bool(residual), groups,
    )  # fmt: skip
    expected = clip(sum(residual, y))
    return _case(op, [x, *residual], expected, rank if rng.random() < 0.3 else 0)


def depthwise_case(rng: np.random.Generator) -> Case:
    """Draw a depthwise convolution; half of them have the strides that are special kernels."""
    rank = int(rng.choice((1, 2, 2)))
    C, CM = int(rng.choice(CHANNELS)), int(rng.choice((1, 1, 2, 3)))
    space = [int(rng.choice(SIDES[rank])) for _ in range(rank)]
    sizes, strides, dilation, padding = _window(rng, space, dilates=True)
    if rng.random() < 0.5:
        sizes, padding = (int(rng.choice((3, 5, 7))),) * rank, "same"
        strides, dilation = (int(rng.choice((1, 2))),) * rank, (1,) * rank
    w = rng.integers(-4, 5, (*sizes, C, CM))
    b = rng.integers(-9, 10, C * CM) if rng.random() < 0.7 else None
    x = rng.integers(-4, 5, (int(rng.choice(BATCHES)), *space, C))
    pads = _pads(space, sizes, strides, dilation, padding)
    grouped = w.reshape(*sizes, 1, C * CM)
    y = convolve(x, grouped, strides, dilation, pads, C) + (0 if b is None else b)
    activation, clip = _activation(rng)
    bias = None if b is None else _float(b)
    op = DepthwiseConv(_float(w), bias, strides, padding, dilation, activation)
    return _case(op, [x], clip(y), rank if rng.random() < 0.3 else 0)


def transpose_case(rng: np.random.Generator) -> Case:
    """Draw a transposed convolution: every input is spread over a window of the output."""
    rank = int(rng.choice((1, 2, 2, 3)))
    space = [int(rng.choice(SIDES[rank])) for _ in range(rank)]
    C, OC = int(rng.choice(FEW_CHANNELS)), int(rng.choice(CHANNELS))
    sizes = tuple(rng.integers(1, 6 - rank, rank).tolist())
    strides = tuple(rng.integers(1, 4, rank).tolist())
    dilation = (1,) * rank
    if max(strides) == 1 and rng.random() < 0.5:
        dilation = tuple(rng.integers(1, 4, rank).tolist())
    padding = str(rng.choice(("valid", "same")))
    w, b = rng.integers(-4, 5, (*sizes, OC, C)), rng.integers(-9, 10, OC)
    x = rng.integers(-4, 5, (int(rng.choice(BATCHES)), *space, C))
    y = spread(x, w, strides, dilation, padding) + b
    activation, clip = _activation(rng)
    op = ConvTranspose(_float(w), _float(b), strides, padding, dilation, None, activation)
    return _case(op, [x], clip(y), rank if rng.random() < 0.3 else 0)


def dense_case(rng: np.random.Generator) -> Case:
    """Draw a matrix product on rank 2, 3 or 4."""
    K, units = int(rng.choice(DEPTHS)), int(rng.choice(WIDTHS))
    rows = (int(rng.choice(BATCHES)), *rng.choice((1, 2, 7, 15), rng.integers(0, 3)).tolist())
    w = rng.integers(-4, 5, (K, units))
    b = rng.integers(-9, 10, units)
    x = rng.integers(-4, 5, (*rows, K))
    y = x.reshape(-1, K) @ w + b
    y = y.reshape(*rows, units)
    residual = [rng.integers(-50, 50, y.shape)] if rng.random() < 0.3 else []
    activation, clip = _activation(rng)
    op = Dense(_float(w), _float(b), activation, bool(residual))
    return _case(op, [x, *residual], clip(sum(residual, y)))


def pool_case(rng: np.random.Generator) -> Case:
    """Draw a max or average pooling of which no window lies in the padding alone."""
    rank = int(rng.choice((1, 2, 2, 3)))
    space = [int(rng.choice(SIDES[rank])) for _ in range(rank)]
    sizes, strides, _, padding = _window(rng, space, dilates=False)
    x = rng.integers(-9, 10, (int(rng.choice(BATCHES)), *space, int(rng.choice(CHANNELS))))
    pads = _pads(space, sizes, strides, (1,) * rank, padding)
    windows, inside = _windows(x, sizes, strides, pads)
    if rng.random() < 0.5:
        y = np.where(inside, windows, np.iinfo(np.int64).min).max(axis=0)
        return _case(MaxPool(sizes, strides, padding), [x], _float(y))
    total, count = np.where(inside, windows, 0).sum(axis=0), inside.sum(axis=0)
    return _case(AveragePool(sizes, strides, padding), [x], _float(total) / _float(count))


def global_pool_case(rng: np.random.Generator) -> Case:
    """Draw a pooling over all pixels."""
    rank = int(rng.choice((1, 2, 3)))
    space = [int(rng.choice(SIDES[rank])) for _ in range(rank)]
    x = rng.integers(-9, 10, (int(rng.choice(BATCHES)), *space, int(rng.choice(CHANNELS))))
    keepdims, axes = bool(rng.integers(2)), tuple(range(1, rank + 1))
    if rng.random() < 0.5:
        return _case(GlobalMaxPool(rank, keepdims), [x], _float(x.max(axes, keepdims=keepdims)))
    total = _float(x.sum(axes, keepdims=keepdims))
    return _case(GlobalAveragePool(rank, keepdims), [x], total / np.float32(np.prod(space)))


def convolve(
    x: Ints, w: Ints, strides: tuple[int, ...], dilation: tuple[int, ...],
    pads: list[Pair], groups: int,
) -> Ints:  # fmt: skip
    """Return ``y[n, o, oc] = sum over k, c of x[n, o*S + k*D - P, c] * w[k, c, oc]``."""
    *sizes, depth, OC = w.shape
    windows, _ = _windows(x, tuple(sizes), strides, pads, dilation)
    grouped = windows.reshape(*windows.shape[:-1], groups, 1, depth)
    filters = w.reshape(-1, depth, groups, OC // groups).transpose(0, 2, 1, 3)
    y = np.zeros((*windows.shape[1:-1], groups, 1, OC // groups), w.dtype)
    for tap, matrices in zip(grouped, filters, strict=True):
        y += tap @ matrices
    return y.reshape(*windows.shape[1:-1], OC)


def spread(
    x: Ints, w: Ints, strides: tuple[int, ...], dilation: tuple[int, ...], padding: str
) -> Ints:
    """Return ``y[n, i*S + k*D - P, oc] += x[n, i, c] * w[k, oc, c]``.

    SAME gives ``n * S`` outputs, VALID as many as the windows cover, at least ``n * S``.
    """
    *sizes, OC, _ = w.shape
    axes = list(zip(x.shape[1:-1], sizes, strides, dilation, strict=True))
    spans = [(k - 1) * d + 1 for _, k, _, d in axes]
    surplus = [max(span - s, 0) for span, s in zip(spans, strides, strict=True)]
    full = [n * s + extra for (n, _, s, _), extra in zip(axes, surplus, strict=True)]
    y = np.zeros((x.shape[0], *full, OC), np.int64)
    for tap in np.ndindex(*sizes):
        place = tuple(
            slice(t * d, t * d + (n - 1) * s + 1, s)
            for t, (n, _, s, d) in zip(tap, axes, strict=True)
        )
        y[(slice(None), *place)] += x @ w[tap].T
    if padding == "valid":
        return y
    cut = [(extra // 2, n * s) for (n, _, s, _), extra in zip(axes, surplus, strict=True)]
    return y[(slice(None), *(slice(before, before + length) for before, length in cut))]


def _windows(
    x: Ints, sizes: tuple[int, ...], strides: tuple[int, ...], pads: list[Pair],
    dilation: tuple[int, ...] = (1, 1, 1),
) -> tuple[Ints, np.ndarray]:  # fmt: skip
    """Return every tap's view of the padded input, and where it is not padding."""
    whole = [(0, 0), *pads, (0, 0)]
    padded, inside = np.pad(x, whole), np.pad(np.ones(x.shape, bool), whole)
    counts = [
        (n - (k - 1) * d - 1) // s + 1
        for n, k, s, d in zip(padded.shape[1:-1], sizes, strides, dilation, strict=False)
    ]
    taps = []
    for tap in np.ndindex(*sizes):
        axes = zip(tap, strides, dilation, counts, strict=False)
        place = tuple(slice(t * d, t * d + (n - 1) * s + 1, s) for t, s, d, n in axes)
        taps.append((slice(None), *place))
    return np.stack([padded[t] for t in taps]), np.stack([inside[t] for t in taps])


def _window(rng: np.random.Generator, space: list[int], dilates: bool) -> tuple[Any, ...]:
    """Draw sizes, strides, dilation and padding that leave at least one window."""
    rank = len(space)
    while True:
        sizes = tuple(rng.integers(1, 6 - rank, rank).tolist())
        strides = tuple(rng.choice((1, 1, 2, 3, 5), rank).tolist())
        dilation = tuple(rng.integers(1, 4, rank).tolist()) if dilates else (1,) * rank
        if dilates and rng.random() < 0.5:
            dilation = (1,) * rank
        padding: Any = str(rng.choice(("valid", "same", "same")))
        if rng.random() < 0.25:
            # Less than the size on either side: no pooling window is all padding.
            padding = tuple((int(rng.integers(k)), int(rng.integers(k))) for k in sizes)
        pads = _pads(space, sizes, strides, dilation, padding)
        spans = [(k - 1) * d + 1 for k, d in zip(sizes, dilation, strict=True)]
        if all(n + sum(p) >= s for n, p, s in zip(space, pads, spans, strict=True)):
            return sizes, strides, dilation, padding


def _pads(
    space: list[int], sizes: tuple[int, ...], strides: tuple[int, ...],
    dilation: tuple[int, ...], padding: Any,
) -> list[Pair]:  # fmt: skip
    if padding == "valid":
        return [(0, 0)] * len(space)
    if padding != "same":
        return list(padding)
    pads = []
    for n, k, s, d in zip(space, sizes, strides, dilation, strict=True):
        total = max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
        pads.append((total // 2, total - total // 2))
    return pads


def _activation(rng: np.random.Generator) -> tuple[Activation | None, Any]:
    """Draw an activation that clips, and its int64 counterpart."""
    if rng.random() < 0.5:
        return None, _float
    name = str(rng.choice(list(CLIPS)))
    lo, hi = CLIPS[name]
    parameters = (0.0, float(hi), 0.0) if name == "bounded_relu" else ()
    return Activation(name, parameters), lambda y: _float(np.clip(y, lo, hi))


def _case(op: Op, inputs: list[Ints], expected: Array, halo_rank: int = 0) -> Case:
    """Return `op` as a graph, behind it maybe an identity convolution of 3 taps per axis."""
    names = [f"x{i}" for i in range(len(inputs))]
    steps: list[Any] = [("y", op, tuple(names))]
    if halo_rank:
        C = expected.shape[-1]
        w = np.zeros((*(3,) * halo_rank, C, C), np.float32)
        w[(1,) * halo_rank] = np.eye(C)
        ones = (1,) * halo_rank
        steps.append(("z", Conv(w, None, ones, "same", ones), ("y",)))
    shapes = {name: (None, *x.shape[1:]) for name, x in zip(names, inputs, strict=True)}
    return Case(graph_of(shapes, steps), tuple(inputs), expected)


def _float(values: Ints) -> Array:
    return values.astype(np.float32)
