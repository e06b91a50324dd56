"""Workspaces: the memory of one running predict, and the native calls that run it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import perf_counter

import numpy as np

from ..codegen.isa import LINE
from ..kernels import bound, native
from ..kernels.memory import side_by_side
from ..kernels.records import RUN
from ..plan import Buffer, HostCall, Plan
from .pace import ALONE, Pace
from .threads import POOL

# Sharing a run costs about 2 us with helpers awake, and each step a wait: from the first on
# (about 10 us) it may pay, from the second on it always does.
PARALLEL_FLOPS, STEADY_FLOPS = 500_000, 80_000_000
SHORT_FLOPS, SHORT_NBYTES = 1_000_000, 1 << 17  # each about 10 us
# Python handles a signal only between native calls: a segment lasts about 50 ms.
SEGMENT_FLOPS = 5_000_000_000


class Workspace:
    """An arena with the records that point into it; used by one predict at a time."""

    def __init__(self, plan: Plan, n_threads: int) -> None:
        self.plan = plan  # keeps the constants alive, to which the records point
        self.wanted_threads = n_threads
        self.n_threads = n_threads if plan.flops > PARALLEL_FLOPS else 1
        # In front of each thread's scratch memory is a line of the executor's.
        self._scratch_nbytes = LINE + plan.scratch_nbytes
        self.arena, self._scratch, self._counters = side_by_side(
            plan.arena_nbytes,
            self.n_threads * self._scratch_nbytes,
            (self.n_threads + 1) * LINE * len(plan.steps),
        )
        self.inputs = [self._view(plan, buffer) for buffer in plan.inputs]
        self.outputs = [self._view(plan, buffer) for buffer in plan.outputs]
        self.x, self.y = self.inputs[0], self.outputs[0]
        self._run = self._records(plan)
        self._segments = list(self._cut(plan))
        self._serial = native("run_serial", plan.isa)
        self._args = self._run.ctypes.data
        self._pace = Pace()
        self.run = self._runner()  # to be called while the workspace lives

    def _runner(self) -> Callable[[], None]:
        """Return the function that computes the outputs from the inputs."""
        (_, _, host_call), *others = self._segments
        always_shares = self.n_threads > 1 and self.plan.flops >= STEADY_FLOPS
        if others or host_call or always_shares:
            return self._run_segments
        self._alone = bound("run_whole", self.plan.isa, self._args, _is_short(self.plan))
        return self._alone if self.n_threads == 1 else self._run_at_pace

    def _run_at_pace(self) -> None:
        """Run all steps alone or with the pool's helpers."""
        way, n_steps = self._pace.choose(), len(self.plan.steps)
        start = perf_counter()
        if way == ALONE or not POOL.share(self._args, 0, n_steps, self.n_threads):
            self._alone()
            way = ALONE
        self._pace.note(way, perf_counter() - start)

    def _run_segments(self) -> None:
        for begin, end, host_call in self._segments:
            self.run_steps(begin, end)
            if host_call is not None:
                host_call()

    def run_steps(self, begin: int, end: int) -> None:
        """Run a range of steps, with the pool's helpers or alone when they are busy."""
        if self.n_threads == 1 or not POOL.share(self._args, begin, end, self.n_threads):
            self._serial(self._args, 0, begin, end)

    def _cut(self, plan: Plan) -> Iterator[tuple[int, int, Callable[[], None] | None]]:
        """Cut the steps at host calls, and elsewhere into ranges that end within a moment."""
        begin = 0
        for call in plan.host_calls:
            *ranges, (last, end) = _segments(plan, begin, call.step)
            yield from ((first, until, None) for first, until in ranges)
            yield last, end, self._bound(plan, call)
            begin = call.step
        yield from ((*segment, None) for segment in _segments(plan, begin, len(plan.steps)))

    def _bound(self, plan: Plan, call: HostCall) -> Callable[[], None]:
        inputs = [self._view(plan, buffer) for buffer in call.inputs]
        output = self._view(plan, call.output)

        def run() -> None:
            output[...] = call.function(*inputs)

        return run

    def _view(self, plan: Plan, buffer: Buffer) -> np.ndarray:
        """Return a buffer's elements, without its halo, as an array over the arena."""
        offset = plan.offsets[buffer.storage] + buffer.address.offset_bytes
        base = self.arena[offset:].view(np.float32)
        strides = (*buffer.strides, base.itemsize)
        lifted = np.lib.stride_tricks.as_strided(base, buffer.dims, strides)
        return lifted if lifted.shape == buffer.shape else lifted.reshape(buffer.shape)

    def _records(self, plan: Plan) -> np.ndarray:
        """Return the RUN record; every address it needs is kept alive by this workspace."""
        words, incomplete, starts = plan.records
        self._words = words.copy()
        self._words[incomplete.relocations] += self.arena.ctypes.data
        self._words[incomplete.links] += self._words.ctypes.data
        self._steps = plan.step_table()
        self._steps["args"] = self._words.ctypes.data + 8 * starts
        run = np.zeros(1, RUN)
        run["steps"], run["n_steps"] = self._steps.ctypes.data, len(plan.steps)
        run["counters"] = self._counters.ctypes.data
        run["scratch"] = self._scratch.ctypes.data + LINE
        run["scratch_nbytes"] = self._scratch_nbytes
        run["n_threads"] = self.n_threads
        return run


def _is_short(plan: Plan) -> bool:
    """Tell whether a run takes a few microseconds only."""
    return plan.flops < SHORT_FLOPS and plan.tensors_nbytes < SHORT_NBYTES


def _segments(plan: Plan, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Cut the steps begin .. end into ranges that each end within a moment."""
    flops = 0
    for index, step in enumerate(plan.steps[begin:end], begin):
        if flops > SEGMENT_FLOPS:
            yield begin, index
            begin, flops = index, 0
        flops += step.flops
    yield begin, end
