"""Groups of a `.keras` file are found by class and count, and belong to their layers."""

import numpy as np
import pytest

from cnnkern.errors import ModelFileError
from cnnkern.reader.config import parse_model
from cnnkern.reader.weights import KerasSource, WeightQueue, snake_case


class Stored:
    def __init__(self, value):
        self.value, self.shape = value, (1,)

    def read(self):
        return np.float32([self.value])

    defer = read


class Folder:
    """A group made of a dictionary; a number is an array, `name` an attribute."""

    def __init__(self, content):
        self.content = content

    def names(self):
        return [name for name in self.content if name != "@name"]

    def group(self, path):
        folder = self.content.get(path)
        return Folder(folder) if isinstance(folder, dict) else None

    def array(self, path):
        return Stored(self.content[path])

    def text(self, name):
        return self.content.get(f"@{name}")


def sequential(*layers, name="net"):
    entries = [
        layer
        if isinstance(layer, dict)
        else {"class_name": layer[0], "config": {"name": layer[1], "trainable": True}}
        for layer in layers
    ]
    return {"class_name": "Sequential", "config": {"name": name, "layers": entries}}


def variables(*values, name=None):
    content = {str(count): value for count, value in enumerate(values)}
    return {"vars": content if name is None else {**content, "@name": name}}


def source(config, content):
    return KerasSource(Folder(content), parse_model(config))


def values(weights):
    """Take all arrays of a layer, each of one element."""
    found = []
    while True:
        try:
            found.append(float(weights.take("w", (1,))[0]))
        except ModelFileError:
            return found


@pytest.mark.parametrize(
    ("class_name", "path"),
    [
        ("Dense", "dense"),
        ("Conv2D", "conv2d"),
        ("Conv2DTranspose", "conv2d_transpose"),
        ("ReLU", "re_lu"),
        ("PReLU", "p_re_lu"),
        ("BatchNormalization", "batch_normalization"),
        ("SeparableConv1D", "separable_conv1d"),
        ("GlobalAveragePooling2D", "global_average_pooling2d"),
        ("Functional", "functional"),
    ],
)
def test_snake_case(class_name, path):
    assert snake_case(class_name) == path


def test_layers_are_counted_by_class():
    config = sequential(("Dense", "a"), ("ReLU", "r"), ("Dense", "b"), ("Dense", "c"))
    content = {"dense": variables(1, 2), "dense_1": variables(3), "dense_2": variables(4)}
    weights = source(config, {"layers": content})
    assert [values(weights.weights(index)) for index in range(1, 5)] == [[1, 2], [], [3], [4]]


def test_nested_models_count_for_themselves():
    config = sequential(("Dense", "a"), sequential(("Dense", "b"), name="in"), ("Dense", "c"))
    inner = {"layers": {"dense": variables(2)}, **variables(name="in")}
    content = {"dense": variables(1), "sequential": inner, "dense_1": variables(3)}
    weights = source(config, {"layers": content})
    assert values(weights.nested(2).weights(1)) == [2]
    assert [values(weights.weights(index)) for index in (1, 3)] == [[1], [3]]


def test_the_input_of_a_sequential_model_is_not_counted():
    first = {"class_name": "InputLayer", "config": {"name": "x", "batch_shape": [None, 1]}}
    weights = source(sequential(first, ("Dense", "a")), {"layers": {"dense": variables(1)}})
    assert values(weights.weights(1)) == [1]


def test_names_must_agree():
    config = sequential(("Dense", "a"), ("Dense", "b"))
    content = {"dense": variables(1, name="a"), "dense_1": variables(2, name="b")}
    assert values(source(config, {"layers": content}).weights(2)) == [2]
    content = {"dense": variables(1, name="b"), "dense_1": variables(2, name="a")}
    with pytest.raises(ModelFileError, match="Dense 'a': its weights belong to layer 'b'"):
        source(config, {"layers": content}).weights(1)


def test_names_of_nested_models_must_agree():
    inner = {"layers": {"dense": variables(2)}, **variables(name="other")}
    config = sequential(sequential(("Dense", "b"), name="in"))
    with pytest.raises(ModelFileError, match="belong to layer 'other'"):
        source(config, {"layers": {"sequential": inner}}).nested(1)


def test_groups_that_belong_to_no_layer_are_refused():
    content = {"dense": variables(1), "dense_1": variables(2)}
    with pytest.raises(ModelFileError, match="'dense_1' belong to no layer"):
        source(sequential(("Dense", "a")), {"layers": content})


@pytest.mark.parametrize("names", [["1"], ["0", "2"], ["0", "x"], ["00"]], ids=str)
def test_arrays_are_numbered_from_0(names):
    content = {"dense": {"vars": dict.fromkeys(names, 1)}}
    with pytest.raises(ModelFileError, match="not numbered"):
        source(sequential(("Dense", "a")), {"layers": content}).weights(1)


@pytest.mark.parametrize("content", [{}, {"layers": {}}, {"layers": {"dense": {}}}], ids=str)
def test_missing_groups_are_empty(content):
    weights = source(sequential(("Dense", "a")), content).weights(1)
    with pytest.raises(ModelFileError, match="Dense 'a': weight 'w' is missing"):
        weights.take("w", (1,))


@pytest.mark.parametrize("step", [1, 2])
def test_keras_2_12_groups(step):
    """It counted a layer with weights twice; later versions did not."""
    config = sequential(*(("Dense", name) for name in "abc"), ("ReLU", "r"))
    content = {f"dense_{n * step}" if n else "dense": variables(n) for n in range(3)}
    content |= {"re_lu": {"vars": {}}, "dense_1": content.get("dense_1", {"vars": {}})}
    weights = source(config, {"_layer_checkpoint_dependencies": content})
    assert [values(weights.weights(index)) for index in range(1, 5)] == [[0], [1], [2], []]


def test_keras_2_12_groups_must_be_as_many_as_layers():
    content = {"dense": variables(1)}
    config = sequential(("Dense", "a"), ("Dense", "b"))
    with pytest.raises(ModelFileError, match="1 groups of weights for 2 layers 'dense'"):
        source(config, {"_layer_checkpoint_dependencies": content})


def test_queue_hands_out_in_order_and_counts():
    queue = WeightQueue("Dense 'd'", [Stored(1), Stored(2), Stored(3)])
    assert float(queue.take("a", (1,))[0]) == 1
    queue.skip("b")
    with pytest.raises(ModelFileError, match="Dense 'd': 1 weights more than it can have"):
        queue.finish()
    assert float(queue.take("c", [1])[0]) == 3
    queue.finish()
    assert queue.n_elems == 3
    with pytest.raises(ModelFileError, match="Dense 'd': weight 'd' is missing"):
        queue.skip("d")
