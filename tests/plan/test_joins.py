"""Threads wait after each step, but not for zeros that the next step does not read."""

from cnnkern.plan import Address, Step
from cnnkern.plan.joins import joins

X, Y = Address("x"), Address("y")
BORDER = Step("f32_halo", {"y": Y}, "conv", 3)


def test_every_step_is_waited_for() -> None:
    steps = [Step("f32_conv", {"x": X, "y": Y}, node, 4) for node in "abc"]
    assert joins(steps) == [1, 1, 1]


def test_a_border_and_its_inside_are_written_together() -> None:
    inside = Step("f32_conv", {"x": X, "y": Y}, "conv", 4)
    assert joins([inside, BORDER, inside, inside]) == [1, 0, 2, 1]


def test_a_border_that_is_read_at_once_is_waited_for() -> None:
    assert joins([BORDER, Step("f32_conv", {"x": Y, "y": X}, "conv", 4)]) == [1, 1]


def test_a_border_of_another_node_is_waited_for() -> None:
    assert joins([BORDER, Step("f32_max_pool", {"x": X, "y": Y}, "pool", 4), BORDER]) == [
        1,
        1,
        1,
    ]
