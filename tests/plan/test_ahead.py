"""Which filters the tiles of a step ask for while they multiply."""

from __future__ import annotations

import numpy as np
import pytest

from cnnkern.codegen.isa import Isa, available
from cnnkern.graph import Graph
from cnnkern.ops.conv import Conv
from cnnkern.ops.dense import Dense
from cnnkern.ops.layout import Flatten
from cnnkern.plan import Constants, Step, ahead, make_plan
from support import graph_of, run_kernels

SHAPE = (1, 9, 9, 80)


def network(*units: int, may_round: bool = False, shape: tuple[int, ...] = SHAPE) -> Graph:
    """Return two convolutions, of several panels and one, and dense layers."""
    rng = np.random.default_rng(0)

    def weights(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, np.float32)

    steps = [
        ("wide", Conv(weights(1, 1, 80, 200)), ("x",)),
        ("narrow", Conv(weights(1, 1, 200, 12)), ("wide",)),
        ("flat", Flatten(), ("narrow",)),
    ]
    length, last = shape[1] * shape[2] * 12, "flat"
    for i, n in enumerate(units):
        steps.append((f"dense_{i}", Dense(weights(length, n), may_round=may_round), (last,)))
        length, last = n, f"dense_{i}"
    return graph_of({"x": (None, *shape[1:])}, steps)


def steps_of(graph: Graph, isa: Isa) -> dict[str, Step]:
    shape = (1, *graph["x"].op.shape[1:])
    plan = make_plan(graph, {"x": shape}, Constants(), isa=isa)
    return {step.node: step for step in plan.steps}


def shares_of(step: Step, isa: Isa) -> int:
    """Return in how many parts a step's request is cut: one per panel and block of rows."""
    return -(-step.fields["OC"] // isa.tile_columns) * int(step.fields["row_blocks"])


def asked(step: Step, isa: Isa) -> range:
    """Return the addresses that all tiles of a step ask for."""
    nbytes = step.fields["ahead_nbytes"] * shares_of(step, isa)
    return range(step.fields["ahead"], step.fields["ahead"] + nbytes)


def filters(step: Step) -> range:
    first = step.fields["panels"]
    return range(first, first + step.fields["group_nbytes"])


@pytest.fixture(params=available(), ids=lambda isa: isa.name)
def isa(request: pytest.FixtureRequest) -> Isa:
    chosen: Isa = request.param
    return chosen


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take all filters for far."""
    monkeypatch.setattr(ahead, "FAR_NBYTES", 96 << 10)


def test_small_models_ask_for_nothing(isa: Isa) -> None:
    assert not any("ahead" in step.fields for step in steps_of(network(30), isa).values())


def test_the_step_before_asks_first(far: None, isa: Isa) -> None:
    """What it has no time for, the one before it asks for: the filters' beginning."""
    steps = steps_of(network(600), isa)
    late, early = asked(steps["narrow"], isa), asked(steps["wide"], isa)
    wanted = filters(steps["dense_0"])
    assert late[0] in wanted
    assert late[-1] >= wanted[-1]
    assert early.start < late.start <= early.stop
    assert early.start == max(wanted.start, late.start - len(early))


def test_filters_of_24_bits_are_asked_for(far: None, isa: Isa) -> None:
    steps = steps_of(network(600, may_round=True), isa)
    assert steps["dense_0"].kernel == "f32_int24_conv"
    assert asked(steps["narrow"], isa)[0] in filters(steps["dense_0"])


def test_the_nearest_filters_are_asked_for_last(far: None, isa: Isa) -> None:
    steps = steps_of(network(100, 600), isa)
    assert asked(steps["narrow"], isa).start in filters(steps["dense_0"])


def test_products_of_few_rows_have_no_time_for_others(far: None, isa: Isa) -> None:
    steps = steps_of(network(600, shape=(1, 4, 5, 80)), isa)
    assert ahead.MANY_ROWS > 20
    assert not any("ahead" in steps[name].fields for name in ("wide", "narrow"))


def test_filters_that_few_tiles_can_ask_for(far: None, isa: Isa) -> None:
    """Nothing is left over: a step asks for no more than whole lines of each share."""
    steps = steps_of(network(16), isa)
    request, wanted = asked(steps["narrow"], isa), filters(steps["dense_0"])
    assert request.start == wanted.start
    too_many = ahead.LINE * shares_of(steps["narrow"], isa)
    assert len(wanted) <= len(request) < len(wanted) + too_many


def test_the_lead_is_limited(far: None, isa: Isa, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "LEAD_NBYTES", 1 << 16)
    steps = steps_of(network(600), isa)
    request, wanted = asked(steps["narrow"], isa), filters(steps["dense_0"])
    assert request.start == wanted.start
    assert len(request) < ahead.LEAD_NBYTES + ahead.LINE * shares_of(steps["narrow"], isa)


def test_requests_are_no_use_of_a_constant(far: None, isa: Isa) -> None:
    """A profile counts what a step reads, not what it asks for."""
    steps = steps_of(network(600), isa)
    assert steps["wide"].fields["ahead"] not in steps["wide"].numbers()


def test_the_same_bits(far: None, isa: Isa, monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(1).standard_normal(SHAPE, np.float32)
    results = run_kernels(network(600), x, isa=isa, n_threads=2)
    monkeypatch.setattr(ahead, "FAR_NBYTES", 1 << 40)
    np.testing.assert_array_equal(*results, *run_kernels(network(600), x, isa=isa))
