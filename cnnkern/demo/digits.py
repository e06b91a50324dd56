"""``cnnkern demo``: the shipped classifier on digits that it never saw."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.columns import Columns
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from .. import naive
from ..api import load
from ..engine import Model
from ..graph import Array, Graph, as_array
from ..inspect.summary import print_summary
from ..kernels import compiled

DATA = Path(__file__).parent.parent / "data"
MODEL_FILE = DATA / "digits.keras"
PIXEL_MAX = 16
SHADES = " ░▒▓█"
N_NAIVE = 10  # images for the plain loops, which are slow
N_REPEATS = 2000
N_BATCHES = 50


@dataclass(frozen=True)
class Digits:
    """Held-out digits and what Keras predicted for them, see scripts/train_digits.py.

    Parameters
    ----------
    images : uint8[N, 8, 8], pixels 0..16
    labels : uint8[N]
    predictions : float32[N, 10], stored results of ``model.predict``
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    predictions: Array

    @property
    def x(self) -> Array:
        """The model's input, float32[N, 8, 8, 1]."""
        return as_array(self.images[..., None]) / np.float32(PIXEL_MAX)


@dataclass(frozen=True)
class Findings:
    """What the demonstration measures; times in seconds."""

    y: Array
    accuracy: float
    difference: float  # max|d| against the stored predictions
    naive_difference: float  # max|d| against the plain loops
    first: float  # load and first prediction
    single: float  # per image, one at a time
    batched: float  # per image, all at once
    naive: float  # per image, plain Python loops


def held_out() -> Digits:
    """Read the digits that ship with the package."""
    with np.load(DATA / "digits.npz", allow_pickle=False) as file:
        return Digits(file["images"], file["labels"], file["predictions"])


def classify_by_loops(graph: Graph, x: Array) -> Array:
    """Compute the shipped model with the plain loops of `cnnkern.naive`, layer by layer.

    Parameters
    ----------
    x : float32[N, 8, 8, 1]

    Returns
    -------
    float32[N, 10]
    """
    op: Any = {node.name: node.op for node in graph.nodes}
    scale, shift = op["normalize"].scale_and_shift()
    y = naive.conv2d(x, op["conv_1"].filter, padding="same")
    y = naive.max_pool2d(naive.relu(y * scale + shift))
    y = naive.conv2d(y, op["conv_2/conv"].filter, op["conv_2/conv"].bias, padding="same")
    y = naive.max_pool2d(naive.relu(y))
    y = naive.dense(y.reshape(len(y), -1), op["digit/dense"].weight, op["digit/dense"].bias)
    return naive.softmax(y)


def measure(digits: Digits) -> tuple[Model, Findings]:
    """Load the model, classify all digits, and time it against the plain loops."""
    start = time.perf_counter()
    model = load(MODEL_FILE)
    model(digits.x[:1])
    first = time.perf_counter() - start
    x, y = digits.x, model.predict(digits.x)
    images = [x[i : i + 1] for i in range(N_NAIVE)]
    by_loops = np.concatenate([classify_by_loops(model.graph, image) for image in images])
    findings = Findings(
        y,
        accuracy=float((y.argmax(axis=1) == digits.labels).mean()),
        difference=float(np.abs(y - digits.predictions).max()),
        naive_difference=float(np.abs(y[:N_NAIVE] - by_loops).max()),
        first=first,
        single=median_seconds([partial(model, images[0])] * N_REPEATS),
        batched=median_seconds([partial(model, x)] * N_BATCHES) / len(x),
        naive=median_seconds([partial(classify_by_loops, model.graph, i) for i in images]),
    )
    return model, findings


def median_seconds(runs: Sequence[Callable[[], Any]]) -> float:
    """Return the median time of the runs, in seconds."""
    times = []
    for run in runs:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def main(console: Console | None = None) -> None:
    """Classify the held-out digits and print what was measured."""
    console = console or Console()
    digits = held_out()
    with console.status("classifying digits ..."):
        model, findings = measure(digits)
    console.rule("The model: trained by Keras, read without it")
    print_summary(model, console)
    console.rule(f"{len(digits.labels)} handwritten digits that it never saw")
    console.print(pictures(digits, findings.y))
    console.rule("Measured here and now")
    console.print(results_table(digits, findings))


def pictures(digits: Digits, y: Array) -> Columns:
    """Return three digits as text: two that the model got right, one that it did not."""
    is_right = y.argmax(axis=1) == digits.labels
    chosen = [*np.flatnonzero(is_right)[:2], *np.flatnonzero(~is_right)[:1]]
    return Columns([_picture(digits.images[i], digits.labels[i], y[i]) for i in chosen])


def results_table(digits: Digits, findings: Findings) -> Table:
    """Return the figures, one per row."""
    largest = np.abs(digits.predictions).max()
    origin = "compiled, once on this machine" if compiled() else "from the cache"
    table = Table.grid(padding=(0, 3))
    table.add_column(style="bold")
    rows = {
        "Accuracy": f"{findings.accuracy:.2%} of {len(digits.labels)} digits",
        "Against model.predict": f"max|d| = {findings.difference:.1e}, "
        f"{findings.difference / largest:.1e} of max|y|",
        "Against naive loops": f"max|d| = {findings.naive_difference:.1e}",
        "Load, first prediction": f"{findings.first:.2f} s, kernels {origin}",
        "Latency of one image": f"{findings.single * 1e6:.1f} µs, median of {N_REPEATS:,}",
        f"In a batch of {len(digits.labels)}": f"{findings.batched * 1e6:.1f} µs per image",
        "Naive Python loops": f"{findings.naive * 1e3:.1f} ms per image",
        "Speed-up": f"{findings.naive / findings.single:,.0f} times",
    }
    for row in rows.items():
        table.add_row(*row)
    return table


def _picture(image: NDArray[np.uint8], label: int, y: Array) -> Panel:
    """Return a digit drawn with two characters per pixel."""
    levels = image.astype(int) * (len(SHADES) - 1) // PIXEL_MAX
    lines = ["".join(2 * SHADES[level] for level in row) for row in levels]
    guess = int(y.argmax())
    verdict = f"{guess} ({y[guess]:.0%})" + ("" if guess == label else f", truly {label}")
    return Panel(Text("\n".join(lines)), subtitle=verdict, width=26, padding=(0, 4))
