"""Keras' tests of its layers pass when the layers return what cnnkern computes.

They are those of the installed Keras, run in a child process with `keras_suite.substitute`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cnnkern.ops import REGISTRY
from support import child_environment

pytestmark = pytest.mark.slow

FOLDERS = (
    "activations", "convolutional", "merging", "normalization", "pooling", "reshaping",
    "preprocessing/image_preprocessing/resizing_test.py",
    "preprocessing/normalization_test.py", "preprocessing/rescaling_test.py",
)  # fmt: skip

# At least how many results of each class cnnkern has to give.
MINIMUM = {
    "Activation": 4, "AdaptiveAveragePooling1D": 3, "AdaptiveAveragePooling2D": 4,
    "AdaptiveAveragePooling3D": 4, "AdaptiveMaxPooling1D": 3, "AdaptiveMaxPooling2D": 4,
    "AdaptiveMaxPooling3D": 4, "Add": 4, "Average": 4, "AveragePooling1D": 14,
    "AveragePooling2D": 20, "AveragePooling3D": 14, "BatchNormalization": 65,
    "Concatenate": 5, "Conv1D": 13, "Conv1DTranspose": 89, "Conv2D": 14,
    "Conv2DTranspose": 10, "Conv3D": 11, "Conv3DTranspose": 9, "Cropping1D": 10,
    "Cropping2D": 32, "Cropping3D": 120, "Dense": 4, "DepthwiseConv1D": 12,
    "DepthwiseConv2D": 9, "Dot": 9, "ELU": 4, "Flatten": 6, "GlobalAveragePooling1D": 10,
    "GlobalAveragePooling2D": 10, "GlobalAveragePooling3D": 10, "GlobalMaxPooling1D": 10,
    "GlobalMaxPooling2D": 10, "GlobalMaxPooling3D": 10, "GroupNormalization": 12,
    "LayerNormalization": 12, "LeakyReLU": 2, "MaxPooling1D": 12, "MaxPooling2D": 11,
    "MaxPooling3D": 10, "Maximum": 4, "Minimum": 4, "Multiply": 4, "Normalization": 25,
    "PReLU": 3, "Permute": 2, "RMSNormalization": 8, "ReLU": 5, "RepeatVector": 2,
    "Rescaling": 9, "Reshape": 19, "Resizing": 36, "SeparableConv1D": 9,
    "SeparableConv2D": 9, "Softmax": 4, "Subtract": 4,
    "UnitNormalization": 7, "UpSampling1D": 3, "UpSampling2D": 36, "UpSampling3D": 12,
    "ZeroPadding1D": 4, "ZeroPadding2D": 8, "ZeroPadding3D": 8,
}  # fmt: skip

# Supported classes whose results these tests do not reach, and why.
AUGMENTATION = "does nothing at inference; Keras tests what it does in training"
NOT_CALLED = {
    **dict.fromkeys((
        "ActivityRegularization", "AlphaDropout", "AugMix", "CutMix", "Dropout",
        "GaussianDropout", "GaussianNoise", "MixUp", "RandAugment", "RandomBrightness",
        "RandomColorDegeneration", "RandomColorJitter", "RandomContrast",
        "RandomElasticTransform", "RandomErasing", "RandomFlip", "RandomGaussianBlur",
        "RandomGrayscale", "RandomHue", "RandomInvert", "RandomPerspective",
        "RandomPosterization", "RandomRotation", "RandomSaturation", "RandomSharpness",
        "RandomShear", "RandomTranslation", "RandomZoom", "SpatialDropout1D",
        "SpatialDropout2D", "SpatialDropout3D",
    ), AUGMENTATION),
    "CustomScaleLayer": "its name in files of Keras 2; a class of keras.applications",
    "Identity": "computes nothing",
    "InputLayer": "is not called",
    "LayerScale": "its name in files of Keras 2; a class of keras.applications",
    "StochasticDepth": "its name in files of Keras 2; a class of keras.applications",
}  # fmt: skip

# Calls that cnnkern refuses: a fragment of its message, the classes, why it is right.
REFUSED = (
    ("lora_rank=", {"Conv1D", "Conv2D", "Conv3D"}, "adapters are merged before inference"),
    ("renorm=True", {"BatchNormalization"}, "a way to train"),
    ("rms_scaling=True", {"LayerNormalization"}, "replaced by RMSNormalization"),
    ("batch_shape=[None]", {"Flatten", "LeakyReLU", "ReLU"}, "no axis behind the batch"),
    ("batch_shape=[None, 0, 10]", {"LayerNormalization"}, "samples without elements"),
    ("crop_to_aspect_ratio=True", {"Resizing"}, "not implemented"),
    ("pad_to_aspect_ratio=True", {"Resizing"}, "not implemented"),
    ("expected [N, H, W, C], got (None, 4, ", {"Resizing"}, "an image without a batch"),
    ("(3,) does not broadcast", {"Rescaling"}, "channels_first, which no file says"),
)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Run Keras' tests; return what substitute.Report says."""
    folder = tmp_path_factory.mktemp("keras_suite")
    run_keras_tests(FOLDERS, folder)
    return json.loads((folder / "report.json").read_text())


def run_keras_tests(places: Sequence[str], folder: Path) -> None:
    """Run tests of the installed Keras in a child process, which writes report.json."""
    spec = importlib.util.find_spec("keras")
    assert spec is not None and spec.origin is not None
    layers = Path(spec.origin).parent / "src" / "layers"
    environment = child_environment(
        KERAS_BACKEND="tensorflow",
        KERAS_SUITE_REPORT=str(folder / "report.json"),
        TF_CPP_MIN_LOG_LEVEL="3",
    )
    options = ["-c", os.devnull, "-W", "ignore", "-p", "no:cacheprovider", "-k", "not grain"]
    child = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "-p", "keras_suite.substitute",
         *(str(layers / place) for place in places)],
        env=environment, cwd=folder, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert child.returncode in (0, 1), child.stdout[-4000:] + child.stderr[-4000:]


def test_all_pass(report: dict[str, Any]) -> None:
    assert not report["failures"], "\n".join(report["failures"])
    assert report["n_passed"] >= 850


def test_results_are_those_of_keras_and_of_the_references(report: dict[str, Any]) -> None:
    assert not report["mismatches"], "\n".join(report["mismatches"])


def test_number_of_replaced_results(report: dict[str, Any]) -> None:
    counts = Counter(report["replaced"])
    too_few = {name: counts[name] for name, least in MINIMUM.items() if counts[name] < least}
    assert not too_few


def test_refused_calls_are_known(report: dict[str, Any]) -> None:
    unknown = [
        (name, message)
        for name, message in report["refused"]
        if not any(part in message and name in names for part, names, _ in REFUSED)
    ]
    assert not unknown
    messages = "\n".join(message for _, message in report["refused"])
    assert not [part for part, _, _ in REFUSED if part not in messages]


def test_every_supported_class_is_listed() -> None:
    module = "keras.layers>"
    supported = {key.removeprefix(module) for key in REGISTRY if key.startswith(module)}
    assert supported == MINIMUM.keys() | NOT_CALLED.keys()
    assert not MINIMUM.keys() & NOT_CALLED.keys()
