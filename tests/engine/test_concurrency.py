"""Threads, forks, pickles: the same bits from everywhere, and memory that stays flat."""

import gc
import os
import pickle
import signal
import sys
import threading
import time
import tracemalloc
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from cnnkern.codegen.isa import best
from cnnkern.engine import Model
from cnnkern.engine.threads import _Door, _leave_cpu, get_num_threads, set_num_threads
from cnnkern.kernels import native
from cnnkern.kernels.records import HELPER
from support import evaluate, images, run_python, small_cnn

SHOW_THREADS = "from cnnkern.engine.threads import get_num_threads; print(get_num_threads())"

INTERRUPTED = """
import faulthandler, signal
import numpy as np
from cnnkern.engine import Model, workspace
from cnnkern.engine.threads import set_num_threads
from support import images, small_cnn

faulthandler.dump_traceback_later(20, exit=True)
workspace.PARALLEL_FLOPS = workspace.STEADY_FLOPS = -1
workspace.SEGMENT_FLOPS = 1_000
set_num_threads(3)
model, x = Model(small_cnn()), images(8)
expected, wrong, interrupted = model(x), 0, 0
signal.signal(signal.SIGALRM, signal.default_int_handler)
while interrupted < 500:
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.001 + interrupted * 7e-6)
        while True:
            wrong += not np.array_equal(model(x), expected)
    except KeyboardInterrupt:
        interrupted += 1
for _ in range(50):
    wrong += not np.array_equal(model(x), expected)
print(wrong)
"""

EXIT_DURING_A_PREDICT = """
import os, random, signal, sys, threading, time
from cnnkern.engine import Model, workspace
from cnnkern.engine.threads import set_num_threads
from support import images, small_cnn

workspace.PARALLEL_FLOPS = workspace.STEADY_FLOPS = -1
set_num_threads(3)
model, x = Model(small_cnn()), images(64)
model(x)
statuses = set()
for number in range(100):
    child = os.fork()
    if child == 0:
        break
    statuses.add(os.waitpid(child, 0)[1])
else:
    print(statuses)
    sys.exit()

def predict():
    while True:
        model(x)

moment = random.Random(number).uniform(0.001, 0.02)
if number % 2:  # the main thread ends, the others predict
    for _ in range(3):
        threading.Thread(target=predict, daemon=True).start()
    time.sleep(moment)
else:  # the main thread ends in the middle of its own predict
    signal.signal(signal.SIGALRM, lambda *_: sys.exit())
    signal.setitimer(signal.ITIMER_REAL, moment)
    predict()
"""


def test_a_helper_forgets_that_it_was_crowded() -> None:
    """It would look for room again and again, and never go to sleep."""
    record = np.zeros(1, HELPER)
    record["is_crowded"] = 1
    door = _Door()
    native("help_runs", best())(door.address, record.ctypes.data, 1, 1)
    assert record["is_crowded"] == 0


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux only")
def test_a_thread_that_leaves_a_cpu_may_come_back() -> None:
    allowed = os.sched_getaffinity(0)
    with ThreadPoolExecutor(1) as thread:
        thread.submit(_leave_cpu, min(allowed)).result()
        assert thread.submit(os.sched_getaffinity, 0).result() == allowed
        thread.submit(os.sched_setaffinity, 0, {min(allowed)}).result()
        thread.submit(_leave_cpu, min(allowed)).result()  # nowhere to go
        assert thread.submit(os.sched_getaffinity, 0).result() == {min(allowed)}


@pytest.fixture
def model(always_parallel: None) -> Model:
    set_num_threads(3)
    return Model(small_cnn())


def test_the_pool_computes_what_one_thread_does(model: Model) -> None:
    x = images(5)
    (expected,) = evaluate(model.graph, x)
    np.testing.assert_allclose(model(x), expected, rtol=1e-5, atol=1e-6)


def test_a_thousand_repeats_are_bitwise_equal(model: Model) -> None:
    x = images(3)
    set_num_threads(1)
    expected = model(x)
    for repeat in range(1000):
        set_num_threads(1 + repeat % 4)
        assert np.array_equal(model(x), expected)


def test_concurrent_predicts_on_one_model(model: Model) -> None:
    inputs = [images(1 + i % 3, seed=i) for i in range(8)]
    expected = [model(x) for x in inputs]

    def work(number: int) -> int:
        x, y = inputs[number], expected[number]
        return sum(not np.array_equal(model(x), y) for _ in range(200))

    assert in_threads(8, work) == [0] * 8


def test_first_calls_at_once(model: Model) -> None:
    """All threads plan, pack the weights and start the pool at the same time."""
    x = images(2)
    expected = model(x)
    for _ in range(10):
        fresh, start = Model(model.graph), threading.Barrier(16)

        def work(number: int, fresh: Model = fresh, start: threading.Barrier = start) -> bool:
            start.wait()
            return all(np.array_equal(fresh(x), expected) for _ in range(3))

        assert all(in_threads(16, work))


def test_more_threads_than_cores(model: Model) -> None:
    x = images(2)
    expected = model(x)
    set_num_threads(32)
    for _ in range(20):
        np.testing.assert_array_equal(model(x), expected)


@pytest.mark.parametrize("used_before", [False, True])
def test_a_forked_child_predicts(model: Model, used_before: bool) -> None:
    x = images(2)
    expected = Model(model.graph)(x)
    fresh = Model(model.graph)
    if used_before:
        fresh(x)
    assert in_child(lambda: np.array_equal(fresh(x), expected)) == 0
    np.testing.assert_array_equal(fresh(x), expected)


def test_fork_while_other_threads_predict(model: Model) -> None:
    x = images(2)
    expected, stop = model(x), threading.Event()

    def work(number: int) -> bool:
        while not stop.is_set():
            if not np.array_equal(model(x), expected):
                return False
        return True

    with ThreadPoolExecutor(3) as pool:
        busy = [pool.submit(work, number) for number in range(3)]
        codes = [in_child(lambda: np.array_equal(model(x), expected)) for _ in range(10)]
        stop.set()
        assert all(future.result() for future in busy)
    assert codes == [0] * 10


def test_a_pickled_model_predicts_the_same(model: Model) -> None:
    x = images(2)
    expected = model(x)
    content = pickle.dumps(model)
    weights = sum(node.op.n_params for node in model.graph.nodes) * 4
    assert len(content) < weights + 20_000
    copy = pickle.loads(content)
    np.testing.assert_array_equal(copy(x), expected)
    assert copy.graph.nodes[0].name == "x"


def test_interrupts_leave_the_next_predict_right() -> None:
    assert run_python(INTERRUPTED) == "0"


@pytest.mark.slow
def test_exit_during_a_predict_is_no_crash() -> None:
    """Each child is forked and then ends as any Python process does."""
    assert run_python(EXIT_DURING_A_PREDICT) == "{0}"


@pytest.mark.parametrize("n_threads", [0, -1, 1.0, "2", True, None])
def test_set_num_threads_is_checked(n_threads: Any) -> None:
    before = get_num_threads()
    with pytest.raises(ValueError, match="n_threads"):
        set_num_threads(n_threads)
    assert get_num_threads() == before


def test_the_number_of_threads_is_kept(restore_threads: None) -> None:
    set_num_threads(3)
    assert get_num_threads() == 3


def test_threads_from_the_environment() -> None:
    assert run_python(SHOW_THREADS, CNNKERN_NUM_THREADS="5") == "5"
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert 1 <= int(run_python(SHOW_THREADS, CNNKERN_NUM_THREADS=None)) <= (cpus or 1)


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5"])
def test_a_wrong_environment_is_an_error(value: str) -> None:
    code = f"try:\n {SHOW_THREADS}\nexcept ValueError as error:\n print(error)"
    assert "CNNKERN_NUM_THREADS" in run_python(code, CNNKERN_NUM_THREADS=value)


def test_memory_stays_flat(model: Model) -> None:
    x = images(2)

    def predict(count: int) -> None:
        for _ in range(count):
            model(x)

    predict(200)
    gc.collect()
    tracemalloc.start()
    predict(500)
    before = tracemalloc.get_traced_memory()[0]
    predict(2000)
    gc.collect()
    growth = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert growth < 20_000


def test_dropped_models_free_their_memory() -> None:
    graph, x = small_cnn(), images(2)
    Model(graph)(x)
    tracemalloc.start()
    for _ in range(50):
        Model(graph)(x)
    gc.collect()
    growth = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert growth < 100_000


def in_threads(count: int, work: Callable[[int], Any]) -> list[Any]:
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, range(count)))


def in_child(check: Callable[[], bool], seconds: float = 20) -> int:
    """Run `check` in a forked child; return 0 if it holds, else the wait status."""
    with warnings.catch_warnings():
        # Python 3.12 warns of any fork beside threads.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            os._exit(0 if check() else 3)
        finally:
            os._exit(4)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        finished, status = os.waitpid(child, os.WNOHANG)
        if finished:
            return status
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    sys.stderr.write("the child hangs\n")
    return -1
