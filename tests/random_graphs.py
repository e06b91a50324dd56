"""Random graphs of ``float32[N, 6, 6, 4]`` tensors: branches, shared reads, many outputs."""

import numpy as np

from cnnkern.graph import Array, Graph, Op
from cnnkern.ops.activation import Activation
from cnnkern.ops.conv import Conv
from cnnkern.ops.dense import Dense
from cnnkern.ops.depthwise import DepthwiseConv
from cnnkern.ops.layout import Identity, ZeroPadding
from cnnkern.ops.merge import Add
from cnnkern.ops.norm import BatchNorm
from cnnkern.ops.pool import AveragePool, MaxPool
from support import graph_of

SIDE, C = 6, 4
SHAPE = (None, SIDE, SIDE, C)
PADDED = (None, SIDE + 2, SIDE + 2, C)


def random_graph(seed: int) -> Graph:
    """Return a graph of 4 to 14 nodes behind its input, with 1 to 3 outputs."""
    rng = np.random.default_rng(seed)
    shapes: dict[str, tuple[int | None, ...]] = {"x": SHAPE}
    steps: list[tuple[str, Op, tuple[str, ...]]] = []
    for index in range(int(rng.integers(4, 15))):
        # Recent tensors are drawn more often, so that chains arise for the passes to fuse.
        names = list(shapes)[-3:] if rng.random() < 0.7 else list(shapes)
        source = str(rng.choice(names))
        op = random_op(rng, shapes[source] == PADDED)
        inputs = (source,)
        if isinstance(op, Add):
            equal = [name for name in shapes if shapes[name] == shapes[source]]
            inputs = (source, *map(str, rng.choice(equal, int(rng.integers(1, 3)))))
        name = f"n{index}"
        shapes[name] = op.infer_shape(*(shapes[i] for i in inputs))
        steps.append((name, op, inputs))
    outputs = {steps[-1][0], *map(str, rng.choice([s[0] for s in steps], 2)[: rng.integers(3)])}
    return graph_of({"x": SHAPE}, steps, *sorted(outputs))


def random_op(rng: np.random.Generator, is_padded: bool) -> Op:
    """Return an op that keeps the shape, pads it, or removes the padding."""

    def normal(*shape: int) -> Array:
        return rng.standard_normal(shape, np.float32) / np.float32(np.sqrt(np.prod(shape[:-1])))

    bias = normal(1, C).ravel() if rng.random() < 0.5 else None
    if is_padded:
        filters = [Conv(normal(3, 3, C, C), bias), DepthwiseConv(normal(3, 3, C, 1), bias)]
        return [*filters, Activation("relu"), Add()][rng.integers(4)]
    makers = [
        lambda: Conv(normal(3, 3, C, C), bias, padding="same"),
        lambda: Conv(normal(1, 1, C, C), bias),
        lambda: Conv(normal(3, 3, C // 2, C), bias, padding="same", groups=2),
        lambda: DepthwiseConv(normal(3, 3, C, 1), bias, padding="same"),
        lambda: Dense(normal(C, C), bias),
        lambda: BatchNorm(
            *(normal(1, C).ravel() for _ in range(3)), rng.random(C, np.float32) + 1
        ),
        lambda: Activation(str(rng.choice(["relu", "relu6", "tanh", "sigmoid"]))),
        Identity,
        lambda: ZeroPadding(((1, 1), (2, 0))),
        Add,
        Add,
        lambda: MaxPool((3, 3), (1, 1), "same"),
        lambda: AveragePool((2, 2), (1, 1), "same"),
    ]
    return makers[rng.integers(len(makers))]()


def random_input(seed: int, count: int = 2) -> Array:
    """Return gaussian ``float32[count, 6, 6, 4]``."""
    return np.random.default_rng(seed).standard_normal((count, SIDE, SIDE, C), np.float32)
