"""Windows on one axis, against counting them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnkern.shapes import (
    PADDING_MODES,
    dilated_size,
    output_length,
    product,
    window_count,
    window_padding,
)

axes = st.tuples(st.integers(1, 60), st.integers(1, 9), st.integers(1, 9), st.integers(1, 5))


def test_by_hand() -> None:
    """7 pixels, filter 3, stride 2: pixels 0-2, 2-4, 4-6; SAME adds one on either side."""
    assert window_count(7, 3, 2) == 3
    assert window_padding(7, 3, 2, 1, "same") == (1, 1)
    assert output_length(7, 3, 2, 1, "same") == 4


def test_the_odd_element_is_behind() -> None:
    assert window_padding(5, 2, 1, 1, "same") == (0, 1)
    assert window_padding(224, 7, 2, 1, "same") == (2, 3)


def test_stride_above_the_filter_needs_no_padding() -> None:
    assert window_padding(10, 1, 3, 1, "same") == (0, 0)
    assert output_length(10, 1, 3, 1, "same") == 4


def test_causal_padding_is_before() -> None:
    assert window_padding(10, 3, 1, 4, "causal") == (8, 0)
    assert output_length(10, 3, 1, 4, "causal") == 10


def test_a_filter_longer_than_the_axis_has_no_window() -> None:
    assert window_count(2, 3, 1) == 0
    assert window_count(2, 3, 1, 5) == 0


@pytest.mark.parametrize("mode", PADDING_MODES)
def test_unknown_stays_unknown(mode: str) -> None:
    assert output_length(None, 3, 2, 1, mode) is None
    assert window_count(None, 3, 2) is None


@given(axes, st.integers(0, 5), st.integers(0, 5))
def test_windows_are_counted(axis: Any, before: int, after: int) -> None:
    length, size, stride, dilation = axis
    last = before + length + after - dilated_size(size, dilation)
    starts = [start for start in range(0, last + 1, stride)]
    assert window_count(length, size, stride, dilation, (before, after)) == len(starts)


@given(axes)
def test_same_gives_the_rounded_up_quotient(axis: Any) -> None:
    length, size, stride, dilation = axis
    before, after = window_padding(length, size, stride, dilation, "same")
    assert output_length(length, size, stride, dilation, "same") == -(-length // stride)
    assert after - before in (0, 1)


@given(st.lists(st.integers(0, 2**40), max_size=6))
def test_products_are_exact(lengths: list[int]) -> None:
    expected = 1
    for length in lengths:
        expected *= length
    assert product(tuple(lengths)) == expected
