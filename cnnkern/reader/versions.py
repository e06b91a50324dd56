"""What Keras 3 computes otherwise than the version that wrote a file."""

from __future__ import annotations

import os
import warnings

from ..errors import KerasVersionWarning
from ..graph import Graph
from ..ops.activation import Activation

BEFORE_KERAS_3 = ("0", "1", "2")
USER = 4  # frames: warn_of_changes, reader.load, api.load, and who called that


def warn_of_changes(
    path: str | os.PathLike[str], keras_version: str | None, graph: Graph
) -> None:
    """Warn once if Keras 1 or 2 wrote a file and meant something else by an option.

    ``hard_sigmoid`` was ``clip(0.2 * x + 0.5, 0, 1)`` and is ``clip(x / 6 + 0.5, 0, 1)``.

    Parameters
    ----------
    path : str or path
        How the warning names the file.
    keras_version : str or None
        Who wrote the file; None, which is no Keras 3, where it does not say.
    graph : Graph
        What the file was read as.
    """
    if (keras_version or "1").partition(".")[0] not in BEFORE_KERAS_3:
        return
    for node in graph.nodes:
        if isinstance(node.op, Activation) and node.op.function == "hard_sigmoid":
            warnings.warn(
                f"{os.fsdecode(path)}: written by Keras {(keras_version or '1 or 2')[:20]}, "
                f"whose hard_sigmoid was clip(0.2 * x + 0.5, 0, 1); layer {node.name[:80]!r} "
                "computes clip(x / 6 + 0.5, 0, 1), as Keras 3 does with this file",
                KerasVersionWarning,
                stacklevel=USER,
            )
            return
