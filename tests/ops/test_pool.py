"""Pooling over windows and whole feature maps."""

from __future__ import annotations

import numpy as np
import pytest

from cnnkern.errors import ModelFileError, ShapeError, UnsupportedLayerError
from cnnkern.graph import as_array
from cnnkern.ops.config import LayerConfig
from cnnkern.ops.pool import LOWEST, AveragePool, GlobalAveragePool, GlobalMaxPool, MaxPool

from .case import Case, ListWeights, call, chain_of, check, compute, layer_case, make_layer

SHAPES = {1: (2, 7, 3), 2: (2, 7, 6, 3), 3: (2, 4, 5, 3, 2)}
CASES = [
    *(
        layer_case(f"{kind}Pooling2D", SHAPES[2], pool_size=k, strides=s, padding=p)
        for kind in ("Max", "Average")
        for k, s in ((1, 1), (1, 2), (2, None), (3, 1), (3, 2), (2, 3), ((2, 3), (1, 2)))
        for p in ("valid", "same")
    ),
    *(
        layer_case(f"{kind}Pooling{rank}D", SHAPES[rank], pool_size=k, padding=p)
        for kind in ("Max", "Average")
        for rank in (1, 3)
        for k in (2, 3)
        for p in ("valid", "same")
    ),
    *(
        layer_case(f"Global{kind}Pooling{rank}D", SHAPES[rank], keepdims=keepdims)
        for kind in ("Max", "Average")
        for rank in (1, 2, 3)
        for keepdims in (False, True)
    ),
]


def test_pooling_by_hand() -> None:
    x = as_array([[1, 2, 3], [4, 5, 6], [7, 8, 9]]).reshape(1, 3, 3, 1)
    largest = MaxPool((2, 2), (2, 2), "same").reference(x)
    assert largest[0, :, :, 0].tolist() == [[5, 6], [8, 9]]
    mean = AveragePool((2, 2), (2, 2), "same").reference(x)
    assert mean[0, :, :, 0].tolist() == [[3, 4.5], [7.5, 9]]  # padding does not count
    assert GlobalMaxPool().reference(x).tolist() == [[9]]
    assert GlobalAveragePool(keepdims=True).reference(x).tolist() == [[[[5]]]]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_pooling_equals_keras(keras, case: Case) -> None:
    check(keras, case)


def test_explicit_padding_takes_no_part() -> None:
    x = as_array([-1, -2]).reshape(1, 2, 1)
    padding = ((1, 1),)
    assert MaxPool((2,), (1,), padding).reference(x).ravel().tolist() == [-1, -1, -2]
    assert AveragePool((2,), (1,), padding).reference(x).ravel().tolist() == [-1, -1.5, -2]


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("kind", ["MaxPooling", "AveragePooling", "GlobalMaxPooling"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("is_alone", [False, True])
def test_special_values_equal_keras(
    keras, rank: int, kind: str, value: float, is_alone: bool
) -> None:
    options = {} if kind.startswith("Global") else {"pool_size": 2}
    case = layer_case(f"{kind}{rank}D", (1, *(2,) * rank, 3), **options)
    x = np.full(case.shapes[0], 1.0, np.float32)
    x[...] = value if is_alone else x
    x[(0,) * (rank + 2)] = value
    layer = make_layer(keras, case)
    expected = call(layer, case, [x])
    np.testing.assert_array_equal(compute(chain_of(layer, case), x), expected)


def test_a_window_without_numbers_gives_the_lowest_number() -> None:
    assert MaxPool((2,), (2,)).reference(np.full((1, 2, 1), np.nan, np.float32)) == LOWEST


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"pool_size": [2, 2], "padding": "causal"}, UnsupportedLayerError, "padding='causal'"),
        ({"pool_size": 0}, ModelFileError, "pool_size=0"),
        ({"pool_size": 2, "strides": [0, 1]}, ModelFileError, "strides"),
        ({"data_format": "channels_first"}, UnsupportedLayerError, "data_format"),
    ],
)
def test_refused_options_name_the_layer(
    options: dict[str, object], error: type[Exception], message: str
) -> None:
    config = LayerConfig("pool1", "MaxPooling2D", options)
    with pytest.raises(error, match=f"MaxPooling2D 'pool1': {message}"):
        MaxPool.from_keras(config, ListWeights([]), [SHAPES[2]])


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(ShapeError, match=r"MaxPool: expected \[N, H, W, C\], got \(1, 4, 4\)"):
        MaxPool().infer_shape((1, 4, 4))
    with pytest.raises(ShapeError, match=r"GlobalMaxPool: nothing to pool in \(1, 0, 4, 2\)"):
        GlobalMaxPool().infer_shape((1, 0, 4, 2))
