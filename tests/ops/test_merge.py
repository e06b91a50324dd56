"""Ops that combine several tensors."""

from __future__ import annotations

import numpy as np
import pytest

from cnnkern.errors import ModelFileError, ShapeError, UnsupportedLayerError
from cnnkern.graph import as_array
from cnnkern.ops.config import TENSOR, LayerConfig
from cnnkern.ops.merge import (
    Add,
    Average,
    Concatenate,
    Divide,
    Maximum,
    Multiply,
    ScaledAdd,
    Subtract,
    broadcast,
)

from .case import Case, ListWeights, chain_of, check, layer_case, op_case

IMAGE = (2, 4, 5, 3)
BROADCAST = (
    (IMAGE, IMAGE),
    (IMAGE, (2, 1, 1, 3)),
    ((2, 1, 5, 1), (2, 4, 1, 3)),
    ((2, 3), IMAGE),
    (IMAGE, (2, 5, 3)),
)
ARITHMETIC = ("Add", "Subtract", "Multiply", "TrueDivide", "Maximum", "Minimum")
CASES = [
    *(
        layer_case(name, *shapes)
        for name in ("Add", "Subtract", "Multiply", "Maximum", "Minimum", "Average")
        for shapes in BROADCAST
    ),
    *(
        layer_case(name, IMAGE, IMAGE, IMAGE)
        for name in ("Add", "Multiply", "Maximum", "Minimum", "Average")
    ),
    *(op_case(f"numpy>{name}", IMAGE, (2, 1, 1, 3)) for name in (*ARITHMETIC, "Divide")),
    *(
        op_case(f"numpy>{name}", IMAGE, args=args)
        for name in ARITHMETIC
        for args in ((TENSOR, 1.5), (3, TENSOR))
    ),
    layer_case("Concatenate", IMAGE, (2, 4, 5, 1), (2, 4, 5, 2)),
    layer_case("Concatenate", IMAGE, (2, 4, 2, 3), axis=2),
    layer_case("Concatenate", (2, 3), (2, 5), axis=1),
    *(
        Case(f"keras.{module}>CustomScaleLayer", {"scale": 0.25}, (IMAGE, IMAGE))
        for module in ("applications.inception_resnet_v2", "layers")
    ),
]


def test_merges_by_hand() -> None:
    x, y = as_array([[1, 5]]), as_array([[4, 2]])
    assert Add().reference(x, y, y).tolist() == [[9, 9]]
    assert Subtract().reference(x, y).tolist() == [[-3, 3]]
    assert Subtract(10, scalar_first=True).reference(x).tolist() == [[9, 5]]
    assert Multiply(2).reference(x).tolist() == [[2, 10]]
    assert Divide().reference(x, y).tolist() == [[0.25, 2.5]]
    assert Average().reference(x, y).tolist() == [[2.5, 3.5]]
    assert Concatenate().reference(x, y).tolist() == [[1, 5, 4, 2]]
    assert ScaledAdd(0.5).reference(x, y).tolist() == [[3, 6]]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_merge_equals_keras(keras, case: Case) -> None:
    check(keras, case)


def test_concatenate_op_node(keras) -> None:
    case = Case("keras.ops.numpy>Concatenate", {"axis": 1}, (IMAGE, IMAGE), ([TENSOR, TENSOR],))
    from keras.src.ops.numpy import Concatenate as KerasConcatenate

    assert chain_of(KerasConcatenate(axis=1), case) == (Concatenate(-3),)


def test_operands_by_name(keras) -> None:
    config = LayerConfig("sub", "Subtract", {}, (), {"x1": 2.0, "x2": TENSOR})
    op = Subtract.from_keras(config, ListWeights([]), [(None, 4)])
    assert op == Subtract(2.0, scalar_first=True)


def test_nan_wins_the_maximum() -> None:
    x, y = as_array([[np.nan, 1]]), as_array([[1, np.nan]])
    assert np.isnan(Maximum().reference(x, y)).all()


def test_broadcast_shapes() -> None:
    assert broadcast("Add", [(None, None, 1, 4), (None, 3, None, 1)]) == (None, 3, None, 4)
    assert broadcast("Add", [(2, 4), (2, 5, 1)]) == (2, 5, 4)


def test_concatenate_shapes() -> None:
    op = Concatenate(-2)
    assert op.infer_shape((None, 2, 3), (4, 5, 3)) == (4, 7, 3)
    assert op.infer_shape((None, None, 3), (None, 5, None)) == (None, None, 3)


@pytest.mark.parametrize(
    ("options", "args", "error", "message"),
    [
        ({}, (TENSOR, "1"), UnsupportedLayerError, "at most one number"),
        ({}, (1.0, 2.0), UnsupportedLayerError, "at most one number"),
        ({}, (TENSOR, 10**400), UnsupportedLayerError, "at most one number"),
        ({}, (TENSOR, True), UnsupportedLayerError, "at most one number"),
        ({}, (TENSOR,), ModelFileError, "must be two operands"),
        ({"axis": 3}, (), UnsupportedLayerError, "axis=3 is not supported"),
    ],
)
def test_refused_operands_name_the_layer(
    options: dict[str, object], args: tuple[object, ...], error: type[Exception], message: str
) -> None:
    config = LayerConfig("sum", "Add", options, args)
    with pytest.raises(error, match=f"Add 'sum': .*{message}"):
        Add.from_keras(config, ListWeights([]), [(None, 4)])


def test_op_nodes_on_different_ranks_are_refused() -> None:
    """NumPy would align the batch of one with another axis of the other."""
    config = LayerConfig("sum", "Add", {}, (TENSOR, TENSOR))
    with pytest.raises(UnsupportedLayerError, match=r"Add 'sum': .*tensors of equal rank"):
        Add.from_keras(config, ListWeights([]), [(None, 4), (None, 3, 4)])


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(ShapeError, match=r"Add: shapes \(1, 2\), \(1, 3\) do not broadcast"):
        Add().infer_shape((1, 2), (1, 3))
    with pytest.raises(ShapeError, match="Add: expected at least 2 inputs, got 1"):
        Add().infer_shape((1, 2))
    with pytest.raises(ShapeError, match="Subtract: expected 2 inputs, got 3"):
        Subtract().infer_shape((1, 2), (1, 2), (1, 2))
    with pytest.raises(ShapeError, match=r"Concatenate: .* differ beside the joined axis"):
        Concatenate().infer_shape((1, 2, 3), (1, 3, 3))
    with pytest.raises(ShapeError, match=r"Concatenate: .* differ in rank"):
        Concatenate().infer_shape((1, 2, 3), (1, 3))
