"""Keras models in, Graph out: `.keras` and HDF5 files without Keras, and live models.

Nothing that a file names is imported, opened, evaluated or unpickled, except that an index
of weights names its shards: class names go through the registry of ops, and arrays are
floats whose shapes the configuration implies.
"""

from __future__ import annotations

import os
from typing import Any

from ..graph import Graph
from .build import Problem, build_graph, find_problems
from .config import parse_model
from .custom import register_layer
from .files import open_model
from .versions import warn_of_changes
from .weightfiles import open_weights

__all__ = ["Problem", "check", "from_keras", "load", "register_layer"]


def load(path: str | os.PathLike[str]) -> Graph:
    """Read a `.keras` file or a legacy HDF5 file.

    Parameters
    ----------
    path : str or path
        The format follows from the content.

    Raises
    ------
    ModelFileError
        The file is missing, truncated, malformed or hostile.
    UnsupportedLayerError
        A layer, or one of its options, is not implemented.
    ResourceLimitError
        There is no memory for the weights.

    Warns
    -----
    KerasVersionWarning
        Keras 1 or 2 wrote the file, and Keras 3 computes one of its options otherwise.
    """
    with open_model(path) as file:
        spec = parse_model(file.config)
        graph = build_graph(spec, file.source(spec))
    warn_of_changes(path, file.keras_version, graph)
    return graph


def from_keras(model: Any, weights: str | os.PathLike[str] | None = None) -> Graph:
    """Read a live Sequential or Functional `keras.Model`.

    Parameters
    ----------
    model : keras.Model
    weights : str or path, optional
        A file of weights, read instead of the model's variables.

    Raises
    ------
    UnsupportedLayerError
        A layer, or one of its options, is not implemented; or the model is a subclass
        with code of its own, or is not built.
    ModelFileError
        The configuration that Keras gives is not one that it can read; or the weights are
        missing, malformed or hostile, or do not fit the model.
    """
    from .live import describe, weighted_layers

    spec, source = describe(model)
    if weights is None:
        return build_graph(spec, source)
    with open_weights(weights, weighted_layers(model)) as make_source:
        return build_graph(spec, make_source(spec))


def check(model: Any) -> list[Problem]:
    """Return everything that keeps a model from running, without compiling anything.

    Parameters
    ----------
    model : str, path or keras.Model

    Raises
    ------
    ModelFileError
        The file cannot be read at all.
    UnsupportedLayerError
        The model is neither Sequential nor Functional.
    """
    if not isinstance(model, (str, os.PathLike)):
        from .live import describe

        return find_problems(*describe(model))
    with open_model(model) as file:
        spec = parse_model(file.config)
        return find_problems(spec, file.source(spec))
