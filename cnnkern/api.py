"""The entry points that turn Keras' things into a `Model`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from . import reader
from .codegen.isa import best
from .engine import Model
from .kernels import KERNELS, address
from .ops.custom import NumpyOp
from .reader import register_layer

if TYPE_CHECKING:
    from .reader import Problem

__all__ = ["NumpyOp", "check", "from_keras", "load", "register_layer", "warmup"]


def load(path: str | os.PathLike[str], precision: str = "fast") -> Model:
    """Read a ``.keras``, ``.h5`` or ``.hdf5`` file, without TensorFlow or Keras.

    Large weights stay in the file, which the model keeps open, until the first predict
    packs them for the kernels. A file may be replaced or deleted meanwhile; one whose
    content was changed in place makes that predict raise ModelFileError.

    Parameters
    ----------
    path : str or path-like
        A file that ``model.save`` wrote (Keras 2 or 3).
    precision : "fast" or "strict"
        "strict" sums every convolution directly; "fast" may use Winograd's and Strassen's
        algorithms and round large matrices to 24 bits.

    Raises
    ------
    ModelFileError
        The file is missing, truncated, not a Keras model, or malformed.
    UnsupportedLayerError
        A layer or option is not implemented; `check` lists all of them.

    Warns
    -----
    KerasVersionWarning
        Keras 1 or 2 wrote the file, and Keras 3 computes one of its options otherwise.
        The result is that of Keras 3.
    """
    return Model(reader.load(path), precision)


def from_keras(
    model: Any, precision: str = "fast", weights: str | os.PathLike[str] | None = None
) -> Model:
    """Take the architecture and the current weights of a live ``keras.Model``.

    Parameters
    ----------
    model : keras.Model
    precision : "fast" or "strict"
        "strict" sums every convolution directly; "fast" may use Winograd's and Strassen's
        algorithms and round large matrices to 24 bits.
    weights : str or path-like, optional
        A file that ``model.load_weights`` takes (``.weights.h5``, ``.weights.json`` with
        its shards beside it, ``.keras``, ``.h5``): its weights are used instead of the
        current ones, and the live model stays as it is.

    Raises
    ------
    UnsupportedLayerError
        A layer or option is not implemented; `check` lists all of them.
    ModelFileError
        The file of weights is missing, malformed, or does not fit the model.
    """
    return Model(reader.from_keras(model, weights), precision)


def check(path: str | os.PathLike[str]) -> list[Problem]:
    """Return every layer and option of a model file that is not supported.

    Nothing is compiled. An empty list means that `load` works.

    Raises
    ------
    ModelFileError
        The file is missing, truncated, not a Keras model, or malformed.
    """
    return reader.check(path)


def warmup() -> int:
    """Compile all kernels for this machine into the cache; return how many there are."""
    for name in KERNELS:
        address(name, best())
    return len(KERNELS)
