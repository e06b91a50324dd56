"""Compiled CPU kernels for convolutional networks.

    import cnnkern

    model = cnnkern.load("digits.keras")   # no TensorFlow needed
    probabilities = model.predict(images)  # matches Keras' model.predict

`cnnkern.naive` holds the same computations as plain Python loops.
"""

from typing import TYPE_CHECKING, Any

from .errors import (
    CacheWarning,
    CnnkernError,
    DTypeError,
    KerasVersionWarning,
    ModelFileError,
    PlanError,
    ResourceLimitError,
    ShapeError,
    UnsupportedLayerError,
)

if TYPE_CHECKING:
    from . import naive
    from .api import NumpyOp, check, from_keras, load, register_layer, warmup
    from .engine import Model
    from .engine.threads import get_num_threads, set_num_threads
    from .functional import (
        average_pool2d,
        conv2d,
        dense,
        im2col,
        max_pool2d,
        relu,
        sigmoid,
        softmax,
        tanh,
    )

__version__ = "0.1.0"

# Name -> module: read on first use, so that `import cnnkern` costs nothing.
_LAZY = {
    **dict.fromkeys(
        ("NumpyOp", "check", "from_keras", "load", "register_layer", "warmup"), "api"
    ),
    "Model": "engine",
    **dict.fromkeys(("get_num_threads", "set_num_threads"), "engine.threads"),
    **dict.fromkeys(
        (
            "average_pool2d",
            "conv2d",
            "dense",
            "im2col",
            "max_pool2d",
            "relu",
            "sigmoid",
            "softmax",
            "tanh",
        ),
        "functional",
    ),
}

__all__ = [
    "CacheWarning",
    "CnnkernError",
    "DTypeError",
    "KerasVersionWarning",
    "Model",
    "ModelFileError",
    "NumpyOp",
    "PlanError",
    "ResourceLimitError",
    "ShapeError",
    "UnsupportedLayerError",
    "average_pool2d",
    "check",
    "conv2d",
    "dense",
    "from_keras",
    "get_num_threads",
    "im2col",
    "load",
    "max_pool2d",
    "naive",
    "register_layer",
    "relu",
    "set_num_threads",
    "sigmoid",
    "softmax",
    "tanh",
    "warmup",
]


def __getattr__(name: str) -> Any:
    import importlib

    if name == "naive":
        return importlib.import_module(".naive", __name__)
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
