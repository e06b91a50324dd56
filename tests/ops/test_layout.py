"""Ops that move elements."""

from __future__ import annotations

import numpy as np
import pytest

from cnnkern.errors import ModelFileError, ShapeError, UnsupportedLayerError
from cnnkern.graph import Op, as_array
from cnnkern.ops.config import LayerConfig
from cnnkern.ops.layout import (
    Cropping,
    Flatten,
    Identity,
    Input,
    Permute,
    RepeatVector,
    Reshape,
    ZeroPadding,
)

from .case import Case, ListWeights, check, layer_case

IMAGE, LINE, VOLUME = (2, 5, 6, 3), (2, 6, 3), (2, 4, 5, 6, 2)
AUGMENTATIONS = {
    "AugMix": {},
    "CutMix": {},
    "MixUp": {},
    "RandAugment": {},
    "RandomBrightness": {"factor": 0.2},
    "RandomColorDegeneration": {"factor": 0.5},
    "RandomColorJitter": {"brightness_factor": 0.2},
    "RandomContrast": {"factor": 0.2},
    "RandomElasticTransform": {},
    "RandomErasing": {},
    "RandomFlip": {},
    "RandomGaussianBlur": {},
    "RandomGrayscale": {"factor": 1.0},
    "RandomHue": {"factor": 0.2},
    "RandomInvert": {"factor": 1.0},
    "RandomPerspective": {},
    "RandomPosterization": {"factor": 4},
    "RandomRotation": {"factor": 0.2},
    "RandomSaturation": {"factor": 0.2},
    "RandomSharpness": {"factor": 0.5},
    "RandomShear": {"x_factor": 0.1},
    "RandomTranslation": {"height_factor": 0.1, "width_factor": 0.1},
    "RandomZoom": {"height_factor": 0.2},
}
CASES = [
    layer_case("ActivityRegularization", LINE, l1=0.1),
    layer_case("Identity", LINE),
    *(layer_case(f"{kind}Dropout", LINE, rate=0.5) for kind in ("", "Alpha", "Gaussian")),
    layer_case("GaussianNoise", LINE, stddev=0.5),
    *(
        layer_case(f"SpatialDropout{rank}D", shape, rate=0.5)
        for rank, shape in ((1, LINE), (2, IMAGE), (3, VOLUME))
    ),
    *(layer_case(name, IMAGE, **options) for name, options in AUGMENTATIONS.items()),
    *(
        Case(f"keras.{module}>StochasticDepth", {"drop_path_rate": 0.5}, (IMAGE,))
        for module in ("layers", "applications.convnext")
    ),
    *(layer_case("Flatten", shape) for shape in (IMAGE, LINE, (2, 3))),
    *(
        layer_case("Reshape", IMAGE, target_shape=target)
        for target in ((30, 3), (-1,), (5, -1, 3), (6, 5, 3))
    ),
    layer_case("Permute", IMAGE, dims=(3, 1, 2)),
    layer_case("Permute", (2, 3), dims=(1,)),
    layer_case("RepeatVector", (2, 3), n=4),
    *(
        layer_case(f"{name}2D", IMAGE, **{option: value})
        for name, option in (("ZeroPadding", "padding"), ("Cropping", "cropping"))
        for value in (0, 1, (2, 1), ((0, 1), (2, 3)))
    ),
    *(
        layer_case(f"{name}1D", LINE, **{option: value})
        for name, option in (("ZeroPadding", "padding"), ("Cropping", "cropping"))
        for value in (2, (1, 3))
    ),
    *(
        layer_case(f"{name}3D", VOLUME, **{option: value})
        for name, option in (("ZeroPadding", "padding"), ("Cropping", "cropping"))
        for value in (1, (1, 0, 2), ((0, 1), (2, 0), (1, 3)))
    ),
]


def test_layout_by_hand() -> None:
    x = as_array([[1, 2, 3], [4, 5, 6]]).reshape(1, 2, 3)
    assert Flatten().reference(x).tolist() == [[1, 2, 3, 4, 5, 6]]
    assert Permute((2, 1)).reference(x).tolist() == [[[1, 4], [2, 5], [3, 6]]]
    assert Reshape((3, -1)).reference(x).tolist() == [[[1, 2], [3, 4], [5, 6]]]
    assert ZeroPadding(((1, 0),)).reference(x).tolist() == [[[0, 0, 0], [1, 2, 3], [4, 5, 6]]]
    assert Cropping(((1, 0),)).reference(x).tolist() == [[[4, 5, 6]]]
    assert RepeatVector(2).reference(as_array([[7, 8]])).tolist() == [[[7, 8], [7, 8]]]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_layout_equals_keras(keras, case: Case) -> None:
    check(keras, case)


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({"batch_shape": [None, 32, None, 3], "optional": False}, (None, 32, None, 3)),
        ({"batch_input_shape": [None, 7], "sparse": False}, (None, 7)),
        ({"batch_shape": [4, 7]}, (4, 7)),
    ],
)
def test_input(options: dict[str, object], shape: tuple[int | None, ...]) -> None:
    op = Input.from_keras(LayerConfig("x", "InputLayer", options), ListWeights([]), [])
    assert op == Input(shape)
    assert op.infer_shape() == shape


def test_unknown_axes() -> None:
    x = (None, None, 6, 3)
    assert Flatten().infer_shape(x) == (None, None)
    assert Reshape((-1, 3)).infer_shape(x) == (None, None, 3)
    assert Reshape((4, 3)).infer_shape(x) == (None, 4, 3)
    assert Permute((3, 1, 2)).infer_shape(x) == (None, 3, None, 6)
    assert ZeroPadding(((1, 1), (2, 0))).infer_shape(x) == (None, None, 8, 3)
    assert Cropping(((1, 1), (2, 0))).infer_shape(x) == (None, None, 4, 3)
    assert RepeatVector(2).infer_shape((None, None)) == (None, 2, None)


def test_dropout_ignores_its_training_options() -> None:
    config = LayerConfig("drop", "Dropout", {"rate": 0.5, "seed": 3, "noise_shape": [None, 1]})
    assert Identity.from_keras(config, ListWeights([]), [(None, 4)]) == Identity()


@pytest.mark.parametrize(
    ("op", "class_name", "options", "error", "message"),
    [
        (Input, "InputLayer", {"batch_shape": [None, 0]}, ModelFileError, "batch_shape"),
        (Input, "InputLayer", {"batch_shape": [None]}, ModelFileError, "batch_shape"),
        (Input, "InputLayer", {}, ModelFileError, "batch_shape=None must be a list"),
        (Input, "InputLayer", {"batch_shape": [None, 2], "sparse": True}, UnsupportedLayerError,
         "sparse=True"),
        (Flatten, "Flatten", {"data_format": "channels_first"}, UnsupportedLayerError,
         "data_format"),
        (Reshape, "Reshape", {"target_shape": [-1, -1]}, ModelFileError, "one may be -1"),
        (Reshape, "Reshape", {"target_shape": [0, 3]}, ModelFileError, "target_shape"),
        (Reshape, "Reshape", {"target_shape": 3}, ModelFileError, "target_shape=3"),
        (Reshape, "Reshape", {"target_shape": [None]}, ModelFileError, "target_shape"),
        (Reshape, "Reshape", {"target_shape": [True]}, ModelFileError, "target_shape"),
        (ZeroPadding, "ZeroPadding1D", {"padding": [1]}, ModelFileError, "1 pairs of ints"),
        (Permute, "Permute", {"dims": [1, 1, 2]}, ModelFileError, "numbers 1 to 3 in any"),
        (Permute, "Permute", {"dims": [2, 1]}, ModelFileError, "dims"),
        (RepeatVector, "RepeatVector", {"n": 0}, ModelFileError, "n=0"),
        (ZeroPadding, "ZeroPadding2D", {"padding": [1, -1]}, ModelFileError, "2 pairs of ints"),
        (ZeroPadding, "ZeroPadding2D", {"padding": [1, 1, 1]}, ModelFileError, "padding"),
        (ZeroPadding, "ZeroPadding1D", {"padding": True}, ModelFileError, "padding=True"),
        (Cropping, "Cropping2D", {"cropping": "1"}, ModelFileError, "cropping='1'"),
    ],
)  # fmt: skip
def test_refused_options_name_the_layer(
    op: type[Op], class_name: str, options: dict[str, object], error: type[Exception],
    message: str,
) -> None:  # fmt: skip
    config = LayerConfig("layer7", class_name, options)
    with pytest.raises(error, match=f"{class_name} 'layer7': .*{message}"):
        op.from_keras(config, ListWeights([]), [(None, 5, 6, 3)])


@pytest.mark.parametrize(
    ("op", "shape", "message"),
    [
        (Reshape((4,)), (1, 2, 3), r"Reshape: \(1, 2, 3\) does not fit into \(1, 4\)"),
        (Reshape((4, -1)), (1, 2, 3), "Reshape: .* does not fit"),
        (Permute((2, 1)), (1, 2), "Permute: expected 3 axes"),
        (RepeatVector(2), (1, 2, 3), r"RepeatVector: expected \[N, F\]"),
        (ZeroPadding(((1, 1),)), (1, 2, 3, 4), r"ZeroPadding: expected \[N, W, C\]"),
        (Cropping(((1, 1),)), (1, 2, 3), "Cropping: .* leaves nothing"),
    ],
)
def test_shapes_that_do_not_fit(op: Op, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        op.reference(np.zeros(shape, np.float32))
