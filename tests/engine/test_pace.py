"""Small plans alone or with helpers: what was faster lately."""

from __future__ import annotations

import numpy as np
import pytest

from cnnkern.engine import Model, workspace
from cnnkern.engine.pace import ALONE, PERIOD, SHARED, TRIAL, Pace
from cnnkern.engine.threads import set_num_threads
from support import images, small_cnn


def run(pace: Pace, alone: float, shared: float, runs: int) -> list[int]:
    """Return the ways chosen while runs take these times."""
    ways = []
    for _ in range(runs):
        ways.append(pace.choose())
        pace.note(ways[-1], shared if ways[-1] == SHARED else alone)
    return ways


def test_both_ways_are_tried_first() -> None:
    assert set(run(Pace(), 1.0, 2.0, 2 * TRIAL)) == {ALONE, SHARED}


@pytest.mark.parametrize(("alone", "shared", "faster"), [(1, 2, ALONE), (2, 1, SHARED)])
def test_the_faster_way_is_taken(alone: float, shared: float, faster: int) -> None:
    pace = Pace()
    run(pace, alone, shared, PERIOD)
    ways = run(pace, alone, shared, 10 * PERIOD)
    assert ways.count(1 - faster) == 10 * TRIAL


def test_it_changes_when_the_machine_does() -> None:
    pace = Pace()
    run(pace, 2.0, 1.0, 5 * PERIOD)
    # Sharing is slow now, which shows at once; that it is fast again shows in a trial.
    assert run(pace, 2.0, 4.0, PERIOD).count(SHARED) <= 3 * TRIAL
    run(pace, 2.0, 1.0, PERIOD)
    assert run(pace, 2.0, 1.0, PERIOD).count(ALONE) <= TRIAL


def test_a_run_that_meets_an_interrupt_changes_nothing() -> None:
    pace = Pace()
    run(pace, 2.0, 1.0, PERIOD)
    ways = [way for _ in range(100) for way in run(pace, 2.0, 1.0, 9) + run(pace, 9e9, 9e9, 1)]
    assert ways.count(ALONE) <= 1000 / PERIOD * TRIAL + TRIAL


def test_runs_that_change_the_way_are_not_counted() -> None:
    """They find the tensors in other cores' caches, or the helpers asleep."""
    pace, last, ways = Pace(), ALONE, []
    for _ in range(3 * PERIOD):
        way = pace.choose()
        pace.note(way, 1e9 if way != last else 1.0 if way == SHARED else 2.0)
        last = way
        ways.append(way)
    assert ways[PERIOD:].count(ALONE) == 2 * TRIAL


def test_both_ways_give_the_same_bits(
    monkeypatch: pytest.MonkeyPatch, restore_threads: None
) -> None:
    monkeypatch.setattr(workspace, "PARALLEL_FLOPS", -1)
    model, x = Model(small_cnn()), images(3, 12)
    set_num_threads(1)
    expected = model(x)
    set_num_threads(2)
    for _ in range(3 * TRIAL):
        np.testing.assert_array_equal(model(x), expected)
