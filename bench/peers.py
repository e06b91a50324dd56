"""The runtimes of bench_models.py, each at the settings that ran fastest here.

A runtime is a function ``load(file, n_threads)`` that imports it, loads the file and returns
``run(x) -> y``. All compute in float32. Each is loaded in a process of its own, so nothing
is imported before its turn.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np

    Run = Callable[[np.ndarray], np.ndarray]
    Load = Callable[[Path, int], Run]


def load_cnnkern(file: Path, n_threads: int) -> Run:
    """Read the .keras file; the kernels come from the cache."""
    import cnnkern

    cnnkern.set_num_threads(n_threads)
    return cnnkern.load(file)


def load_onnxruntime(file: Path, n_threads: int) -> Run:
    """All graph optimisations, which is the default; so are threads that spin within a run."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = n_threads, 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    (x,) = session.get_inputs()
    return lambda value: session.run(None, {x.name: value})[0]


def load_openvino(file: Path, n_threads: int) -> Run:
    """Without the hint OpenVINO computes in bf16 where the processor can."""
    import openvino

    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": n_threads,
    }
    request = openvino.Core().compile_model(file, "CPU", settings).create_infer_request()
    return lambda value: request.infer([value], share_inputs=True, share_outputs=True)[0]


def load_litert(file: Path, n_threads: int) -> Run:
    """XNNPACK is the default delegate."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(file), num_threads=n_threads)
    interpreter.allocate_tensors()
    (x,), (y,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(value: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(x["index"], value)
        interpreter.invoke()
        result: np.ndarray = interpreter.get_tensor(y["index"])
        return result

    return run


def load_mnn(file: Path, n_threads: int) -> Run:
    """Precision "high" is float32."""
    import MNN

    interpreter = MNN.Interpreter(str(file))
    settings = {"backend": "CPU", "precision": "high", "numThread": n_threads}
    session = interpreter.createSession(settings)
    x, y = interpreter.getSessionInput(session), interpreter.getSessionOutput(session)

    def run(value: np.ndarray) -> np.ndarray:
        layout = MNN.Tensor_DimensionType_Tensorflow
        x.copyFrom(MNN.Tensor(value.shape, MNN.Halide_Type_Float, value, layout))
        interpreter.runSession(session)
        return y.getNumpyData()

    return run


def load_ncnn(file: Path, n_threads: int) -> Run:
    """Without the fp16 options ncnn computes in fp16 where the processor can.

    Image by image is faster than its batches: 1.3 times on MobileNetV2.
    """
    # OpenMP's threads spin for each other that often, then sleep. The default is as fast, but
    # took 30 times as long whenever another process had one of the CPUs.
    os.environ["GOMP_SPINCOUNT"] = "4000"
    import ncnn
    import numpy as np

    net = ncnn.Net()
    net.opt.num_threads = n_threads
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    if net.load_param(str(file)) or net.load_model(f"{file}.bin"):
        raise ValueError("ncnn cannot load the file")

    def predict(image: np.ndarray) -> Any:
        extractor = net.create_extractor()
        extractor.input("in0", ncnn.Mat(image).clone())  # crashes on memory of NumPy's
        return extractor.extract("out0")[1].numpy()

    return lambda value: np.stack([predict(image) for image in value])


def load_keras(file: Path, n_threads: int) -> tuple[Any, Any]:
    """Import TensorFlow on `n_threads` threads; return it and the model."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1"  # not the default without AVX-512
    import keras
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(n_threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    return tf, keras.models.load_model(file)


def load_function(file: Path, n_threads: int) -> Run:
    """Trace the model, its weights constants, which gains a fifth on MobileNetV2."""
    tf, model = load_keras(file, n_threads)
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2,
    )

    spec = tf.TensorSpec(model.input_shape, tf.float32)
    function = tf.function(lambda x: model(x, training=False), input_signature=[spec])
    frozen = convert_variables_to_constants_v2(function.get_concrete_function())
    return lambda value: frozen(tf.constant(value))[0].numpy()


def load_predict(file: Path, n_threads: int) -> Run:
    """What everybody calls first."""
    _, model = load_keras(file, n_threads)
    return lambda value: model.predict(value, verbose=0)


class Runtime(NamedTuple):
    """How to load a file, what format it has, and the package that must be installed."""

    format: str
    package: str
    load: Load


OURS = "cnnkern"
RUNTIMES = {
    OURS: Runtime("keras", "cnnkern", load_cnnkern),
    "ONNX Runtime": Runtime("onnx", "onnxruntime", load_onnxruntime),
    "OpenVINO": Runtime("onnx", "openvino", load_openvino),
    "LiteRT": Runtime("tflite", "ai-edge-litert", load_litert),
    "MNN": Runtime("mnn", "MNN", load_mnn),
    "ncnn": Runtime("ncnn", "ncnn", load_ncnn),
    "tf.function": Runtime("keras", "tensorflow", load_function),
    "model.predict": Runtime("keras", "tensorflow", load_predict),
}
