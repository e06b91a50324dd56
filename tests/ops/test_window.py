"""Sliding windows."""

from __future__ import annotations

import pytest

from cnnkern.ops.window import halo, lift, output_lengths, paddings, tap_slices, taps


def test_tap_slices_by_hand() -> None:
    # Outputs 0, 1, 2 of stride 2 read inputs -1, 1, 3 through the tap at offset -1.
    assert tap_slices(4, 3, 2, -1) == (slice(1, 3), slice(1, 5, 2))


@pytest.mark.parametrize("length", [1, 2, 5, 8])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("offset", [-9, -3, -2, -1, 0, 1, 2, 7, 9])
def test_tap_slices_name_every_read_inside_once(length: int, stride: int, offset: int) -> None:
    n_out = 6
    outputs, inputs = tap_slices(length, n_out, stride, offset)
    reads = [(o, o * stride + offset) for o in range(n_out)]
    inside = [(o, i) for o, i in reads if 0 <= i < length]
    pairs = zip(range(n_out)[outputs], range(length)[inputs], strict=True)
    assert list(pairs) == inside


def test_taps_cover_the_window() -> None:
    found = list(taps((3, 4), (2, 2), (1, 2), (1, 1), "valid"))
    assert [tap for tap, _, _ in found] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    _, outputs, inputs = found[-1]
    assert outputs == (slice(None), slice(0, 2), slice(0, 2))
    assert inputs == (slice(None), slice(1, 3, 1), slice(1, 5, 2))


def test_named_and_explicit_padding() -> None:
    window = ((5, 6), (3, 3), (2, 2), (1, 1))
    assert paddings(*window, "same") == ((1, 1), (0, 1))
    assert paddings(*window, ((4, 0), (0, 1))) == ((4, 0), (0, 1))
    assert output_lengths((5, None), *window[1:], "same") == (3, None)
    assert output_lengths((5, None), *window[1:], ((4, 0), (0, 1))) == (4, None)


def test_lift_fills_missing_axes() -> None:
    assert lift((2, 3), 1) == (1, 2, 3)
    assert halo(((1, 2),)) == ((0, 0), (0, 0), (1, 2))
