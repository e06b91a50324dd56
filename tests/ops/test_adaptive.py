"""Pooling to a fixed output size."""

from __future__ import annotations

import numpy as np
import pytest

from cnnkern.errors import ModelFileError, ShapeError
from cnnkern.graph import as_array
from cnnkern.ops.adaptive import AdaptiveAveragePool, AdaptiveMaxPool
from cnnkern.ops.config import LayerConfig

from .case import Case, ListWeights, check, layer_case

CASES = [
    *(
        layer_case(f"Adaptive{kind}Pooling2D", (2, 7, 6, 3), output_size=size)
        for kind in ("Max", "Average")
        for size in (2, (3, 4), (7, 6), (5, 2))
    ),
    *(
        layer_case(f"Adaptive{kind}Pooling{rank}D", shape, output_size=2)
        for kind in ("Max", "Average")
        for rank, shape in ((1, (2, 5, 3)), (3, (1, 3, 4, 5, 2)))
    ),
]


def test_adaptive_by_hand() -> None:
    x = as_array([1, 2, 3, 4, 50]).reshape(1, 5, 1)
    mean = AdaptiveAveragePool((2,)).reference(x)
    assert mean.ravel().tolist() == [2, 19]  # inputs 0..2 and 2..4: windows overlap
    assert AdaptiveMaxPool((3,)).reference(x).ravel().tolist() == [2, 4, 50]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_adaptive_equals_keras(keras, case: Case) -> None:
    check(keras, case)


def test_one_window_is_global_pooling() -> None:
    """TensorFlow 2.21 dies of a signal here: one of its two window sizes exceeds the input."""
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 5), np.float32)
    mean = AdaptiveAveragePool((1, 1)).reference(x)
    np.testing.assert_allclose(mean, x.mean(axis=(1, 2), keepdims=True), rtol=1e-5, atol=1e-6)


def test_nan_takes_no_part_in_a_maximum() -> None:
    x = as_array([np.nan, 1, np.nan, np.nan]).reshape(1, 4, 1)
    y = AdaptiveMaxPool((2,)).reference(x)
    assert y.ravel().tolist() == [1, np.finfo(np.float32).min]


def test_flops() -> None:
    assert AdaptiveAveragePool((2,)).flops((3, 5, 2)) == 3 * 2 * (3 + 3)


def test_refused_options_name_the_layer() -> None:
    config = LayerConfig("pool", "AdaptiveMaxPooling2D", {"output_size": [2, 0]})
    with pytest.raises(ModelFileError, match="AdaptiveMaxPooling2D 'pool': output_size"):
        AdaptiveMaxPool.from_keras(config, ListWeights([]), [(None, 4, 4, 1)])


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(ShapeError, match="AdaptiveMaxPool: nothing to pool"):
        AdaptiveMaxPool().infer_shape((1, 0, 4, 2))
