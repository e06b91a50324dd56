"""A convolution's receptive field as runs of floats."""

from cnnkern.plan.buffer import Buffer
from cnnkern.plan.conv import _runs
from cnnkern.plan.matrix import Runs


def test_a_filter_row_is_one_run() -> None:
    """3x2 filter on rows of 10 pixels of 5 channels."""
    x = Buffer.allocate("x", (1, 8, 10, 5))
    taps = range(1), range(3), range(2)
    assert _runs(x, (1, 1, 1), 5, taps) == Runs((0, 200, 400), 10)


def test_dilated_taps_are_runs_of_their_own() -> None:
    x = Buffer.allocate("x", (1, 8, 10, 5))
    taps = range(1), range(2), range(2)
    assert _runs(x, (1, 2, 3), 5, taps) == Runs((0, 60, 400, 460), 5)


def test_some_taps_of_a_filter() -> None:
    """The last two rows of 3x3 taps, and of them all columns or the last two."""
    x = Buffer.allocate("x", (1, 8, 10, 5))
    rows = range(1), range(1, 3)
    assert _runs(x, (1, 1, 1), 5, (*rows, range(3))) == Runs((200, 400), 15)
    assert _runs(x, (1, 2, 3), 5, (*rows, range(1, 3))) == Runs((460, 520, 860, 920), 5)


def test_the_taps_of_a_group_do_not_touch() -> None:
    """A group reads 5 of 10 channels."""
    x = Buffer.allocate("x", (1, 8, 4, 10))
    taps = range(1), range(1), range(3)
    assert _runs(x, (1, 1, 1), 5, taps) == Runs((0, 40, 80), 5)
