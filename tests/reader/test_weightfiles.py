"""Files of weights for a live model: what `model.load_weights` takes, and hostile ones."""

import json
import os
import random
import shutil

import h5py
import numpy as np
import pytest

import cnnkern
from cnnkern.errors import ModelFileError
from cnnkern.reader.files import open_file, open_hdf5
from cnnkern.reader.weightfiles import MAX_SHARDS, MergedGroup, open_weights, shard_names
from random_models import randomise

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file"),
]

KINDS = ["x.weights.h5", "x.weights.json", "x.keras", "x.h5"]
SHARD_GIB = 7e-7  # 752 bytes: the largest array below takes 720


@pytest.fixture(scope="module")
def keras():
    return pytest.importorskip("keras")


def make_model(keras):
    """Return a model with nested models, a layer used twice, and automatic names."""
    layers = keras.layers
    x = keras.Input((8, 8, 3))
    block = keras.Sequential(
        [keras.Input((8, 8, 4)), layers.Conv2D(4, 3, padding="same"), layers.Dropout(0.5)]
    )
    shared = layers.Conv2D(4, 1)
    y = shared(layers.SeparableConv2D(4, 3, padding="same")(x))
    y = layers.Add()([y, shared(block(y))])
    y = layers.ReLU()(layers.BatchNormalization()(y))
    inner_in = keras.Input((8, 8, 4))
    inner = keras.Model(inner_in, layers.BatchNormalization()(layers.Conv2D(5, 3)(inner_in)))
    return keras.Model(x, layers.Dense(3)(layers.GlobalMaxPooling2D()(inner(y))))


@pytest.fixture(scope="module")
def trained(keras, tmp_path_factory):
    """A model with weights of its own, and the folder with its files."""
    model = make_model(keras)
    randomise(model, np.random.default_rng(0))
    folder = tmp_path_factory.mktemp("weights")
    model.save_weights(folder / "x.weights.h5")
    model.save_weights(folder / "x.weights.json", max_shard_size=SHARD_GIB)
    model.save(folder / "x.keras")
    model.save(folder / "x.h5")
    assert len(list(folder.glob("x_*.weights.h5"))) > 3
    return model, folder


@pytest.fixture
def folder(trained, tmp_path):
    """A copy of the files, to be spoilt."""
    return shutil.copytree(trained[1], tmp_path / "copy")


def predict(model, weights=None):
    x = np.random.default_rng(1).standard_normal((2, 8, 8, 3), np.float32)
    return cnnkern.from_keras(model, weights=weights).predict(x)


def edit_index(folder, change):
    """Apply `change` to the map of an index and return the path of the index."""
    path = folder / "x.weights.json"
    index = json.loads(path.read_text())
    change(index["weight_map"])
    path.write_text(json.dumps(index))
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_the_weights_of_the_file_replace_those_of_the_model(keras, trained, kind):
    model, folder = trained
    other = make_model(keras)  # Keras names its layers otherwise
    assert [layer.name for layer in other.layers] != [layer.name for layer in model.layers]
    before = [np.array(value) for value in other.get_weights()]
    result = predict(other, folder / kind)
    np.testing.assert_array_equal(result, predict(model))
    for value, kept in zip(other.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, kept)
    other.load_weights(folder / kind)
    np.testing.assert_array_equal(result, predict(other))


def test_legacy_files_of_weights_alone(keras, trained, tmp_path):
    """What Keras 2 wrote, and what keras.applications downloads."""
    path = tmp_path / "model.h5"
    with h5py.File(trained[1] / "x.h5") as whole, h5py.File(path, "w") as file:
        for name in whole["model_weights"]:
            whole.copy(f"model_weights/{name}", file)
        for name, value in whole["model_weights"].attrs.items():
            file.attrs[name] = value
    np.testing.assert_array_equal(predict(make_model(keras), path), predict(trained[0]))
    with pytest.raises(ModelFileError, match=r"holds weights only; build the model in Keras"):
        cnnkern.load(path)


@pytest.mark.parametrize("kind", KINDS)
def test_another_model_is_refused(keras, trained, kind):
    layers = keras.layers
    for stack in ([layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(9)], [layers.PReLU()]):
        with pytest.raises(ModelFileError, match=rf"^.*{kind}: "):
            predict(keras.Sequential([keras.Input((8, 8, 3)), *stack]), trained[1] / kind)


@pytest.mark.parametrize("kind", ["x.weights.h5", "x.weights.json"])
def test_load_says_what_to_do_with_weights_alone(trained, kind):
    for read in (cnnkern.load, cnnkern.check):
        with pytest.raises(ModelFileError, match=r"cnnkern\.from_keras\(model, weights=path\)"):
            read(trained[1] / kind)


HOSTILE_NAMES = [
    "../secret.weights.h5", "/tmp/secret.weights.h5", "a/b.weights.h5", "a\\b.weights.h5",
    "c:secret.weights.h5", "..", ".", "", "/", "\0.weights.h5", "a\n.weights.h5",
    "passwd", "x.h5", "a" * 250 + ".weights.h5", "\ud800.weights.h5",
    None, 3, True, {}, [[]], [None], {"x_00000.weights.h5": 1},
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=ascii)
def test_a_name_that_could_leave_the_folder(trained, folder, name):
    shutil.copy(folder / "x_00000.weights.h5", folder.parent / "secret.weights.h5")
    path = edit_index(folder, lambda shards: shards.update({"/layers/conv2d/vars": name}))
    with pytest.raises(ModelFileError, match="is not the plain name of a shard"):
        predict(trained[0], path)


def test_names_are_taken_once():
    names = ["a.weights.h5", "b c.weights.h5"]
    assert shard_names({"weight_map": {"x": names[0], "y": names[::-1]}}) == names
    assert shard_names({"weight_map": {}}) == []


def test_too_many_shards():
    shards = {str(i): f"{i}.weights.h5" for i in range(MAX_SHARDS + 1)}
    with pytest.raises(ModelFileError, match=f"more than {MAX_SHARDS} shards"):
        shard_names({"weight_map": shards})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "no weight_map"),
        ('{"weight_map": []}', "no weight_map"),
        ('{"weight_map": {}, "weight_map": {}}', "repeats a key"),
        ('{"weight_map": ' + "[" * 200, "not valid JSON"),
        ('{"weight_map": ' * 150 + "1" + "}" * 150, "nested deeper"),
        ('{"a": "' + "x" * (9 << 20) + '"}', "is larger than"),
        ("{", "not valid JSON"),
        ("[]", "neither"),
        ("", "neither"),
    ],
    ids=range(9),
)
def test_a_malformed_index(trained, tmp_path, text, message):
    path = tmp_path / "bad.weights.json"
    path.write_text(text)
    with pytest.raises(ModelFileError, match=message):
        predict(trained[0], path)


def test_mutations_of_an_index(trained, folder):
    """Every one is refused, or gives what the whole index gives."""
    model, path = trained[0], folder / "x.weights.json"
    seed, expected = path.read_bytes(), predict(model)
    rng = random.Random(0)
    for _ in range(300):
        data = bytearray(seed)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.choice([*b'"/.:,{}[]0x_', rng.randrange(256)])
        path.write_bytes(data)
        try:
            np.testing.assert_array_equal(predict(model, path), expected)
        except ModelFileError:
            continue


def directory(path):
    path.mkdir()


def loop(path):
    path.symlink_to(path)


@pytest.mark.parametrize("spoil", [None, os.mkfifo, directory, loop], ids=str)
def test_a_shard_that_is_no_regular_file(trained, folder, spoil):
    path = folder / "x_00001.weights.h5"
    path.unlink()
    if spoil is not None:
        spoil(path)
    with pytest.raises(ModelFileError, match=r"x\.weights\.json: .*x_00001\.weights\.h5: "):
        predict(trained[0], folder / "x.weights.json")


@pytest.mark.parametrize("length", [0, 8, 100, 3000])
def test_a_truncated_shard(trained, folder, length):
    os.truncate(folder / "x_00001.weights.h5", length)
    with pytest.raises(ModelFileError, match="x_00001"):
        predict(trained[0], folder / "x.weights.json")


def test_a_shard_that_is_another_index(trained, folder):
    shutil.copy(folder / "x.weights.json", folder / "x_00001.weights.h5")
    with pytest.raises(ModelFileError, match=r"x_00001\.weights\.h5: damaged HDF5 file"):
        predict(trained[0], folder / "x.weights.json")


def test_external_storage_in_a_shard(trained, folder, tmp_path):
    canary = tmp_path / "canary"
    canary.write_bytes(bytes(4 * 3))
    with h5py.File(folder / "x_00000.weights.h5", "r+") as file:
        place = _arrays(file)[0]
        shape = file[place].shape
        del file[place]
        file.create_dataset(place, shape, "f4", external=[(str(canary), 0, h5py.h5f.UNLIMITED)])
    with pytest.raises(ModelFileError, match="not stored in the file itself"):
        predict(trained[0], folder / "x.weights.json")


def _arrays(file):
    names = []
    file.visititems(lambda name, item: names.append(name) if hasattr(item, "shape") else None)
    return names


def test_an_array_in_two_shards(trained, folder):
    with h5py.File(folder / "x_00000.weights.h5") as file:
        name = _arrays(file)[0]
        shape = file[name].shape
    with h5py.File(folder / "x_00002.weights.h5", "r+") as file:
        file[name] = np.ones(shape, np.float32)
    with pytest.raises(ModelFileError, match="is in 2 files of weights"):
        predict(trained[0], folder / "x.weights.json")


def test_a_shard_that_the_index_does_not_name(trained, folder):
    """Its arrays are missing: files of an earlier run are not picked up."""

    def forget(shards):
        for path, value in list(shards.items()):
            names = value if isinstance(value, list) else [value]
            shards[path] = [name for name in names if "00001" not in name]

    with pytest.raises(ModelFileError, match="weight"):
        predict(trained[0], edit_index(folder, forget))


def test_files_are_closed_after_an_error(trained, folder):
    os.truncate(folder / "x_00003.weights.h5", 100)
    before = os.listdir("/dev/fd")
    for _ in range(3):
        with pytest.raises(ModelFileError), open_weights(folder / "x.weights.json", []):
            pass
    assert len(os.listdir("/dev/fd")) == len(before)


def test_a_merged_group_is_the_union(tmp_path):
    for name, value in (("a", 1.0), ("b", 2.0)):
        with h5py.File(tmp_path / name, "w") as file:
            file[f"layers/dense/vars/{int(value) - 1}"] = np.float32([value])
            file.create_group(f"layers/{name}")
    with (
        open_file(tmp_path / "a") as a, open_hdf5(a) as one,
        open_file(tmp_path / "b") as b, open_hdf5(b) as two,
    ):  # fmt: skip
        merged = MergedGroup([one, two])
        assert merged.group("layers").names() == ["a", "dense", "b"]
        variables = merged.group("layers/dense/vars")
        assert [variables.array(name).read()[0] for name in variables.names()] == [1, 2]
        assert merged.group("none") is None
        with pytest.raises(ModelFileError, match="in 0 files"):
            variables.array("2")
