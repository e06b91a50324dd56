"""What the benches share: the seed model in every form, the post's NumPy loop, peers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cnnkern

SEED_IMAGE = np.array([[1, 2, 3, 3], [2, 3, 4, 5], [4, 5, 6, 7], [1, 3, 4, 6]]) / 9


@pytest.fixture(scope="session", autouse=True)
def warm_kernels() -> None:
    """Compile everything before anything is timed."""
    cnnkern.warmup()


@pytest.fixture(scope="session")
def seed_keras() -> Any:
    """The seed example as a Keras model."""
    import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            layers.Conv2D(1, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(1, activation="sigmoid"),
        ]
    )


@pytest.fixture(scope="session")
def seed_image() -> np.ndarray:
    """float32[1, 4, 4, 1]."""
    return SEED_IMAGE.reshape(1, 4, 4, 1).astype(np.float32)


@pytest.fixture(scope="session")
def seed_onnx(seed_keras: Any) -> Callable[[np.ndarray], np.ndarray]:
    """The seed model in ONNX Runtime, one thread, all graph optimisations."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        seed_onnx_bytes(seed_keras), options, providers=["CPUExecutionProvider"]
    )

    def run(x: np.ndarray) -> np.ndarray:
        result: np.ndarray = session.run(None, {"x": x})[0]
        return result

    return run


def seed_onnx_bytes(trained: Any) -> bytes:
    """Return the seed model as an ONNX graph with the weights of `trained`."""
    from onnx import TensorProto, helper, numpy_helper

    filters, bias, weight, shift = trained.get_weights()
    constants = {
        "w": filters.transpose(3, 2, 0, 1), "b": bias, "dw": weight, "db": shift,
    }  # fmt: skip
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["t", "w", "b"], ["c"]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["m"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["m"], ["f"]),
        helper.make_node("Gemm", ["f", "dw", "db"], ["g"]),
        helper.make_node("Sigmoid", ["g"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "seed",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 4, 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1])],
        [numpy_helper.from_array(np.ascontiguousarray(v), k) for k, v in constants.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    content: bytes = helper.make_model(
        graph, opset_imports=opset, ir_version=8
    ).SerializeToString()
    return content


@pytest.fixture(scope="session")
def digits_file() -> Path:
    """The trained digit classifier that ships with the package."""
    return Path(cnnkern.__file__).parent / "data" / "digits.keras"
