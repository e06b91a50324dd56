"""Where the time of a predict goes, step by step."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from ..codegen.isa import FMA_CHAINS, Isa
from ..engine.threads import get_num_threads
from ..engine.workspace import Workspace
from ..kernels import native, variant
from ..kernels.records import PEAK
from ..plan import Plan
from .text import printable

PEAK_ROUNDS = 400_000  # about 1 ms


@dataclass(frozen=True)
class StepProfile:
    """One planned kernel call and its median time."""

    node: str
    kernel: str
    seconds: float
    flops: int
    nbytes: int  # of the tensors and constants that it touches

    @property
    def gflops(self) -> float:
        """Billions of floating-point operations per second; 0 where none are counted."""
        return self.flops / self.seconds / 1e9


@dataclass(frozen=True)
class Profile:
    """All steps of a plan in order, and what the processor could do at best.

    A printed profile shows the kernels by their share of the time, then the slowest steps.
    """

    steps: tuple[StepProfile, ...]
    peak_gflops: float  # of all threads

    @property
    def seconds(self) -> float:
        """Sum of the steps' medians."""
        return sum(step.seconds for step in self.steps)

    def by_kernel(self) -> dict[str, float]:
        """Return the seconds of each kernel, the largest first."""
        totals: dict[str, float] = defaultdict(float)
        for step in self.steps:
            totals[step.kernel] += step.seconds
        return dict(sorted(totals.items(), key=lambda item: -item[1]))

    def __rich__(self) -> Table:
        table = Table("Step", "Kernel", title=f"{1e3 * self.seconds:.3f} ms in all")
        for heading in ("µs", "% of time", "GFLOP/s", "% of peak", "MB"):
            table.add_column(heading, justify="right")
        for kernel, seconds in self.by_kernel().items():
            table.add_row("", kernel, *self._figures(seconds, *self._work(kernel)))
        table.add_section()
        for step in sorted(self.steps, key=lambda step: -step.seconds)[:SLOWEST]:
            figures = self._figures(step.seconds, step.flops, step.nbytes)
            table.add_row(printable(step.node), step.kernel, *figures)
        return table

    def __str__(self) -> str:
        console = Console(width=110)
        with console.capture() as capture:
            console.print(self)
        return capture.get()

    def _work(self, kernel: str) -> tuple[int, int]:
        steps = [step for step in self.steps if step.kernel == kernel]
        return sum(step.flops for step in steps), sum(step.nbytes for step in steps)

    def _figures(self, seconds: float, flops: int, nbytes: int) -> tuple[str, ...]:
        rate = flops / seconds / 1e9
        return (
            f"{1e6 * seconds:.1f}",
            f"{100 * seconds / self.seconds:.1f}",
            f"{rate:.1f}" if flops else "",
            f"{100 * rate / self.peak_gflops:.0f}" if flops else "",
            f"{nbytes / 1e6:.2f}",
        )


SLOWEST = 15  # steps that a printed profile shows


def profile(plan: Plan, arrays: Sequence[NDArray[Any]], repeats: int) -> Profile:
    """Return the median time of every step of a plan, over `repeats` runs in order."""
    workspace = Workspace(plan, get_num_threads())
    for view, array in zip(workspace.inputs, arrays, strict=True):
        view[...] = array
    workspace.run()
    times = np.empty((repeats, len(plan.steps)))
    for row in times:
        for index in range(len(plan.steps)):
            start = time.perf_counter()
            workspace.run_steps(index, index + 1)
            row[index] = time.perf_counter() - start
    steps = tuple(
        StepProfile(step.node, variant(step.kernel, plan.isa), float(t), step.flops, nbytes)
        for step, t, nbytes in zip(
            plan.steps, np.median(times, axis=0), plan.step_nbytes(), strict=True
        )
    )
    return Profile(steps, workspace.n_threads * peak_gflops(plan.isa))


def peak_gflops(isa: Isa, rounds: int = 5) -> float:
    """Return the multiply-add peak of one core, measured now, the best of `rounds`."""
    kernel, result = native("fma_peak", isa), np.zeros(1, np.float32)
    record = np.zeros(1, PEAK)
    record["y"] = result.ctypes.data
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        kernel(record.ctypes.data, 0, 0, PEAK_ROUNDS)
        seconds.append(time.perf_counter() - start)
    return 2 * FMA_CHAINS * isa.lanes * PEAK_ROUNDS / min(seconds) / 1e9
