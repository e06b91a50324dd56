"""Random convolutions, poolings and matrix products on small integers.

Every float32 sum of them is exact, so a kernel must give the bits of int64 arithmetic.
`expected` is written against integers.py, not against ops/.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice, product
from typing import Any

import numpy as np

from cnnkern.graph import Array, Graph, Op
from cnnkern.ops.activation import Activation
from cnnkern.ops.adaptive import AdaptiveAveragePool, AdaptiveMaxPool
from cnnkern.ops.conv import Conv
from cnnkern.ops.dense import Dense
from cnnkern.ops.depthwise import DepthwiseConv
from cnnkern.ops.pool import AveragePool, GlobalAveragePool, GlobalMaxPool, MaxPool
from cnnkern.ops.transpose import ConvTranspose
from integers import Ints, convolve, spread, window_pads, windows
from support import graph_of

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

    def kinds(self, class_name: str) -> set[str]:
        """Return the class and each of its options that this case sets."""
        op = next(node.op for node in self.graph.nodes if node.inputs)
        assert f"keras.layers>{class_name}" in op.keras_classes
        found = [
            option
            for option, default in (
                ("strides", 1), ("dilation_rate", 1), ("groups", 1), ("output_padding", 0),
            )
            if np.max(getattr(op, option, None) or default) > default
        ]  # fmt: skip
        if isinstance(op, Conv):
            regions = op.regions(self.inputs[0].shape[1:-1]) or ()
            found += ["regions"] if any(len(axis) > 1 for axis in regions) else []
        padding = getattr(op, "padding", None)
        found += [padding] if isinstance(padding, str) else []
        return {class_name, *(f"{class_name} {option}" for option in found)}


def cases(seed: int, count: int) -> Iterator[tuple[str, Case]]:
    """Yield random cases with the names of their Keras classes, all classes in turn."""
    rng = np.random.default_rng(seed)
    for class_name in islice(cycle(TURNS), count):
        yield class_name, DRAWS[class_name](rng)


def conv_case(rng: np.random.Generator, rank: int) -> Case:
    """Draw a convolution; one in three is followed by one that wants zeros around its input."""
    groups = int(rng.choice((1, 1, 1, 2, 3, 5)))
    C, OC = (groups * int(rng.choice(FEW_CHANNELS if groups > 1 else CHANNELS)) for _ in "io")
    space = [int(rng.choice(SIDES[rank])) for _ in range(rank)]
    modes = ("causal",) if rank == 1 else ()
    sizes, strides, dilation, padding = _window(rng, space, True, *modes)
    w = rng.integers(-4, 5, (*sizes, C // groups, OC))
    b = rng.integers(-9, 10, OC) if rng.random() < 0.7 else None
    x = rng.integers(-4, 5, (int(rng.choice(BATCHES)), *space, C))
    pads = window_pads(space, sizes, strides, dilation, padding)
    border = rng.integers(-4, 5, C) if groups == 1 and rng.random() < 0.3 else None
    padded = x if border is None else _with_border(x, border, pads)
    inside = pads if border is None else [(0, 0)] * rank
    y = convolve(padded, w, strides, dilation, inside, groups) + (0 if b is None else b)
    residual = [rng.integers(-50, 50, y.shape)] if rng.random() < 0.3 else []
    activation, clip = _activation(rng)
    op = Conv(
        _float(w), None if b is None else _float(b), strides, padding, dilation,
        activation, bool(residual), groups, border=None if border is None else _float(border),
    )  # fmt: skip
    expected = clip(sum(residual, y))
    return _case(op, [x, *residual], expected, rank if rng.random() < 0.3 else 0)


def depthwise_case(rng: np.random.Generator, rank: int) -> Case:
    """Draw a depthwise convolution; half of them have the strides that are special kernels."""
    x, w, window, y = _depthwise(rng, rank)
    b = rng.integers(-9, 10, y.shape[-1]) if rng.random() < 0.7 else None
    activation, clip = _activation(rng)
    op = DepthwiseConv(_float(w), None if b is None else _float(b), *window, activation)
    expected = clip(y + (0 if b is None else b))
    return _case(op, [x], expected, rank if rng.random() < 0.3 else 0)


def separable_case(rng: np.random.Generator, rank: int) -> Case:
    """Draw a depthwise convolution and the pointwise one behind it."""
    x, w, window, between = _depthwise(rng, rank)
    OC = int(rng.choice(FEW_CHANNELS))
    pointwise, b = rng.integers(-4, 5, (between.shape[-1], OC)), rng.integers(-9, 10, OC)
    activation, clip = _activation(rng)
    ones = (1,) * rank
    filters = _float(pointwise.reshape(*ones, -1, OC))
    graph = graph_of(
        {"x": (None, *x.shape[1:])},
        [
            ("depthwise", DepthwiseConv(_float(w), None, *window), ("x",)),
            ("y", Conv(filters, _float(b), ones, "valid", ones, activation), ("depthwise",)),
        ],
    )
    return Case(graph, (x,), clip(between @ pointwise + b))


def _depthwise(rng: np.random.Generator, rank: int) -> tuple[Any, ...]:
    """Draw an input, filters, (strides, padding, dilation), and return their result too."""
    C, CM = int(rng.choice(CHANNELS)), int(rng.choice((1, 1, 2, 3)))
    space = [int(rng.choice(SIDES[rank])) for _ in range(rank)]
    sizes, strides, dilation, padding = _window(rng, space, True)
    if rng.random() < 0.5:
        sizes, padding = (int(rng.choice((3, 5, 7))),) * rank, "same"
        strides, dilation = (int(rng.choice((1, 2))),) * rank, (1,) * rank
    w = rng.integers(-4, 5, (*sizes, C, CM))
    x = rng.integers(-4, 5, (int(rng.choice(BATCHES)), *space, C))
    pads = window_pads(space, sizes, strides, dilation, padding)
    y = convolve(x, w.reshape(*sizes, 1, C * CM), strides, dilation, pads, C)
    return x, w, (strides, padding, dilation), y


def transpose_case(rng: np.random.Generator, rank: int) -> Case:
    """Draw a transposed convolution: every input is spread over a window of the output."""
    space = [int(rng.choice(SIDES[rank])) for _ in range(rank)]
    C, OC = int(rng.choice(FEW_CHANNELS)), int(rng.choice(CHANNELS))
    sizes = tuple(rng.integers(1, 6 - rank, rank).tolist())
    strides = tuple(rng.integers(1, 4, rank).tolist())
    dilation = (1,) * rank
    if rng.random() < 0.3:
        strides, dilation = dilation, tuple(rng.integers(1, 4, rank).tolist())
    padding = str(rng.choice(("valid", "same")))
    extra = _output_padding(rng, sizes, strides, dilation, padding)
    w, b = rng.integers(-4, 5, (*sizes, OC, C)), rng.integers(-9, 10, OC)
    x = rng.integers(-4, 5, (int(rng.choice(BATCHES)), *space, C))
    y = spread(x, w, strides, dilation, padding, extra) + b
    activation, clip = _activation(rng)
    op = ConvTranspose(_float(w), _float(b), strides, padding, dilation, extra, activation)
    return _case(op, [x], clip(y), rank if rng.random() < 0.3 else 0)


def _output_padding(
    rng: np.random.Generator, sizes: tuple[int, ...], strides: tuple[int, ...],
    dilation: tuple[int, ...], padding: str,
) -> tuple[int, ...] | None:  # fmt: skip
    """Draw less than the strides, more than 0 for SAME and an even span; often None."""
    spans = [(k - 1) * d + 1 for k, d in zip(sizes, dilation, strict=True)]
    least = [int(padding == "same" and span % 2 == 0) for span in spans]
    if rng.random() < 0.5 or any(low >= s for low, s in zip(least, strides, strict=True)):
        return None
    return tuple(int(rng.integers(low, s)) for low, s in zip(least, strides, strict=True))


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


def pool_case(rng: np.random.Generator, rank: int, is_max: bool) -> Case:
    """Draw a pooling of which no window lies in the padding alone."""
    space = [int(rng.choice(SIDES[rank])) for _ in range(rank)]
    sizes, strides, _, padding = _window(rng, space, False)
    x = rng.integers(-9, 10, (int(rng.choice(BATCHES)), *space, int(rng.choice(CHANNELS))))
    pads = window_pads(space, sizes, strides, (1,) * rank, padding)
    values, inside = windows(x, sizes, strides, pads)
    if is_max:
        y = np.where(inside, values, np.iinfo(np.int64).min).max(axis=0)
        return _case(MaxPool(sizes, strides, padding), [x], _float(y))
    total, count = np.where(inside, values, 0).sum(axis=0), inside.sum(axis=0)
    return _case(AveragePool(sizes, strides, padding), [x], _float(total) / _float(count))


def global_pool_case(rng: np.random.Generator, rank: int, is_max: bool) -> Case:
    """Draw a pooling over all pixels."""
    space = [int(rng.choice(SIDES[rank])) for _ in range(rank)]
    x = rng.integers(-9, 10, (int(rng.choice(BATCHES)), *space, int(rng.choice(CHANNELS))))
    keepdims, axes = bool(rng.integers(2)), tuple(range(1, rank + 1))
    if is_max:
        return _case(GlobalMaxPool(rank, keepdims), [x], _float(x.max(axes, keepdims=keepdims)))
    total = _float(x.sum(axes, keepdims=keepdims))
    return _case(GlobalAveragePool(rank, keepdims), [x], total / np.float32(np.prod(space)))


def adaptive_pool_case(rng: np.random.Generator, rank: int, is_max: bool) -> Case:
    """Draw a pooling to a fixed size: fewer, as many, or more outputs than inputs."""
    space = [int(rng.choice(SIDES[rank])) for _ in range(rank)]
    outputs = tuple(int(rng.integers(1, min(n, 9) + 2)) for n in space)
    x = rng.integers(-9, 10, (int(rng.choice(BATCHES)), *space, int(rng.choice(CHANNELS))))
    y = np.empty((x.shape[0], *outputs, x.shape[-1]), np.float32)
    axes = tuple(range(1, rank + 1))
    for position in np.ndindex(*outputs):
        place = tuple(
            slice(math.floor(o * n / out), math.ceil((o + 1) * n / out))
            for o, n, out in zip(position, space, outputs, strict=True)
        )
        window = x[(slice(None), *place)]
        total = window.max(axes) if is_max else window.sum(axes)
        n_pixels = 1 if is_max else np.prod(window.shape[1:-1])
        y[(slice(None), *position)] = _float(total) / np.float32(n_pixels)
    return _case((AdaptiveMaxPool if is_max else AdaptiveAveragePool)(outputs), [x], y)


def _window(
    rng: np.random.Generator, space: list[int], dilates: bool, *more_modes: str
) -> tuple[Any, ...]:
    """Draw sizes, strides, dilation and padding that leave at least one window."""
    rank = len(space)
    while True:
        sizes = tuple(rng.integers(1, 6 - rank, rank).tolist())
        strides = tuple(rng.choice((1, 1, 2, 3, 5), rank).tolist())
        dilation = tuple(rng.integers(1, 4, rank).tolist()) if dilates else (1,) * rank
        if dilates and rng.random() < 0.5:
            dilation = (1,) * rank
        padding: Any = str(rng.choice(("valid", "same", "same", *more_modes)))
        if rng.random() < 0.25:
            # Less than the size on either side: no pooling window is all padding.
            padding = tuple((int(rng.integers(k)), int(rng.integers(k))) for k in sizes)
        pads = window_pads(space, sizes, strides, dilation, padding)
        spans = [(k - 1) * d + 1 for k, d in zip(sizes, dilation, strict=True)]
        if all(n + sum(p) >= s for n, p, s in zip(space, pads, spans, strict=True)):
            return sizes, strides, dilation, padding


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


def _with_border(x: Ints, border: Ints, pads: Sequence[tuple[int, int]]) -> Ints:
    """Return images with a repeated pixel around them."""
    whole = [(0, 0), *pads, (0, 0)]
    return np.where(np.pad(np.ones(x.shape, bool), whole), np.pad(x, whole), border)


def _float(values: Ints) -> Array:
    return values.astype(np.float32)


# The Keras class -> how a case of it is drawn.
DRAWS: dict[str, Callable[[np.random.Generator], Case]] = {
    "Dense": dense_case,
    **{f"Conv{rank}D": partial(conv_case, rank=rank) for rank in (1, 2, 3)},
    **{f"Conv{rank}DTranspose": partial(transpose_case, rank=rank) for rank in (1, 2, 3)},
    **{f"DepthwiseConv{rank}D": partial(depthwise_case, rank=rank) for rank in (1, 2)},
    **{f"SeparableConv{rank}D": partial(separable_case, rank=rank) for rank in (1, 2)},
    **{
        f"{prefix}{fold}Pooling{rank}D": partial(draw, rank=rank, is_max=fold == "Max")
        for prefix, draw in (
            ("", pool_case), ("Global", global_pool_case), ("Adaptive", adaptive_pool_case),
        )
        for fold in ("Max", "Average")
        for rank in (1, 2, 3)
    },
}  # fmt: skip

# Classes with many options and kernels come around more often: 3 of 5 are convolutions.
OFTEN = {
    "Conv1D": 4, "Conv2D": 5, "Conv3D": 3, "DepthwiseConv1D": 2, "DepthwiseConv2D": 3,
    "Conv1DTranspose": 2, "Conv2DTranspose": 3, "Conv3DTranspose": 2, "Dense": 3,
}  # fmt: skip
TURNS = tuple(name for name in DRAWS for _ in range(OFTEN.get(name, 1)))

# What a run must have seen: every class, and the options that change where numbers lie.
KINDS = frozenset(DRAWS) | {
    f"{name} {option}"
    for names, options in (
        (("Conv1D",), ("causal",)),
        (("Conv1D", "Conv2D", "Conv3D"), ("groups", "regions")),
        ([name for name in DRAWS if "Conv" in name], ("strides", "dilation_rate")),
        ([n for n in DRAWS if n.endswith("Transpose")], ("output_padding",)),
        ([n for n in DRAWS if "Conv" in n or n[:3] in ("Max", "Ave")], ("same", "valid")),
    )
    for name, option in product(names, options)
}
