"""Ops that resample the spatial axes."""

from __future__ import annotations

import numpy as np
import pytest

from cnnkern.errors import ModelFileError, ShapeError, UnsupportedLayerError
from cnnkern.graph import Op, as_array
from cnnkern.ops.config import LayerConfig
from cnnkern.ops.resize import INTERPOLATIONS, Resizing, UpSampling, axis_taps

from .case import Case, ListWeights, check, layer_case

IMAGE = (2, 5, 6, 3)
CASES = [
    *(
        layer_case("UpSampling2D", IMAGE, size=size, interpolation=interpolation)
        for interpolation in INTERPOLATIONS
        for size in (1, 2, (3, 1), (2, 5))
    ),
    layer_case("UpSampling1D", (2, 5, 3), size=3),
    layer_case("UpSampling3D", (2, 3, 2, 4, 2), size=(1, 3, 2)),
    *(
        layer_case("Resizing", IMAGE, height=h, width=w, interpolation=method, antialias=smooth)
        for method in INTERPOLATIONS
        for h, w in ((5, 6), (10, 18), (3, 2), (7, 4), (1, 1), (4, 13))
        for smooth in (False, True)
    ),
    layer_case("Resizing", (1, 224, 17, 2), height=97, width=131),
    layer_case("Resizing", (1, 97, 131, 2), height=224, width=50, interpolation="bicubic"),
]


def test_resampling_by_hand() -> None:
    x = as_array([10, 20]).reshape(1, 1, 2, 1)
    nearest = UpSampling((1, 2)).reference(x)
    assert nearest.ravel().tolist() == [10, 10, 20, 20]
    bilinear = UpSampling((1, 2), "bilinear").reference(x)  # centres at -.25 .25 .75 1.25
    assert bilinear.ravel().tolist() == [10, 12.5, 17.5, 20]
    assert Resizing((1, 1)).reference(x).ravel().tolist() == [15]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_resampling_equals_keras(keras, case: Case) -> None:
    check(keras, case)


@pytest.mark.parametrize("method", INTERPOLATIONS)
@pytest.mark.parametrize(("n_in", "n_out"), [(1, 5), (7, 7), (13, 4), (4, 13), (100, 1)])
def test_weights_sum_to_one_and_stay_inside(method: str, n_in: int, n_out: int) -> None:
    indices, weights = axis_taps(method, n_in, n_out)
    assert indices.shape == weights.shape
    assert indices.shape[0] == n_out
    assert weights.dtype == np.float32
    assert indices.min() >= 0
    assert indices.max() < n_in
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("op", "class_name", "options", "error", "message"),
    [
        (UpSampling, "UpSampling2D", {"size": 0}, ModelFileError, "size=0"),
        (UpSampling, "UpSampling2D", {"interpolation": "x"}, UnsupportedLayerError, "bicubic"),
        (Resizing, "Resizing", {"height": 2}, ModelFileError, "option 'width' is missing"),
        (Resizing, "Resizing", {"crop_to_aspect_ratio": True}, UnsupportedLayerError,
         "crop_to_aspect_ratio=True"),
        (Resizing, "Resizing", {"pad_to_aspect_ratio": True}, UnsupportedLayerError, "pad_to"),
    ],
)  # fmt: skip
def test_refused_options_name_the_layer(
    op: type[Op], class_name: str, options: dict[str, object], error: type[Exception],
    message: str,
) -> None:  # fmt: skip
    config = LayerConfig("up1", class_name, options)
    with pytest.raises(error, match=f"{class_name} 'up1': .*{message}"):
        op.from_keras(config, ListWeights([]), [(None, 5, 5, 4)])


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(ShapeError, match=r"UpSampling: expected \[N, H, W, C\]"):
        UpSampling().infer_shape((1, 2, 3))
    with pytest.raises(ShapeError, match=r"Resizing: expected \[N, H, W, C\]"):
        Resizing((2, 2)).infer_shape((1, 2, 3))
