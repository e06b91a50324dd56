"""A process of bench_models.py: one runtime with one model, which runs when it is told to.

Reads a line per turn, ``<calls> <seconds of warming up>``, and answers with a line of JSON.
Between its turns it waits for the next line and computes nothing.
"""

import argparse
import ctypes
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

PR_SET_PDEATHSIG = 1  # linux/prctl.h
WARM_CALLS = 1  # at least, after each wake-up


def private_stdout() -> TextIO:
    """Return standard output for answers alone; what the runtimes print goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return answers


def die_with_parent() -> None:
    """Let the kernel end this process with the one that started it, even while stopped."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def peak_bytes() -> int:
    """Return the largest resident set that this process had (proc(5), VmHWM)."""
    (kib,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(kib) * 1024


def timed(call: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    """Return the seconds that a call took, and its result."""
    start = time.perf_counter()
    result = call(*arguments)
    return time.perf_counter() - start, result


def take_turn(
    run: Callable[[Any], Any], x: Any, calls: int, warm_seconds: float
) -> list[float]:
    """Warm up, then return the seconds of each call."""
    warm, end = 0, time.perf_counter() + warm_seconds
    while warm < WARM_CALLS or time.perf_counter() < end:
        run(x)
        warm += 1
    return [timed(run, x)[0] for _ in range(calls)]


def load(name: str, file: Path, threads: int) -> Any:
    """Import the runtime and load the file."""
    from peers import RUNTIMES

    return RUNTIMES[name].load(file, threads)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runtime")
    parser.add_argument("file", type=Path)
    parser.add_argument("target", type=Path, help="of the model, see conversions.py")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    options = parser.parse_args()
    die_with_parent()
    answers = private_stdout()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-options.threads :])
    load_seconds, run = timed(load, options.runtime, options.file, options.threads)

    import numpy as np

    x, expected = (
        np.array(np.load(options.target.with_suffix(f".{key}.npy"), "r")[: options.batch])
        for key in "xy"
    )
    first_seconds, y = timed(run, x)
    error = float(np.abs(np.reshape(y, expected.shape) - expected).max())
    facts = {
        "load_seconds": load_seconds,
        "first_seconds": first_seconds,
        "difference": error / float(np.abs(expected).max()),
        "peak_bytes": peak_bytes(),
    }
    print(json.dumps(facts), file=answers)
    for line in sys.stdin:
        calls, warm_seconds = line.split()
        seconds = take_turn(run, x, int(calls), float(warm_seconds))
        print(json.dumps({"seconds": seconds, "peak_bytes": peak_bytes()}), file=answers)


if __name__ == "__main__":
    main()
