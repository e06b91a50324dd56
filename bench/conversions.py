"""Makes the files that the runtimes load: one model, one format, one batch size per process.

    PYTHONPATH=tests python bench/conversions.py NAME FORMAT TARGET [--batch 16]

``keras`` builds the model with random weights and writes TARGET.keras, and in TARGET.x.npy
and TARGET.y.npy images and what ``model.predict`` says about them. The other formats read
TARGET.keras and write TARGET.b<batch>.<format>, ncnn's weights into another file beside it
that ends in .bin. Shapes are fixed, because every converter
and runtime can plan better for them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

N_IMAGES = 16  # the largest batch
ONNX_OPSET = 18  # the newest that tf2onnx writes
# Larger weights (of VGG's dense layers) are kept from tf2onnx, which copies constants with
# every change of the graph and frees none: it would take more than 16 GB.
DETACHED_BYTES = 16 << 20
DEFAULT_SIZE = 224
SIZES = {"InceptionV3": 299, "InceptionResNetV2": 299, "Xception": 299, "NASNetLarge": 331}


def application(name: str, rng: np.random.Generator) -> Any:
    """Return a model of ``keras.applications`` at its default size, with random weights."""
    import keras

    from applications import CALIBRATION_IMAGES, images, spread

    size = SIZES.get(name, DEFAULT_SIZE)
    options = {"weights": None, "input_shape": (size, size, 3), "classifier_activation": None}
    model = getattr(keras.applications, name)(**options)
    spread(model, images(model, CALIBRATION_IMAGES, rng), rng)
    return model


def build(name: str, target: Path) -> None:
    """Save the model, its images and its predictions."""
    import keras

    from applications import images
    from own_models import OWN

    rng = np.random.default_rng(0)
    keras.utils.set_random_seed(0)
    model = OWN[name]() if name in OWN else application(name, rng)
    x = images(model, N_IMAGES, rng)
    y = np.asarray(model.predict(x, verbose=0))
    if np.ptp(y, axis=0).max() < 1e-2 * np.abs(y).max():
        raise ValueError(f"the predictions of {name} hardly differ: comparing proves nothing")
    model.save(target.with_suffix(".keras"))
    np.save(target.with_suffix(".x.npy"), x)
    np.save(target.with_suffix(".y.npy"), y)


def convertible(model: Any) -> Any:
    """Return the model, or one that computes the same from what converters know.

    A grouped convolution of one input channel per group is depthwise; Keras' gelu is made of
    erfc, which ONNX lacks.
    """
    import keras

    def copy(layer: Any) -> Any:
        if getattr(layer, "groups", 1) > 1:
            return keras.layers.DepthwiseConv2D(
                layer.kernel_size, layer.strides, layer.padding, activation=layer.activation,
                depth_multiplier=layer.filters // layer.groups, use_bias=layer.use_bias,
            )  # fmt: skip
        if getattr(layer, "activation", None) is keras.activations.gelu:
            return keras.layers.Activation(
                lambda x: 0.5 * x * (1 + keras.ops.erf(x / np.float32(2) ** 0.5))
            )
        return layer.__class__.from_config(layer.get_config())

    if all(getattr(layer, "groups", 1) == 1 for layer in model.layers):
        return model
    result = keras.models.clone_model(model, clone_function=copy)
    for layer, old in zip(result.layers, model.layers, strict=True):
        arrays = zip(layer.weights, old.get_weights(), strict=True)
        layer.set_weights([array.reshape(weight.shape) for weight, array in arrays])
    return result


def read_frozen(target: Path, batch: int) -> Any:
    """Return the model as a TensorFlow function of one shape, its weights constants."""
    import keras
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2,
    )

    model = convertible(keras.models.load_model(target.with_suffix(".keras")))
    spec = tf.TensorSpec((batch, *model.input_shape[1:]), tf.float32, name="x")
    function = tf.function(lambda x: model(x, training=False), input_signature=[spec])
    return convert_variables_to_constants_v2(function.get_concrete_function())


def to_onnx(target: Path, batch: int) -> bytes:
    """Convert by tf2onnx from the graph with its weights as constants.

    ``model.export(format="onnx")`` fails for EfficientNet, whose constants it loses.
    """
    import tf2onnx
    from onnx import numpy_helper

    frozen = read_frozen(target, batch)
    graph = frozen.graph.as_graph_def()
    weights = detach_weights(graph)
    model, _ = tf2onnx.convert.from_graph_def(
        graph,
        input_names=[*(tensor.name for tensor in frozen.inputs), *weights],
        output_names=[tensor.name for tensor in frozen.outputs],
        opset=ONNX_OPSET,
    )
    for value in [value for value in model.graph.input if value.name in weights]:
        model.graph.input.remove(value)
    model.graph.initializer.extend(
        numpy_helper.from_array(array, name) for name, array in weights.items()
    )
    content: bytes = model.SerializeToString()
    return content


def detach_weights(graph: Any) -> dict[str, np.ndarray]:
    """Make inputs of very large constants; return their values by tensor name."""
    import tensorflow as tf

    weights = {}
    for node in graph.node:
        if node.op == "Const" and node.attr["value"].tensor.ByteSize() > DETACHED_BYTES:
            array = tf.make_ndarray(node.attr["value"].tensor)
            weights[f"{node.name}:0"] = array
            node.op = "Placeholder"
            del node.attr["value"]
            node.attr["shape"].shape.CopyFrom(tf.TensorShape(array.shape).as_proto())
    return weights


def to_tflite(target: Path, batch: int) -> bytes:
    """Convert by TensorFlow's own converter, without quantisation."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_concrete_functions([read_frozen(target, batch)])
    content: bytes = converter.convert()
    return content


def to_mnn(target: Path, batch: int) -> bytes:
    """Convert the TFLite file, since MNN could not run ONNX files of Keras models.

    The command ``mnnconvert`` installs packages and reports to its maker; this calls what
    it wraps.
    """
    import _tools

    source, result = converted(target, "tflite", batch), target.with_suffix(".mnn.part")
    _tools.mnnconvert(
        ["mnnconvert", "-f", "TFLITE", "--modelFile", str(source),
         "--MNNModel", str(result), "--bizCode", "bench"]
    )  # fmt: skip
    if not result.exists():
        raise ValueError("MNN's converter wrote no file")
    content = result.read_bytes()
    result.unlink()
    return content


def to_ncnn(target: Path, batch: int) -> bytes:
    """Convert the ONNX file by pnnx; write the weights beside it and return the network.

    This runs the program in pnnx's package, which needs no torch, unlike the package.
    """
    program = distribution("pnnx").locate_file("pnnx/pnnx")
    with tempfile.TemporaryDirectory() as folder:
        simplify(converted(target, "onnx", batch), Path(folder, "model.onnx"))
        subprocess.run([program, "model.onnx", "fp16=0"], cwd=folder, check=True)
        content = Path(folder, "model.ncnn.param").read_bytes()
        check_layers(content.decode())
        shutil.move(Path(folder, "model.ncnn.bin"), f"{converted(target, 'ncnn', batch)}.bin")
    return content


def simplify(source: Path, result: Path) -> None:
    """Fold padding and batch normalisation into convolutions, of which pnnx folds fewer.

    pnnx ignores paddings that do not say what the default of their mode is.
    """
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(result)
    onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    model = onnx.load(result)
    for node in model.graph.node:
        if node.op_type == "Pad" and not node.attribute:
            node.attribute.append(onnx.helper.make_attribute("mode", "constant"))
    onnx.save(model, result)


def check_layers(network: str) -> None:
    """Raise for operations that pnnx passes on though ncnn has none of that name."""
    import ncnn

    _, _, *layers = network.splitlines()
    names = sorted({layer.split()[0] for layer in layers})
    if unknown := [name for name in names if ncnn.layer_to_index(name) < 0]:
        raise ValueError(f"pnnx could not convert {', '.join(unknown)}")


FORMATS: dict[str, Callable[[Path, int], bytes]] = {
    "onnx": to_onnx, "tflite": to_tflite, "mnn": to_mnn, "ncnn": to_ncnn,
}  # fmt: skip
SOURCES = {"mnn": "tflite", "ncnn": "onnx"}  # formats that are made of another


def converted(target: Path, format: str, batch: int) -> Path:
    """Return the path of a converted model; ``.keras`` fits every batch."""
    suffix = ".keras" if format == "keras" else f".b{batch}.{format}"
    return target.with_suffix(suffix)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("format", choices=["keras", *FORMATS])
    parser.add_argument("target", type=Path)
    parser.add_argument("--batch", type=int, default=1)
    options = parser.parse_args()
    if options.format == "keras":
        build(options.name, options.target)
    else:
        content = FORMATS[options.format](options.target, options.batch)
        converted(options.target, options.format, options.batch).write_bytes(content)


if __name__ == "__main__":
    main()
