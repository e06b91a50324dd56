"""Files of Keras 1 and 2 give what Keras 3 makes of them, and a warning where that differs."""

import json
import warnings
import zipfile

import h5py
import numpy as np
import pytest

import cnnkern
from cnnkern.errors import KerasVersionWarning

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file"),
]

X = np.float32([[-4, -3, -2.75, -2.5, -1, 0, 1, 2.5, 2.75, 3, 4]])


@pytest.fixture(scope="module")
def keras():
    return pytest.importorskip("keras")


def save(keras, path, version, function="hard_sigmoid"):
    """Save two layers of an activation in a file that says that `version` wrote it."""
    layers = keras.layers
    stack = [layers.Activation(function), layers.Dense(X.size, activation=function)]
    model = keras.Sequential([keras.Input(X.shape[1:]), *stack])
    model.layers[1].set_weights([np.eye(X.size), np.zeros(X.size)])
    model.save(path)
    if path.suffix == ".h5":
        with h5py.File(path, "r+") as file:
            del file.attrs["keras_version"]
            if version is not None:
                file.attrs["keras_version"] = version
        return
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["metadata.json"] = json.dumps({"keras_version": version}).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def test_hard_sigmoid_by_hand(keras, tmp_path):
    """At -2.5 it was 0 before Keras 3 and is 1/12 now; the second layer gives 37/72 of it."""
    save(keras, tmp_path / "model.h5", b"2.0.8")
    with pytest.warns(KerasVersionWarning):
        y = cnnkern.load(tmp_path / "model.h5").predict(X)
    assert y[0, 3] == pytest.approx(37 / 72, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "version", "who"),
    [
        ("model.h5", b"1.2.2", r"Keras 1\.2\.2"),
        ("model.h5", b"2.4.0", r"Keras 2\.4\.0"),
        ("model.h5", None, "Keras 1 or 2"),
        ("model.keras", "2.15.0", r"Keras 2\.15\.0"),
    ],
)
def test_one_warning_and_what_keras_3_computes(keras, tmp_path, name, version, who):
    save(keras, tmp_path / name, version)
    with pytest.warns(KerasVersionWarning, match=rf"{name}: written by {who}, ") as caught:
        y = cnnkern.load(tmp_path / name).predict(X)
    assert [warning.filename for warning in caught] == [__file__]
    expected = keras.models.load_model(tmp_path / name).predict(X, verbose=0)
    np.testing.assert_allclose(y, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "version", "function"),
    [
        ("model.h5", b"3.8.0", "hard_sigmoid"),
        ("model.h5", b"10.0", "hard_sigmoid"),
        ("model.keras", "3.15.1", "hard_sigmoid"),
        ("model.h5", b"2.4.0", "sigmoid"),
        ("model.h5", None, "relu"),
        ("model.keras", "2.15.0", "tanh"),
    ],
)
def test_no_warning_where_nothing_differs(keras, tmp_path, name, version, function):
    save(keras, tmp_path / name, version, function)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cnnkern.load(tmp_path / name)


@pytest.mark.parametrize("version", [3, [], {}, None])
def test_metadata_without_a_version(keras, tmp_path, version):
    save(keras, tmp_path / "model.keras", version)
    with pytest.warns(KerasVersionWarning, match="Keras 1 or 2"):
        cnnkern.load(tmp_path / "model.keras")
