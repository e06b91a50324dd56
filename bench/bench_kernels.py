"""Each convolution of shapes.csv: GFLOP/s and percent of the measured FMA peak.

    python bench/bench_kernels.py [--isa avx2] [--rounds 15] [--threads 1 2] [--assert]

Winograd's and Strassen's algorithms count the operations of the direct sum that they save. The
bound of a depthwise convolution is the smaller of the FMA peak and of what a copy of its input
takes.

A shape is checked against a float64 convolution before it is timed. Peak and kernels are
timed in turn, round by round, and the medians are compared. With `--assert` every way to do
what may be transformed is timed, too; the command fails where the plan's choice is more than
5 % slower than the best.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

# The check multiplies with NumPy, whose idle BLAS threads spin on a core for a while.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
from rich.console import Console
from rich.table import Table

import cnnkern
from cnnkern.codegen.isa import FMA_CHAINS, ISAS, Isa, available, best
from cnnkern.codegen.transform import Size
from cnnkern.engine import workspace
from cnnkern.engine.workspace import Workspace
from cnnkern.graph import Graph, Node
from cnnkern.kernels import native
from cnnkern.kernels.records import PEAK
from cnnkern.ops import winograd
from cnnkern.ops.conv import Conv
from cnnkern.ops.depthwise import DepthwiseConv
from cnnkern.ops.layout import Input
from cnnkern.plan import Constants, make_plan

PEAK_ROUNDS = 400_000  # about 1 ms
TRANSFORMED = ("winograd", "strassen")
MAX_LOSS = 1.05  # time of the chosen way / time of the best one
COLUMNS = ("convolution", "where", "threads", "GFLOP/s", "peak", "% of peak", "bound",
           "% of bound", "x 1", "chosen / best")  # fmt: skip

Run = tuple[Callable[[], None], int]  # what to time, and its floating-point operations


@dataclass(frozen=True)
class Shape:
    """A row of shapes.csv: a SAME convolution of one image."""

    kind: str  # direct, winograd, strassen or depthwise
    H: int
    W: int
    C: int
    OC: int
    KH: int
    KW: int
    stride: int
    where: str  # a model that has it

    @classmethod
    def read_all(cls, file: Path) -> list[Shape]:
        with file.open() as lines:
            rows = list(csv.DictReader(lines))
        numbers = ("H", "W", "C", "OC", "KH", "KW", "stride")
        return [cls(**row | {key: int(row[key]) for key in numbers}) for row in rows]

    def __str__(self) -> str:
        window = f"{self.KH}x{self.KW} s{self.stride}"
        return f"{self.kind} {self.H}x{self.W}x{self.C}->{self.OC} {window}"

    def graph(self, rng: np.random.Generator) -> Graph:
        """Return a graph of the convolution alone, with random filters."""
        K = self.KH * self.KW * self.C
        filters = rng.standard_normal((self.KH, self.KW, self.C, self.OC), np.float32)
        filters /= np.float32(K**0.5)
        bias = rng.standard_normal(self.OC, np.float32)
        options = {"strides": (self.stride, self.stride), "padding": "same"}
        if self.kind == "depthwise":
            conv = DepthwiseConv(filters[:, :, :1].swapaxes(2, 3), bias, **options)
        else:
            conv = Conv(filters, bias, may_transform=self.kind in TRANSFORMED, **options)
        image = Input((1, self.H, self.W, self.C))
        return Graph((Node("x", image), Node("y", conv, ("x",))), ("x",), ("y",))


@dataclass(frozen=True)
class Result:
    """What was measured of a shape, in GFLOP/s."""

    peak: float  # of one thread
    rates: dict[int, float]  # by number of threads
    bound: float | None = None  # of one thread, where it is not the peak
    loss: float | None = None  # time of the chosen way / time of the best one

    def cells(self, n_threads: int) -> tuple[str, ...]:
        """Return the columns from the third one on."""
        rate, peak = self.rates[n_threads], n_threads * self.peak
        bound = None if self.bound is None else n_threads * self.bound
        return (
            str(n_threads), f"{rate:.1f}", f"{peak:.1f}", f"{100 * rate / peak:.1f}",
            "" if bound is None else f"{bound:.1f}",
            "" if bound is None else f"{100 * rate / bound:.1f}",
            f"{rate / next(iter(self.rates.values())):.2f}",
            "" if self.loss is None else f"{self.loss:.2f}",
        )  # fmt: skip


def checked_run(graph: Graph, isa: Isa, n_threads: int, rng: np.random.Generator) -> Run:
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
    """A convolution in Winograd tiles of one size, or without any."""

    size: Size | None = None

    def winograd_size(self, lengths: Sequence[int]) -> Size | None:
        return self.size


def forced(graph: Graph, size: Size | None, may_transform: bool) -> Graph:
    """Return the graph with its convolution done one way."""
    x, node = graph.nodes
    conv = node.op
    assert isinstance(conv, Conv)
    op = ForcedConv(
        conv.filter, conv.bias, conv.strides, conv.padding,
        may_transform=may_transform, size=size,
    )  # fmt: skip
    return replace(graph, nodes=(x, replace(node, op=op)))


def copy_run(graph: Graph, flops: int) -> Run:
    """Return a function that copies the input once, with the operations of the convolution."""
    x = np.ones(graph["x"].op.shape, np.float32)  # type: ignore[attr-defined]
    y = np.empty_like(x)
    return lambda: np.copyto(y, x), flops


def peak_run(isa: Isa) -> Run:
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


def measure(runs: list[Run], rounds: int) -> list[float]:
    """Return each run's median GFLOP/s; the runs take turns in every round."""
    repeats = [max(int(2e-3 / seconds(run, 3)), 1) for run, _ in runs]
    times = [
        [seconds(run, n) for (run, _), n in zip(runs, repeats, strict=True)]
        for _ in range(rounds)
    ]
    medians = np.median(times, axis=0)
    return [flops / t / 1e9 for (_, flops), t in zip(runs, medians, strict=True)]


def all_ways(
    shape: Shape, graph: Graph, isa: Isa, n_threads: int, rng: np.random.Generator
) -> tuple[list[Run], int]:
    """Return every way to do a convolution, and the plan's choice among them."""
    conv = graph["y"].op
    assert isinstance(conv, Conv)
    sizes: tuple[Size | None, ...] = (None,)
    if shape.kind == "winograd":
        sizes = winograd.sizes(conv.taps, conv.plane_strides)
    ways = [forced(graph, None, may_transform=False)]
    ways += [forced(graph, size, may_transform=True) for size in sizes]
    runs = [checked_run(way, isa, n_threads, rng) for way in ways]
    if shape.kind == "winograd":
        return runs, (None, *sizes).index(conv.winograd_size((shape.H, shape.W)))
    plan = make_plan(graph, {"x": graph["x"].op.shape}, Constants(), isa=isa)  # type: ignore[attr-defined]
    return runs, int(plan.steps[0].kernel == "f32_strassen")


def compare(
    shape: Shape, isa: Isa, threads: list[int], rounds: int, must_be_best: bool,
    rng: np.random.Generator,
) -> Result:  # fmt: skip
    """Measure a shape on each number of threads, and what it is compared with."""
    graph = shape.graph(rng)
    runs = [peak_run(isa)]
    for n_threads in threads:
        cnnkern.set_num_threads(n_threads)
        runs.append(checked_run(graph, isa, n_threads, rng))
    others, chosen = [], 0
    if shape.kind == "depthwise":
        others = [copy_run(graph, runs[-1][1])]
    elif shape.kind in TRANSFORMED and must_be_best:
        others, chosen = all_ways(shape, graph, isa, threads[-1], rng)
    peak, *measured = measure(runs + others, rounds)
    rates = dict(zip(threads, measured, strict=False))
    rest = measured[len(threads) :]
    if shape.kind == "depthwise":
        return Result(peak, rates, bound=min(peak, *rest))
    return Result(peak, rates, loss=max(rest) / rest[chosen] if rest else None)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--isa", choices=[isa.name for isa in available()], default=best().name)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--assert", dest="must_be_best", action="store_true")
    return parser.parse_args()


def main() -> int:
    options = parse_arguments()
    isa = next(i for i in ISAS if i.name == options.isa)
    workspace.PARALLEL_FLOPS = workspace.STEADY_FLOPS = 0
    rng = np.random.default_rng(0)
    table = Table(title=f"{isa.name}, median of {options.rounds} rounds")
    for number, heading in enumerate(COLUMNS):
        table.add_column(heading, justify="left" if number < 2 else "right", no_wrap=True)
    worst = 0.0
    for shape in Shape.read_all(Path(__file__).with_name("shapes.csv")):
        result = compare(shape, isa, options.threads, options.rounds, options.must_be_best, rng)
        worst = max(worst, result.loss or 0)
        for n_threads in options.threads:
            table.add_row(str(shape), shape.where, *result.cells(n_threads))
    Console(width=150).print(table)
    return int(worst > MAX_LOSS)


if __name__ == "__main__":
    sys.exit(main())
