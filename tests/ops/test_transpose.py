"""Transposed convolutions."""

from __future__ import annotations

import numpy as np
import pytest

from cnnkern.errors import ModelFileError, ShapeError
from cnnkern.graph import as_array
from cnnkern.ops.config import LayerConfig
from cnnkern.ops.transpose import ConvTranspose

from .case import Case, ListWeights, check, layer_case

IMAGE = (2, 4, 5, 3)


def transpose(**options: object) -> Case:
    return layer_case("Conv2DTranspose", IMAGE, **{"filters": 4, "kernel_size": 3, **options})


CASES = [
    *(
        transpose(kernel_size=k, strides=s, padding=p)
        for k in (1, 2, 3, 4, (2, 3))
        for s in (1, 2, 3)
        for p in ("valid", "same")
    ),
    *(transpose(strides=2, padding="same", output_padding=e) for e in (0, 1)),
    *(transpose(strides=3, padding="valid", output_padding=e) for e in (0, 1, 2)),
    transpose(kernel_size=4, strides=2, padding="same", output_padding=1),
    transpose(dilation_rate=2),
    transpose(dilation_rate=2, padding="same"),
    transpose(use_bias=False, activation="tanh", strides=(1, 2)),
    *(
        layer_case("Conv1DTranspose", (2, 5, 3), filters=2, kernel_size=3, strides=s, padding=p)
        for s in (1, 2)
        for p in ("valid", "same")
    ),
    *(
        layer_case("Conv3DTranspose", (1, 2, 3, 2, 2), filters=2, kernel_size=3, padding=p)
        for p in ("valid", "same")
    ),
    layer_case("Conv3DTranspose", (1, 2, 3, 2, 2), filters=2, kernel_size=2, strides=2),
]


def test_transpose_by_hand() -> None:
    x = as_array([1, 2]).reshape(1, 2, 1)
    w = as_array([1, 10, 100]).reshape(3, 1, 1)
    y = ConvTranspose(w, None, (2,), "valid", (1,)).reference(x)
    assert y.ravel().tolist() == [1, 10, 102, 20, 200]  # 1*w at 0, 2*w at 2
    y = ConvTranspose(w, None, (2,), "same", (1,)).reference(x)
    assert y.ravel().tolist() == [1, 10, 102, 20]  # the surplus of SAME lies behind


@pytest.mark.parametrize("case", CASES, ids=str)
def test_transpose_equals_keras(keras, case: Case) -> None:
    check(keras, case)


def test_flops() -> None:
    op = ConvTranspose(np.zeros((3, 3, 4, 2), np.float32), strides=(2, 2))
    assert op.flops((1, 5, 5, 2)) == 2 * 9 * 4 * 2 * 25


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output_padding": 2, "strides": 2}, r"output_padding=\(2, 2\) must be less than str"),
        ({"output_padding": 0, "strides": 2, "padding": "same", "kernel_size": 2}, "positive"),
        ({"strides": 2, "dilation_rate": 2}, "dilation_rate"),
    ],
)
def test_refused_options_name_the_layer(options: dict[str, object], message: str) -> None:
    options = {"filters": 1, "kernel_size": 3, "use_bias": False, **options}
    size = options["kernel_size"]
    weights = ListWeights([np.zeros((size, size, 1, 3), np.float32)])
    config = LayerConfig("up", "Conv2DTranspose", options)
    with pytest.raises(ModelFileError, match=f"Conv2DTranspose 'up': .*{message}"):
        ConvTranspose.from_keras(config, weights, [IMAGE])


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(ShapeError, match=r"ConvTranspose: expected \[N, H, W, 2\]"):
        ConvTranspose(np.zeros((3, 3, 4, 2), np.float32)).infer_shape((1, 5, 5, 4))
