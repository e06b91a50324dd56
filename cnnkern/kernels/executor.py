"""The loop that runs a plan: call each step's kernel, by address, over its tiles.

A thread claims tiles, of its own share first, until none is left and waits until all are
finished. Nobody waits for a helper to arrive: one that is late finds the tiles gone, or the
door closed. The caller closes the door and waits until the helpers inside have left, because
the run's memory is its own; the door outlives every run.
"""

from ..codegen.isa import LINE, Isa
from ..codegen.jit import inline
from ..codegen.threads import (
    atomic_add,
    atomic_load,
    current_cpu,
    flush_denormals,
    pause,
    restore_mode,
    yield_processor,
)
from ..codegen.vector import call_kernel, integers, record_at
from .records import HELPER, RUN, STEP, STEP_NBYTES

WORD = 8  # bytes of an integer
CLOSED = 1 << 32
NOTHING = -1  # no tile of this step is done
SPINS = 2000  # pauses before the core is given away: about 20-40 us, longer than most tiles


def run_serial(isa: Isa):
    """Return the kernel that runs steps begin .. end on this thread; record RUN."""

    def kernel(p, scratch, begin, end):
        run_alone(p, begin, end)

    return kernel


def run_whole(isa: Isa):
    """Return the kernel that runs all steps on this thread; record RUN.

    It reads no other argument: a call from Python takes as long as it has arguments.
    """

    def kernel(p, scratch, begin, end):
        run_alone(p, 0, p.n_steps)

    return kernel


@inline
def run_alone(p, begin, end):
    """Run steps begin .. end on this thread, all tiles of each at once."""
    mode = flush_denormals()
    progress(p.scratch)[0] = NOTHING
    for s in range(begin, end):
        step = record_at(p.steps + s * STEP_NBYTES, STEP)
        call_kernel(step.kernel, step.args, p.scratch, 0, step.n_tiles)
    restore_mode(mode)


def lead_run(isa: Isa):
    """Return the kernel that runs steps begin .. end with the helpers at a door; record DOOR.

    Called as ``kernel(door, run, begin, end)``, `run` being the address of a RUN record. One
    native call, so that no signal handler can leave the door open.
    """

    def kernel(p, run_address, begin, end):
        run = record_at(run_address, RUN)
        lines = run.n_threads + 1
        for line in range(begin * lines, end * lines):
            integers(run.counters + line * LINE)[0] = 0
        p.run = run_address
        p.begin = begin
        p.end = end
        p.cpu = current_cpu()
        p.sequence += 1
        atomic_add(p.state, -CLOSED)
        take_part(run, 0, begin, end)
        atomic_add(p.state, CLOSED)
        spins = 0
        while atomic_load(p.state) != CLOSED:
            spins = wait(spins)

    return kernel


def help_runs(isa: Isa):
    """Return the kernel that helps with every run until none came for `patience` pauses.

    Record DOOR; called as ``kernel(door, helper, thread, patience)``, where `helper` is the
    address of a HELPER record. It also returns when a run is led from its own CPU.
    """

    def kernel(p, helper_address, thread, patience):
        helper = record_at(helper_address, HELPER)
        helper.is_crowded = 0  # what an earlier call found is over: an idle helper must sleep
        idle = 0
        while idle < patience:
            idle = wait(idle)
            if atomic_load(p.state) >= CLOSED:
                continue
            if atomic_add(p.state, 1) < CLOSED and p.sequence != helper.seen:
                helper.seen = p.sequence
                helper.is_crowded = p.cpu >= 0 and p.cpu == current_cpu()
                run = record_at(p.run, RUN)
                if thread < run.n_threads and not helper.is_crowded:
                    take_part(run, thread, p.begin, p.end)
                idle = patience if helper.is_crowded else 0
            atomic_add(p.state, -1)

    return kernel


@inline
def take_part(p, thread, begin, end):
    """Run steps begin .. end together with whoever else does."""
    mode = flush_denormals()
    for s in range(begin, end):
        step = record_at(p.steps + s * STEP_NBYTES, STEP)
        run_tiles(p, thread, s, step)
        for joined in range(max(s + 1 - step.joined, begin), s + 1):
            wait_until_finished(p, joined)
    restore_mode(mode)


@inline
def run_tiles(p, thread, s, step):
    """Claim and run tiles of step `s` until none is left.

    Each thread begins with a share of its own, the same part of every step's tiles: what it
    wrote in one step it finds in its own cache in the next one. Then it helps the others.
    """
    counters = p.counters + s * (p.n_threads + 1) * LINE
    scratch = p.scratch + thread * p.scratch_nbytes
    done = progress(scratch)
    done[0] = NOTHING
    mine = 0
    for i in range(p.n_threads):
        owner = (thread + i) % p.n_threads
        first = owner * step.n_tiles // p.n_threads
        share = (owner + 1) * step.n_tiles // p.n_threads - first
        begin = atomic_add(counters + owner * LINE, step.grain)
        while begin < share:
            end = min(begin + step.grain, share)
            call_kernel(step.kernel, step.args, scratch, first + begin, first + end)
            done[0] = first + end
            mine += end - begin
            begin = atomic_add(counters + owner * LINE, step.grain)
    if mine:
        atomic_add(counters + p.n_threads * LINE, mine)


@inline
def progress(scratch):
    """Return the word before a thread's scratch memory: up to which tile it just ran the step.

    A kernel that goes on from there may use what it left in the scratch memory.
    """
    return integers(scratch - WORD)


@inline
def wait_until_finished(p, s):
    """Return when all tiles of step `s` are finished."""
    step = record_at(p.steps + s * STEP_NBYTES, STEP)
    finished = p.counters + (s * (p.n_threads + 1) + p.n_threads) * LINE
    spins = 0
    while atomic_load(finished) < step.n_tiles:
        spins = wait(spins)


@inline
def wait(spins):
    """Pause, or give the core away when the wait is long; return the count of pauses."""
    pause()
    if spins > SPINS:
        yield_processor()
    return spins + 1
