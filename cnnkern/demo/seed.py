"""``cnnkern demo seed``: a network of 12 weights, number by number.

Conv2D(1, 3x3, relu) -> MaxPooling2D(2) -> Flatten -> Dense(1, sigmoid) on 4x4x1 inputs, once
with plain loops, once with compiled kernels, and with Keras itself where it is installed.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from rich.columns import Columns
from rich.console import Console
from rich.table import Table

from .. import functional, naive
from ..graph import Array, as_array


class SeedWeights(NamedTuple):
    """The network's weights, in the order of Keras' ``get_weights``."""

    filter: Array  # float32[3, 3, 1, 1]
    filter_bias: Array  # float32[1]
    weight: Array  # float32[1, 1]
    bias: Array  # float32[1]


PUBLISHED = SeedWeights(
    as_array(
        [
            [0.1985341, 0.27599618, 0.20717546],
            [-0.41702896, -0.21289168, 0.12980239],
            [-0.14379142, 0.55261314, -0.49706236],
        ]
    ).reshape(3, 3, 1, 1),
    as_array([0.04198299]),
    as_array([[1.5805249]]),
    as_array([-0.28272304]),
)
SAMPLES = as_array(
    [
        [[1, 2, 3, 3], [2, 3, 4, 5], [4, 5, 6, 7], [1, 3, 4, 6]],
        [[-1, 2, 3, -5], [2, -2, 4, 5], [-3, 5, -4, 9], [-1, -3, -2, -5]],
    ]
).reshape(2, 4, 4, 1) / np.float32(9)
LABELS = as_array([1, 0])


def walk(functions: Any, x: Array, weights: SeedWeights = PUBLISHED) -> dict[str, Array]:
    """Compute the network step by step.

    Parameters
    ----------
    functions : module
        `cnnkern.naive` or `cnnkern.functional`: both have the same names and arguments.
    x : float32[1, 4, 4, 1]

    Returns
    -------
    Each step's result by the step's name, in order.
    """
    feature_map = functions.conv2d(x, weights.filter, weights.filter_bias)
    rectified = functions.relu(feature_map)
    pooled = functions.max_pool2d(rectified, 2)
    summed = functions.dense(pooled.reshape(1, 1), weights.weight, weights.bias)
    return {
        "feature map": feature_map,
        "ReLU": rectified,
        "max pooling": pooled,
        "dense": summed,
        "sigmoid": functions.sigmoid(summed),
    }


def exact_answer(x: Array, weights: SeedWeights = PUBLISHED) -> float:
    """Return the network's answer in double precision, by NumPy windows."""
    filter, filter_bias, weight, bias = (w.astype(np.float64).squeeze() for w in weights)
    windows = sliding_window_view(x.squeeze(), filter.shape)
    feature_map = (windows * filter).sum(axis=(2, 3)) + filter_bias
    pooled = max(feature_map.max(), 0.0)
    return float(1 / (1 + np.exp(-(pooled * weight + bias))))


def main(console: Console | None = None) -> None:
    """Print the walk with the published weights, then train the same network in Keras."""
    console = console or Console()
    x = SAMPLES[:1]
    console.rule("Conv2D(1, 3x3, relu), MaxPooling2D(2), Flatten, Dense(1, sigmoid)")
    grids = [_grid("input", x[0, ..., 0]), _grid("filter", PUBLISHED.filter[..., 0, 0])]
    console.print(Columns(grids, padding=(0, 4)))
    console.print("The filter's first stop: multiply tap by tap, add up, add the bias")
    console.print(first_window(x), highlight=False, style="dim")
    by_loops, compiled = walk(naive, x), walk(functional, x)
    console.print(steps_table(by_loops, compiled))
    console.print(
        f"Answer: {compiled['sigmoid'].item():.8f}, the float32 next to the exact "
        f"[bold]{exact_answer(x):.8f}[/bold]",
        highlight=False,
    )
    if find_spec("keras") is None or find_spec("tensorflow") is None:
        hint = "To train it in Keras and compare: pip install 'cnnkern[keras]'"
        console.print(hint, markup=False, highlight=False)
        return
    from .seed_keras import print_comparison

    print_comparison(console)


def first_window(x: Array) -> str:
    """Return the sum that gives the feature map's first value, written out."""
    pixels, taps = x[0, :3, :3, 0].ravel(), PUBLISHED.filter.ravel()
    products = [f"{pixel:.4f} * {tap:.4f}" for pixel, tap in zip(pixels, taps, strict=True)]
    total = walk(naive, x)["feature map"][0, 0, 0, 0]
    return f"{' + '.join(products)} + {PUBLISHED.filter_bias[0]:.4f} = {total:.8f}"


def steps_table(by_loops: dict[str, Array], compiled: dict[str, Array]) -> Table:
    """Return every number of both walks, one per row."""
    table = Table("Step", header_style="bold")
    for heading in ("Naive loops", "Compiled kernels"):
        table.add_column(heading, justify="right")
    for step, values in by_loops.items():
        for index in np.ndindex(values.shape):
            position = f" {list(index[1:3])}" if values.size > 1 else ""
            table.add_row(
                step + position, f"{values[index]:.8f}", f"{compiled[step][index]:.8f}"
            )
        table.add_section()
    return table


def _grid(title: str, values: Array) -> Table:
    table = Table(title=title, show_header=False)
    for row in values:
        table.add_row(*(f"{value:.4f}" for value in row))
    return table
