"""The thread pool: Python threads that help with one native run at a time.

The caller always takes part and never waits for a helper to arrive, so a busy, slow or
absent helper costs speed at most. Only one run at a time has helpers; others run alone.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Callable
from math import ceil
from pathlib import Path

import numpy as np

from ..codegen.isa import best
from ..kernels import native
from ..kernels.records import DOOR, HELPER

CLOSED = 1 << 32  # see kernels/executor.py
LINE_WORDS = 8  # int64 of a cache line
# Pauses before a helper goes to sleep, about 0.3 ms: the next predict of a busy caller
# finds it awake, an idle process uses no processor.
PATIENCE = 16_000


def default_num_threads() -> int:
    """Return the CPUs this process may use: affinity, then the container's quota."""
    if chosen := os.environ.get("CNNKERN_NUM_THREADS"):
        if not chosen.isdecimal() or int(chosen) < 1:
            raise ValueError(f"CNNKERN_NUM_THREADS={chosen!r} must be an integer of at least 1")
        return int(chosen)
    affinity = getattr(os, "sched_getaffinity", None)
    cpus = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(min(cpus, _cgroup_quota() or cpus), 1)


def _cgroup_quota(file: Path = Path("/sys/fs/cgroup/cpu.max")) -> int | None:
    """Return the CPUs that the control group allows (Linux cgroup v2 doc, cpu.max)."""
    try:
        quota, period = file.read_text().split()
        return ceil(int(quota) / int(period))
    except (OSError, ValueError):
        return None


class Pool:
    """A door at which runs are offered, and the helpers that wait there."""

    def __init__(self) -> None:
        self.n_threads = default_num_threads()
        self.reset()

    def reset(self) -> None:
        """Forget all helpers, as a forked child must: threads do not survive a fork."""
        self._helpers: list[_Helper] = []
        self._busy = threading.Lock()
        self._door = _Door()

    def share(self, run: int, begin: int, end: int, n_threads: int) -> bool:
        """Run steps begin .. end with helpers; False, and nothing done, if they are busy.

        `run` is the address of a RUN record with room for `n_threads`.
        """
        if not self._busy.acquire(False):
            return False
        try:
            helpers = self._helpers
            if len(helpers) != n_threads - 1:
                helpers = self._have_helpers(n_threads - 1)
            for helper in helpers:
                if helper.is_asleep:
                    helper.wake()
            _lead_run()(self._door.address, run, begin, end)
        finally:
            self._busy.release()
        return True

    def _have_helpers(self, count: int) -> list[_Helper]:
        """Return `count` helpers; new ones are started, if the system has threads left."""
        while len(self._helpers) < count:
            helper = _Helper(self._door, len(self._helpers) + 1)
            # Listed first: an interrupt here must not lead to two helpers of one number.
            self._helpers.append(helper)
            with contextlib.suppress(RuntimeError):
                helper.start()
        return self._helpers[:count]


class _Door:
    """The DOOR record; `state` has a cache line of its own, since all threads poll it."""

    def __init__(self) -> None:
        self._state = np.full(2 * LINE_WORDS, CLOSED, np.int64)
        first = -self._state.ctypes.data % (8 * LINE_WORDS) // 8
        self._record = np.zeros(1, DOOR)
        self._record["state"] = self._state[first:].ctypes.data
        self.address = self._record.ctypes.data

    @property
    def cpu(self) -> int:
        """The CPU from which the last run was led."""
        return int(self._record["cpu"][0])


class _Helper:
    """A thread that helps while runs come and sleeps when none does."""

    def __init__(self, door: _Door, number: int) -> None:
        self._door, self._number = door, number
        self._record = np.zeros(1, HELPER)
        self._alarm = threading.Lock()
        self._alarm.acquire()
        self.is_asleep = False

    def start(self) -> None:
        threading.Thread(target=self._loop, name=f"cnnkern-{self._number}", daemon=True).start()

    def wake(self) -> None:
        """Make sure that the helper looks at the door; only who holds the pool may call."""
        if self._alarm.locked():
            self._alarm.release()

    def _loop(self) -> None:
        help_runs, record = native("help_runs", best()), self._record.ctypes.data
        while True:
            help_runs(self._door.address, record, self._number, PATIENCE)
            if self._record["is_crowded"]:
                _leave_cpu(self._door.cpu)
                continue
            self.is_asleep = True
            # A run may have been offered before the flag was up: look once more.
            help_runs(self._door.address, record, self._number, 1)
            self._alarm.acquire()
            self.is_asleep = False


@functools.cache
def _lead_run() -> Callable[[int, int, int, int], None]:
    """Return the kernel by the shortest way: a predict leaves Python cold caches."""
    return native("lead_run", best())


def _leave_cpu(cpu: int) -> None:
    """Move this thread away from a CPU, if it may run on others; it stays free to come back.

    Linux may wake a thread on the CPU of its waker and leave both there for seconds.
    """
    allowed = os.sched_getaffinity(0)
    if len(allowed) > 1:
        with contextlib.suppress(OSError):  # a control group has just taken CPUs away
            os.sched_setaffinity(0, allowed - {cpu})
            os.sched_setaffinity(0, allowed)


POOL = Pool()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=POOL.reset)


def set_num_threads(n_threads: int) -> None:
    """Set how many threads, the caller's included, a predict may use.

    Raises
    ------
    ValueError
        `n_threads` is not an int of at least 1.
    """
    if type(n_threads) is not int or n_threads < 1:
        raise ValueError(f"n_threads={n_threads!r} must be an int of at least 1")
    POOL.n_threads = n_threads


def get_num_threads() -> int:
    """Return how many threads, the caller's included, a predict may use."""
    return POOL.n_threads
