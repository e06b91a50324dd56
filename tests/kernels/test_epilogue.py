"""A fused activation gives the bits of the same activation as a step of its own."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cnnkern.codegen.isa import available
from cnnkern.graph import Array
from cnnkern.ops.activation import Activation
from cnnkern.ops.conv import Conv
from cnnkern.ops.dense import Dense
from cnnkern.ops.depthwise import DepthwiseConv
from cnnkern.ops.prelu import Elementwise, PReLU
from cnnkern.ops.transpose import ConvTranspose
from support import graph_of, run_kernels

each_isa = pytest.mark.parametrize("isa", available(), ids=lambda isa: isa.name)


def normal(*shape: int) -> Array:
    return np.random.default_rng(5).standard_normal(shape, np.float32)


OPS = {
    "one panel": (Conv(normal(1, 1, 3, 5), normal(5)), (5, 7, 3)),
    "several panels": (Conv(normal(3, 3, 8, 67), normal(67)), (9, 9, 8)),
    "groups": (Conv(normal(3, 3, 4, 36), None, groups=3), (9, 9, 12)),
    "depthwise": (DepthwiseConv(normal(3, 3, 35, 1), normal(35), padding="same"), (9, 9, 35)),
    "multiplied": (DepthwiseConv(normal(3, 3, 5, 3), normal(15), (2, 2)), (9, 9, 5)),
    "transpose": (ConvTranspose(normal(3, 3, 5, 4), normal(5), (2, 2), "same"), (4, 5, 4)),
    "dense": (Dense(normal(300, 547), normal(547)), (300,)),
    "volume": (Conv(normal(1, 1, 1, 2, 5), None, (1,) * 3, "valid", (1,) * 3), (4, 3, 3, 2)),
    "tiles": (Conv(normal(3, 3, 32, 43), normal(43), may_transform=True), (13, 13, 32)),
    "halves": (Conv(normal(1, 1, 640, 77), normal(77), may_transform=True), (12, 12, 640)),
}
ACTIVATIONS: dict[str, Callable[[int], Elementwise]] = {
    "sigmoid": lambda C: Activation("sigmoid"),
    "tanh": lambda C: Activation("tanh"),
    "one slope": lambda C: Activation("leaky_relu", (0.3,)),
    "slopes": lambda C: PReLU(normal(C)),
}
# What reads the activation: nothing, or a convolution that wants zeros around some axes.
HALOS = {4: [(3, 3)], 5: [(3, 1, 1), (1, 3, 1), (1, 1, 3)]}


@each_isa
@pytest.mark.parametrize("function", ACTIVATIONS)
@pytest.mark.parametrize("name", OPS)
def test_fused_equals_separate(isa: Any, function: str, name: str) -> None:
    op, shape = OPS[name]
    activation = ACTIVATIONS[function](op.out_channels)
    x = normal(3, *shape)
    for reader in readers(len(x.shape), op.infer_shape(x.shape)[-1]):
        inputs: Any = {"x": (None, *shape)}
        fused = graph_of(inputs, [("y", replace(op, activation=activation), ("x",)), *reader])
        separate = graph_of(inputs, [("c", op, ("x",)), ("y", activation, ("c",)), *reader])
        (one,), (other,) = (run_kernels(g, x, isa=isa) for g in (fused, separate))
        np.testing.assert_array_equal(one, other)


def readers(rank: int, C: Any) -> list[list[tuple[str, Conv, tuple[str, ...]]]]:
    """Return steps to put behind `y`: none, or one convolution."""
    ones = (1,) * (rank - 2)
    filters = [normal(*sizes, C, 4) for sizes in HALOS.get(rank, [])]
    return [[], *([("z", Conv(w, None, ones, "same", ones), ("y",))] for w in filters)]
