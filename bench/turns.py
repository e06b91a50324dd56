"""One case of bench_models.py: a worker per runtime, started and checked, timed in turn."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from conversions import converted
from peers import OURS, RUNTIMES

HERE = Path(__file__).parent
TURN_SECONDS = 0.25  # of timed calls
WARM_SECONDS = 0.03  # before them: caches, clock, threads that have gone to sleep
MAX_CALLS = 2000  # per turn, of models that take microseconds
# Rounds in place of one where so many calls end a turn early: what a neighbour on a shared
# machine does to the processor outlasts such a turn, and all should meet it alike.
SHORT_ROUNDS = 8
BOUNDS = {OURS: 1e-4}  # largest difference from model.predict, of the largest output
PEER_BOUND = 1e-3


class PeerError(Exception):
    """A runtime that is missing, or that fails on this model."""


def failure(status: int, log: str) -> str:
    """Return why a process failed: its signal, or the last line that it wrote."""
    if status < 0:
        return f"died by {signal.Signals(-status).name}"
    return next(
        (text.strip() for text in reversed(log.split("\n")) if text.strip()), "no message"
    )


class Case(NamedTuple):
    """What all runtimes do alike."""

    model: str
    threads: int
    batch: int


@dataclass
class Row:
    """What one runtime did in one case; times in seconds, `problem` instead of them."""

    model: str
    threads: int
    batch: int
    runtime: str
    version: str = ""
    problem: str = ""
    difference: float | None = None
    load_seconds: float | None = None
    first_seconds: float | None = None
    peak_bytes: int | None = None
    others: float = 0  # share of all CPUs that other processes used meanwhile
    seconds: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """Return the row for a file, with statistics in place of every time."""
        facts = asdict(self)
        seconds = facts.pop("seconds")
        if seconds and not self.problem:
            facts |= {"median": float(np.median(seconds)), "minimum": min(seconds)}
        return facts


class Worker:
    """A process with one runtime and one model, stopped except in its turns."""

    def __init__(self, process: subprocess.Popen[str], log: Any) -> None:
        self.process, self._log = process, log
        self.facts = self._answer()
        self.process.send_signal(signal.SIGSTOP)

    def turn(self, calls: int, warm_seconds: float = WARM_SECONDS) -> dict[str, Any]:
        """Let the worker run `calls` calls; return their times and the peak memory."""
        assert self.process.stdin is not None
        self.process.send_signal(signal.SIGCONT)
        with suppress(BrokenPipeError):  # the answer tells why
            self.process.stdin.write(f"{calls} {warm_seconds}\n")
            self.process.stdin.flush()
        answer = self._answer()
        self.process.send_signal(signal.SIGSTOP)
        return answer

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        self._log.seek(0)
        raise PeerError(failure(self.process.wait(), self._log.read()))


@contextmanager
def worker(runtime: str, case: Case, target: Path) -> Iterator[Worker]:
    """Start a worker and wait until it has loaded and run once; end it afterwards."""
    file = converted(target, RUNTIMES[runtime].format, case.batch)
    if not file.exists():
        raise PeerError(f"not converted: {reason(file)}")
    command: list[str | Path] = [
        sys.executable, HERE / "worker.py", runtime, file, target,
        "--threads", str(case.threads), "--batch", str(case.batch),
    ]  # fmt: skip
    with (
        tempfile.TemporaryFile("w+", errors="replace") as log,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        ) as process,
    ):
        try:
            yield Worker(process, log)
        finally:
            process.kill()


def reason(file: Path) -> str:
    """Return why a conversion failed."""
    report = file.with_name(file.name + ".error")
    return report.read_text().strip() if report.exists() else "not tried"


def measure(case: Case, target: Path, runtimes: list[str], rounds: int) -> list[Row]:
    """Start all runtimes of a case, check them, and let them run in turn.

    Each is started while the others are stopped, so that load and first call are its own.
    """
    rows = [Row(*case, runtime) for runtime in runtimes]
    busy, own, start = *cpu_seconds(), time.perf_counter()
    with ExitStack() as stack:
        takers: list[tuple[Row, Worker, int]] = []
        for row in rows:
            with noted(row):
                row.version = version(RUNTIMES[row.runtime].package)
                started = stack.enter_context(worker(row.runtime, case, target))
                check(row, started)
                takers.append((row, started, calls_per_turn(started)))
        is_short = any(calls == MAX_CALLS for _, _, calls in takers)
        for _ in range(rounds * (SHORT_ROUNDS if is_short else 1)):
            for row, started, calls in takers:
                with noted(row):
                    answer = started.turn(calls)
                    row.seconds += answer["seconds"]
                    row.peak_bytes = answer["peak_bytes"]
    busy_after, own_after = cpu_seconds()
    available = (time.perf_counter() - start) * (os.cpu_count() or 1)
    for row in rows:
        row.others = (busy_after - busy - own_after + own) / available
    return rows


@contextmanager
def noted(row: Row) -> Iterator[None]:
    """Write into the row what keeps its runtime from running."""
    try:
        yield
    except PackageNotFoundError:
        row.problem = "not installed"
    except PeerError as error:
        row.problem = row.problem or str(error)


def check(row: Row, started: Worker) -> None:
    """Note what the worker says; raise if its predictions are not those of Keras."""
    for name, value in started.facts.items():
        setattr(row, name, value)
    if not started.facts["difference"] < BOUNDS.get(row.runtime, PEER_BOUND):
        raise PeerError(f"wrong result: differs by {row.difference:.1e} of max|y|")


def calls_per_turn(started: Worker) -> int:
    """Return how many calls fill a turn."""
    fastest: float = min(started.turn(1)["seconds"])
    return min(max(round(TURN_SECONDS / fastest), 1), MAX_CALLS)


def cpu_seconds() -> tuple[float, float]:
    """Return what all processes have used, and this one with its ended children (proc(5))."""
    first_line = Path("/proc/stat").read_text().partition("\n")[0]
    user, nice, system, _, _, irq, softirq, steal, *_ = map(int, first_line.split()[1:])
    busy = user + nice + system + irq + softirq + steal
    return busy / os.sysconf("SC_CLK_TCK"), sum(os.times()[:4])
