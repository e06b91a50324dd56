"""Each convolution of shapes.csv: GFLOP/s and percent of the measured FMA peak.

    python bench/bench_kernels.py [--isa avx2] [--rounds 15] [--threads 1 2] [--assert]

A Winograd convolution counts the operations of the direct sum that it saves. The bound of a
depthwise one is the smaller of the FMA peak and of what a copy of its input takes.

A shape is checked against a float64 convolution before it is timed. Peak and kernels are
timed in turn, round by round, and the medians are compared. With `--assert` every way to do
a 3x3 convolution of stride 1 is timed, too; the command fails where the plan's choice is more
than 5 % slower than the best.
"""

import argparse
import csv
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

# The check multiplies with NumPy, whose idle BLAS threads spin on a core for a while.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
from rich.console import Console
from rich.table import Table

import cnnkern
from cnnkern.codegen.isa import FMA_CHAINS, ISAS, Isa, available, best
from cnnkern.engine import workspace
from cnnkern.engine.workspace import Workspace
from cnnkern.graph import Graph, Node
from cnnkern.kernels import native
from cnnkern.kernels.records import PEAK
from cnnkern.ops.conv import Conv
from cnnkern.ops.depthwise import DepthwiseConv
from cnnkern.ops.layout import Input
from cnnkern.ops.window import WINOGRAD_TILES
from cnnkern.plan import Constants, make_plan

PEAK_ROUNDS = 400_000  # about 1 ms
MAX_LOSS = 1.05  # time of the chosen way / time of the best one


def conv_graph(row: dict[str, str], rng: np.random.Generator) -> Graph:
    """Return a graph of one SAME convolution of the kind and geometry of a row."""
    H, W, C, OC, KH, KW, stride = (
        int(row[key]) for key in ("H", "W", "C", "OC", "KH", "KW", "stride")
    )
    filters = rng.standard_normal((KH, KW, C, OC), np.float32) / np.float32(
        (KH * KW * C) ** 0.5
    )
    bias = rng.standard_normal(OC, np.float32)
    options = {"strides": (stride, stride), "padding": "same"}
    if row["kind"] == "depthwise":
        conv = DepthwiseConv(filters[:, :, :1].swapaxes(2, 3), bias, **options)
    else:
        may_transform = row["kind"] == "winograd"
        conv = Conv(filters, bias, may_transform=may_transform, **options)
    nodes = (Node("x", Input((1, H, W, C))), Node("y", conv, ("x",)))
    return Graph(nodes, ("x",), ("y",))


def checked_run(
    graph: Graph, isa: Isa, n_threads: int, rng: np.random.Generator
) -> tuple[Callable[[], None], int]:
    """Return a function that runs the convolution, checked against float64, and its flops."""
    shape = graph["x"].op.shape  # type: ignore[attr-defined]
    plan = make_plan(graph, {"x": shape}, Constants(), isa=isa)
    space = Workspace(plan, n_threads)
    x = rng.standard_normal(shape, np.float32)
    space.inputs[0][...] = x
    space.run()
    conv = graph["y"].op
    exact = conv.reference(x)
    error = np.abs(space.outputs[0] - exact).max() / np.abs(exact).max()
    assert error < 1e-5, f"{error:.1e}"
    return lambda: space.run(), plan.flops


@dataclass(frozen=True, eq=False)
class ForcedConv(Conv):
    """A convolution in Winograd tiles of one size, or in direct sums (0)."""

    tile: int = 0

    def winograd_tile(self, lengths: Sequence[int]) -> int:
        return self.tile


def forced(graph: Graph, tile: int) -> Graph:
    """Return the graph with its convolution done one way."""
    x, node = graph.nodes
    conv = node.op
    assert isinstance(conv, Conv)
    op = ForcedConv(
        conv.filter, conv.bias, conv.strides, conv.padding, may_transform=tile > 0, tile=tile
    )
    return replace(graph, nodes=(x, replace(node, op=op)))


def copy_run(graph: Graph, flops: int) -> tuple[Callable[[], None], int]:
    """Return a function that copies the input once, with the operations of the convolution."""
    x = np.ones(graph["x"].op.shape, np.float32)  # type: ignore[attr-defined]
    y = np.empty_like(x)
    return lambda: np.copyto(y, x), flops


def peak_run(isa: Isa) -> tuple[Callable[[], None], int]:
    """Return a function that does nothing but multiply and add, and its flops."""
    kernel, y = native("fma_peak", isa), np.zeros(1, np.float32)
    record = np.zeros(1, PEAK)
    record["y"] = y.ctypes.data

    def run() -> None:
        kernel(record.ctypes.data, 0, 0, PEAK_ROUNDS)

    run.record = (record, y)  # type: ignore[attr-defined]  # keeps the memory alive
    return run, 2 * FMA_CHAINS * isa.lanes * PEAK_ROUNDS


def seconds(run: Callable[[], None], repeats: int) -> float:
    """Return the time of one call, from `repeats` calls in a row."""
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - start) / repeats


def measure(runs: list[tuple[Callable[[], None], int]], rounds: int) -> list[float]:
    """Return each run's median GFLOP/s; the runs take turns in every round."""
    repeats = [max(int(2e-3 / seconds(run, 3)), 1) for run, _ in runs]
    times = [
        [seconds(run, n) for (run, _), n in zip(runs, repeats, strict=True)]
        for _ in range(rounds)
    ]
    medians = np.median(times, axis=0)
    return [flops / t / 1e9 for (_, flops), t in zip(runs, medians, strict=True)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--isa", choices=[isa.name for isa in available()], default=best().name)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--assert", dest="must_be_best", action="store_true")
    options = parser.parse_args()
    isa = next(i for i in ISAS if i.name == options.isa)
    workspace.PARALLEL_FLOPS = 0
    rng = np.random.default_rng(0)
    table = Table(title=f"{isa.name}, median of {options.rounds} rounds")
    headings = ("convolution", "where", "threads", "GFLOP/s", "peak", "% of peak", "bound",
                "% of bound", "x 1", "chosen / best")  # fmt: skip
    for heading in headings:
        justify: Any = "left" if heading in ("convolution", "where") else "right"
        table.add_column(heading, justify=justify, no_wrap=True)
    worst, chosen = 0.0, 0
    for row in csv.DictReader(Path(__file__).with_name("shapes.csv").open()):
        graph = conv_graph(row, rng)
        runs = [peak_run(isa)]
        for n_threads in options.threads:
            cnnkern.set_num_threads(n_threads)
            runs.append(checked_run(graph, isa, n_threads, rng))
        is_depthwise, is_winograd = row["kind"] == "depthwise", row["kind"] == "winograd"
        others = [copy_run(graph, runs[-1][1])] if is_depthwise else []
        if options.must_be_best and is_winograd:
            tiles = (0, *WINOGRAD_TILES)
            chosen = tiles.index(graph["y"].op.winograd_tile((int(row["H"]), int(row["W"]))))  # type: ignore[attr-defined]
            ways = [forced(graph, tile) for tile in tiles]
            others = [checked_run(way, isa, options.threads[-1], rng) for way in ways]
        peak, *rates = measure(runs + others, options.rounds)
        rates, other_rates = rates[: len(options.threads)], rates[len(options.threads) :]
        for n_threads, rate in zip(options.threads, rates, strict=True):
            name = "{kind} {H}x{W}x{C}->{OC} {KH}x{KW} s{stride}".format(**row)
            bound = n_threads * min([peak, *other_rates]) if is_depthwise else None
            loss = (
                max(other_rates) / other_rates[chosen] if is_winograd and other_rates else None
            )
            worst = max(worst, loss or 0)
            table.add_row(
                name, row["where"], str(n_threads), f"{rate:.1f}", f"{peak * n_threads:.1f}",
                f"{100 * rate / (peak * n_threads):.1f}",
                "" if bound is None else f"{bound:.1f}",
                "" if bound is None else f"{100 * rate / bound:.1f}",
                f"{rate / rates[0]:.2f}",
                "" if loss is None else f"{loss:.2f}",
            )  # fmt: skip
    Console(width=150).print(table)
    return int(worst > MAX_LOSS)


if __name__ == "__main__":
    sys.exit(main())
