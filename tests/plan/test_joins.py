"""Threads wait after each step, but not for zeros that the next step does not read."""

from cnnkern.plan import Address, Step
from cnnkern.plan.joins import joins

X, Y = Address("x"), Address("y")
BORDER = Step("conv", "f32_halo", 3, {"y": Y})


def test_every_step_is_waited_for() -> None:
    steps = [Step(node, "f32_conv", 4, {"x": X, "y": Y}) for node in "abc"]
    assert joins(steps) == [1, 1, 1]


def test_a_border_and_its_inside_are_written_together() -> None:
    inside = Step("conv", "f32_conv", 4, {"x": X, "y": Y})
    assert joins([inside, BORDER, inside, inside]) == [1, 0, 2, 1]


def test_a_border_that_is_read_at_once_is_waited_for() -> None:
    assert joins([BORDER, Step("conv", "f32_conv", 4, {"x": Y, "y": X})]) == [1, 1]


def test_a_border_of_another_node_is_waited_for() -> None:
    assert joins([BORDER, Step("pool", "f32_pool", 4, {"x": X, "y": Y}), BORDER]) == [1, 1, 1]
