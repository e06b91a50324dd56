"""Layers with ``data_format="channels_first"``: their op between two permutations.

Each layer becomes right by itself; `permutes.sink_permutes` then cancels what stands between
two layers, so that a model is transposed at its ends only.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..graph import Op
from ..ops.config import LayerConfig, Weights
from ..ops.layout import Permute
from ..ops.softmax import AXIS_ACTIVATIONS
from ..shapes import Shape
from .config import LayerSpec
from .custom import Factory

CHANNELS_FIRST = "channels_first"


def is_channels_first(layer: LayerSpec) -> bool:
    """Tell whether a layer's configuration says so."""
    return layer.config.get("data_format") == CHANNELS_FIRST


def channels_last(factory: Factory) -> Factory:
    """Return `factory` for layers of both data formats; it reads channels-last ones itself."""

    def build(
        config: LayerConfig, weights: Weights, shapes: Sequence[Shape]
    ) -> Op | tuple[Op, ...]:
        if config.options.get("data_format") != CHANNELS_FIRST:
            return factory(config, weights, shapes)
        config.options["data_format"] = "channels_last"
        if not shapes or len(shapes[0]) < 3:  # no axis stands behind the channels
            return factory(config, weights, shapes)
        return _permuted(factory, config, weights, shapes[0])

    return build


def _permuted(
    factory: Factory, config: LayerConfig, weights: Weights, shape: Shape
) -> tuple[Op, ...]:
    rank = len(shape)
    to_last, to_first = Permute((*range(2, rank), 1)), Permute((rank - 1, *range(1, rank - 1)))
    result = factory(config, weights, [to_last.infer_shape(shape)])
    ops: list[Op] = [to_last, *(result if isinstance(result, tuple) else (result,))]
    y = shape
    for op in ops:
        y = op.infer_shape(y)
    if len(y) == rank:
        # A softmax that a layer applies works along the last axis, whichever that is.
        has_axis = len(ops) > 2 and isinstance(ops[-1], tuple(AXIS_ACTIVATIONS.values()))
        ops.insert(len(ops) - has_axis, to_first)
    return tuple(ops)
