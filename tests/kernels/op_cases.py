"""Every op class with options and shapes, for the tests that run kernels against references."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from cnnkern.graph import Array, Graph, Op
from cnnkern.ops import FAMILIES, op_classes, unfold
from cnnkern.ops import activation as a
from cnnkern.ops import adaptive as ad
from cnnkern.ops import layernorm as ln
from cnnkern.ops import layout as la
from cnnkern.ops import merge as m
from cnnkern.ops import norm as n
from cnnkern.ops import resize as rs
from cnnkern.ops import softmax as sm
from cnnkern.ops.conv import Conv
from cnnkern.ops.custom import NumpyOp
from cnnkern.ops.dense import Dense
from cnnkern.ops.depthwise import DepthwiseConv
from cnnkern.ops.dot import Dot
from cnnkern.ops.pool import AveragePool, GlobalAveragePool, GlobalMaxPool, MaxPool
from cnnkern.ops.prelu import PReLU
from cnnkern.ops.transpose import ConvTranspose
from support import graph_of

Shape = tuple[int, ...]
EPS = 2.0**-24
EXACT = -8  # terms of a result without any rounding

IMAGE, ODD, WIDE = (2, 6, 5, 24), (3, 7, 11, 13), (2, 4, 3, 131)
RANKS = ((2, 19), (2, 7, 5), IMAGE, (2, 3, 4, 5, 6), (2, 3, 2, 4, 3, 5))
SIZES = (*RANKS, (0, 5, 3, 4), (1, 1, 1, 1), ODD, WIDE, (1, 9, 1), (5, 1))
COMPUTING = [cls for cls in op_classes(*FAMILIES, unfold) if not cls.__abstractmethods__]


@dataclass(frozen=True)
class Case:
    """An op, the shapes of its inputs, and how many terms are rounded into a result."""

    op: Op
    shapes: tuple[Shape, ...]
    terms: int = 8

    def __str__(self) -> str:
        shapes = ("x".join(map(str, shape)) for shape in self.shapes)
        return "-".join((type(self.op).__name__, *shapes))

    @property
    def graph(self) -> Graph:
        """The op alone, every axis of its inputs unknown that may be."""
        return self._graph([(None, *s[1:]) for s in self.shapes])

    @property
    def graph_of_unknown_shape(self) -> Graph:
        """The same with the spatial axes unknown, too."""
        return self._graph([(None,) * (len(s) - 1) + s[-1:] for s in self.shapes])

    def _graph(self, shapes: Sequence[Any]) -> Graph:
        inputs = {f"x{i}": shape for i, shape in enumerate(shapes)}
        return graph_of(inputs, [("y", self.op, tuple(inputs))])

    def inputs(self, seed: int = 0) -> list[Array]:
        """Return gaussian inputs; their mean is not zero."""
        rng = np.random.default_rng(seed)
        return [rng.standard_normal(s, np.float32) + np.float32(0.5) for s in self.shapes]

    def assert_close(self, y: Array, expected: Array) -> None:
        """Compare within ``(terms + 8) * 2**-24`` of the largest number."""
        assert y.shape == expected.shape
        bound = (self.terms + 8) * EPS * np.abs(expected).max(initial=0)
        assert np.abs(y - expected).max(initial=0) <= bound, f"{self}: {self.op}"


def all_cases() -> list[Case]:
    """Return the cases of every op class."""
    makers = (
        convolutions, poolings, activations, row_activations, layer_norms, group_norms,
        stored_norms, merges, movements, resamplings, products,
    )  # fmt: skip
    rng = np.random.default_rng(5)
    return [case for make in makers for case in make(rng)]


def positive(rng: np.random.Generator, *shape: int) -> Array:
    return rng.uniform(0.5, 2, shape).astype(np.float32)


def normal(rng: np.random.Generator, *shape: int) -> Array:
    return rng.standard_normal(shape, np.float32)


def convolutions(rng: np.random.Generator) -> Iterator[Case]:
    """These have tests of their own; here they stand for their class."""
    yield Case(Conv(normal(rng, 3, 3, 24, 5), normal(rng, 5)), (IMAGE,), 216)
    filters, bias = normal(rng, 1, 1, 128, 150), normal(rng, 150)
    halved = Conv(filters, bias, may_transform=True)
    yield Case(halved, ((2, 13, 11, 128),), 128)
    yield Case(replace(halved, adds_residual=True), ((2, 13, 11, 128), (2, 13, 11, 150)), 128)
    yield Case(Dense(normal(rng, 13, 7), normal(rng, 7)), (ODD,), 13)
    yield Case(DepthwiseConv(normal(rng, 3, 3, 13, 2), normal(rng, 26)), (ODD,), 9)
    yield Case(ConvTranspose(normal(rng, 3, 2, 5, 13), None, (2, 2)), (ODD,), 78)
    yield Case(unfold.Im2col((3, 2), (2, 1), "same"), (ODD,), EXACT)


def poolings(rng: np.random.Generator) -> Iterator[Case]:
    images = ((2, 9, 7), IMAGE, ODD, WIDE, (2, 3, 4, 5, 6), (0, 4, 4, 3), (1, 5, 5, 65))
    for shape in images:
        rank = len(shape) - 2
        for size, stride, padding in product((2, 3), (1, 2), ("same", "valid")):
            window = ((size,) * rank, (stride,) * rank, padding)
            yield Case(MaxPool(*window), (shape,), EXACT)
            yield Case(AveragePool(*window), (shape,), size**rank)
        for keepdims in (True, False):
            yield Case(GlobalMaxPool(rank, keepdims), (shape,), EXACT)
            yield Case(GlobalAveragePool(rank, keepdims), (shape,), 80)
        for size in (1, 2, 5):
            yield Case(ad.AdaptiveMaxPool((size,) * rank), (shape,), EXACT)
            yield Case(ad.AdaptiveAveragePool((size,) * rank), (shape,), 80)


def activations(rng: np.random.Generator) -> Iterator[Case]:
    for name in a.FUNCTIONS:
        yield Case(a.Activation(name), (ODD,))
    for shape in SIZES:
        yield Case(a.Activation("tanh"), (shape,))


def row_activations(rng: np.random.Generator) -> Iterator[Case]:
    for shape in SIZES:
        for op in (sm.Softmax, sm.LogSoftmax, sm.Sparsemax):
            for axis in range(1 - len(shape), 0):
                yield Case(op((axis,)), (shape,), 16)
        doubled = (*shape[:-1], 2 * shape[-1])
        yield Case(sm.Glu(), (doubled,))
    for axes in ((-2, -1), (-3, -1), (-3, -2), (-3, -2, -1)):
        yield Case(sm.Softmax(axes), (IMAGE,), 16)
    for rank in (4, 6):
        shape = (2, 4, 6, 2, 4, 8)[:rank]
        for axis in range(1 - rank, 0):
            yield Case(sm.Glu(axis), (shape,))
    yield Case(sm.Softmax(), ((3, 5003),), 16)


def layer_norms(rng: np.random.Generator) -> Iterator[Case]:
    for shape in SIZES:
        for axis in range(1 - len(shape), 0):
            lengths = (shape[axis], *(1,) * (-axis - 1))
            gamma, beta = normal(rng, *lengths), normal(rng, *lengths)
            yield Case(ln.LayerNorm((axis,), 1e-3, gamma, beta), (shape,), 24)
            yield Case(ln.UnitNorm((axis,)), (shape,))
        C = shape[-1]
        yield Case(ln.LayerNorm((-1,), 0.5, None, normal(rng, C)), (shape,), 24)
        yield Case(ln.RMSNorm((-1,), 1e-6, normal(rng, C)), (shape,))
    axes, lengths = (-3, -1), (7, 1, 13)
    yield Case(ln.LayerNorm(axes, 1e-3, normal(rng, *lengths)), (ODD,), 24)
    yield Case(ln.RMSNorm((-2, -1), 1e-6, normal(rng, 11, 13)), (ODD,))
    yield Case(ln.UnitNorm((-3, -2)), (ODD,))
    yield Case(ln.LayerNorm(), ((2, 100_003),), 24)


def group_norms(rng: np.random.Generator) -> Iterator[Case]:
    for shape in ((3, 12), (2, 7, 6), IMAGE, (2, 3, 4, 5, 6), (0, 3, 3, 6), (1, 9, 80, 96)):
        C = shape[-1]
        for groups in (1, 2, 3, C):
            gamma, beta = normal(rng, C), normal(rng, C)
            yield Case(ln.GroupNorm(groups, -1, 1e-3, gamma, beta), (shape,), 24)
    for axis in (-2, -3):
        C = IMAGE[axis]
        yield Case(ln.GroupNorm(1, axis, 0.1, normal(rng, C), None), (IMAGE,), 24)


def stored_norms(rng: np.random.Generator) -> Iterator[Case]:
    for shape in SIZES:
        for axis in range(1 - len(shape), 0):
            C = shape[axis]
            arrays = [normal(rng, C), normal(rng, C), normal(rng, C), positive(rng, C)]
            yield Case(n.BatchNorm(*arrays, 1e-3, axis), (shape,))
        C = shape[-1]
        yield Case(n.Normalization(normal(rng, C), positive(rng, C)), (shape,))
        yield Case(n.Normalization(normal(rng, C), positive(rng, C), True), (shape,))
        yield Case(n.Affine(np.float32([[1 / 255]])[0, 0], np.array(-1, np.float32)), (shape,))
        yield Case(n.Affine(normal(rng, C), normal(rng, 1)), (shape,))
        yield Case(PReLU(normal(rng, *shape[1:])), (shape,))
        yield Case(PReLU(normal(rng, *(1,) * (len(shape) - 2), C)), (shape,))
    column = (ODD[1], 1, 1)
    yield Case(n.Normalization(normal(rng, *column), positive(rng, *column)), (ODD,))
    yield Case(n.Normalization(normal(rng, *column), positive(rng, *column), True), (ODD,))
    yield Case(n.Affine(normal(rng, ODD[2], 1), normal(rng, *column)), (ODD,))


def merges(rng: np.random.Generator) -> Iterator[Case]:
    many = (m.Add, m.Multiply, m.Maximum, m.Minimum, m.Average)
    two = (m.Subtract, m.Divide)
    for op, shape in product((*many, *two), SIZES):
        yield Case(op(), (shape, shape))
    for op, shapes in product((*many, *two), broadcasting()):
        yield Case(op(), shapes)
    for op, is_first in product((*many[:-1], *two), (False, True)):
        yield Case(op(0.75, is_first), (ODD,))
    for op in many:
        yield Case(op(), (ODD, ODD[:1] + ODD[-1:], (3, 11, 1), ODD))
    for shapes in ((ODD, ODD), (ODD, (3, 1, 1, 13)), ((3, 1, 1, 13), ODD)):
        yield Case(m.ScaledAdd(0.17), shapes)


def broadcasting() -> list[tuple[Shape, Shape]]:
    """Return pairs of shapes of which the first, the second or both are repeated."""
    whole = (2, 3, 5, 7)
    parts = [(2, *axes) for axes in product((1, 3), (1, 5), (1, 7)) if axes != whole[1:]]
    pairs = [(whole, part) for part in parts] + [(part, whole) for part in parts]
    both = (2, 3, 1, 1)
    pairs += [((2, 3, 1, 7), (2, 1, 5, 7)), (both, (2, 1, 5, 7)), (both, (2, 1, 5, 1))]
    pairs += [((2, 7), whole), (whole, (2, 5, 1)), ((2, 1), (2, 9)), ((0, 1, 4), (0, 3, 4))]
    six = (2, 3, 2, 4, 3, 5)
    pairs += [(six, (2, 1, 2, 1, 3, 1)), ((2, 5), six)]
    return [*pairs, ((2, 3, 1, 4, 1, 5), (2, 1, 2, 1, 3, 5))]


def movements(rng: np.random.Generator) -> Iterator[Case]:
    for dims in ((1, 2), (2, 1)):
        yield Case(la.Permute(dims), ((2, 37, 19),), EXACT)
    for dims in ((3, 1, 2), (2, 3, 1), (1, 3, 2), (3, 2, 1), (2, 1, 3)):
        for shape in (ODD, (2, 33, 18, 3), (0, 2, 3, 4), (1, 1, 40, 1)):
            yield Case(la.Permute(dims), (shape,), EXACT)
    yield Case(la.Permute((5, 3, 2, 1, 4)), ((2, 3, 2, 4, 3, 5),), EXACT)
    yield Case(la.RepeatVector(5), ((3, 7),), EXACT)
    for shape in ((2, 9, 5), ODD, (2, 5, 6, 7, 3)):
        pairs = ((1, 2), (0, 3), (2, 0))[: len(shape) - 2]
        yield Case(la.ZeroPadding(pairs), (shape,), EXACT)
        yield Case(la.Cropping(pairs), (shape,), EXACT)
    for shape in RANKS:
        for axis in range(1 - len(shape), 0):
            other = list(shape)
            other[axis] += 3
            yield Case(m.Concatenate(axis), (shape, tuple(other), shape), EXACT)
    yield Case(la.Flatten(), (ODD,), EXACT)
    yield Case(la.Reshape((13, -1)), (ODD,), EXACT)
    yield Case(la.Identity(), (ODD,), EXACT)
    yield Case(NumpyOp(np.negative, lambda shape: shape), (ODD,), EXACT)


def resamplings(rng: np.random.Generator) -> Iterator[Case]:
    repeated = {(2, 5, 3): (4,), ODD: (2, 3), IMAGE: (1, 2), (1, 2, 3, 4, 5): (3, 2, 2)}
    for shape, factors in repeated.items():
        yield Case(rs.UpSampling(factors), (shape,), EXACT)
    for method in rs.INTERPOLATIONS:
        for shape in ((2, 5, 7, 3), (1, 8, 6, 20), (0, 4, 4, 2)):
            yield Case(rs.UpSampling((2, 3), method), (shape,))
            for size, antialias in product(((9, 4), shape[1:3], (3, 17)), (False, True)):
                yield Case(rs.Resizing(size, method, antialias), (shape,), 16)
    yield Case(rs.Resizing((5, 9), "bilinear"), ((1, 3, 4, 4099),))


def products(rng: np.random.Generator) -> Iterator[Case]:
    for normalize in (False, True):
        yield Case(Dot((-1, -1), normalize), ((3, 9), (3, 9)), 16)
        yield Case(Dot((-1, -1), normalize), ((3, 4, 9), (3, 17, 9)), 16)
        yield Case(Dot((-2, -1), normalize), ((2, 9, 40), (2, 33, 9)), 16)
        yield Case(Dot((-1, -2), normalize), ((2, 6, 4, 9), (2, 9, 40)), 16)
        yield Case(Dot((-1, -1), normalize), ((2, 50, 9), (2, 9)), 16)
        yield Case(Dot((-3, -2), normalize), ((2, 6, 4, 30), (2, 3, 6, 2)), 16)
    yield Case(Dot((-1, -1)), ((0, 9), (0, 9)))
