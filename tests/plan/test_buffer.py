"""Buffers and walks, their strides written out."""

import numpy as np
import pytest

from cnnkern.plan.buffer import (
    ABSOLUTE,
    Address,
    Buffer,
    broadcast_walk,
    lifted,
    pixels,
    walk,
)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((7,), (7, 1, 1, 1, 1)),
        ((2, 7), (2, 1, 1, 1, 7)),
        ((2, 3, 7), (2, 1, 1, 3, 7)),
        ((2, 3, 4, 7), (2, 1, 3, 4, 7)),
        ((2, 3, 4, 5, 7), (2, 3, 4, 5, 7)),
        ((2, 3, 4, 5, 6, 7), (2, 1, 1, 60 * 6, 7)),
    ],
)
def test_lifted(shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert lifted(shape) == expected


def test_a_dense_buffer_by_hand() -> None:
    buffer = Buffer.allocate("a", (2, 3, 4, 5))
    assert buffer.address == Address("a", 0)
    assert buffer.strides == (240, 240, 80, 20)
    assert buffer.nbytes == 480
    assert buffer.is_dense


def test_a_halo_by_hand() -> None:
    """Rows of 1 + 4 + 2 pixels, 1 + 3 rows, 5 channels."""
    buffer = Buffer.allocate("a", (2, 3, 4, 5), ((0, 0), (1, 0), (1, 2)))
    assert buffer.strides == (560, 560, 140, 20)
    assert buffer.address == Address("a", 140 + 20)
    assert buffer.nbytes == 1120
    assert not buffer.is_dense


@pytest.mark.parametrize(
    ("C", "pixel", "row"),
    [(16, 64, 64 * 6), (24, 96, 96 * 6), (32, 128, 128 * 6 + 64), (512, 2112, 2112 * 6)],
)
def test_gaps_spread_windows_over_the_cache(C: int, pixel: int, row: int) -> None:
    """An even number of lines from row to row would put the rows' pixels in few sets."""
    halo = ((0, 0), (0, 0), (1, 1))
    assert Buffer.allocate("a", (2, 3, 4, C), halo).strides == (3 * row, 3 * row, row, pixel)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_halo_along_any_axis_is_not_dense(axis: int) -> None:
    halo = [(0, 0), (0, 0), (0, 0)]
    halo[axis] = (0, 1)
    assert not Buffer.allocate("a", (2, 3, 3, 3, 4), (halo[0], halo[1], halo[2])).is_dense


def test_slices_by_hand() -> None:
    buffer = Buffer.allocate("a", (2, 3, 4, 5))
    rows = buffer.slice(-3, 1, 2)
    assert (rows.shape, rows.address.offset_bytes) == ((2, 2, 4, 5), 80)
    columns = buffer.slice(-2, 3, 1)
    assert (columns.shape, columns.address.offset_bytes) == ((2, 3, 1, 5), 60)
    channels = buffer.slice(-1, 2, 3)
    assert (channels.shape, channels.address.offset_bytes) == ((2, 3, 4, 3), 8)
    images = buffer.slice(-4, 1, 1)
    assert (images.shape, images.address.offset_bytes) == ((1, 3, 4, 5), 240)
    assert {s.strides for s in (rows, columns, channels, images)} == {buffer.strides}


@pytest.mark.parametrize("shape", [(4, 6), (4, 5, 6), (3, 4, 5, 6), (3, 3, 4, 5, 6)])
def test_slices_agree_with_numpy(shape: tuple[int, ...]) -> None:
    elements = np.arange(np.prod(shape)).reshape(shape)
    for axis in range(-len(shape), 0):
        buffer = Buffer.allocate("a", shape).slice(axis, 1, 2)
        expected = np.take(elements, [1, 2], axis)
        assert buffer.shape == expected.shape
        assert buffer.address.offset_bytes == 4 * expected.flat[0]


def test_reshape_keeps_the_elements() -> None:
    buffer = Buffer.allocate("a", (2, 3, 4, 5)).reshape((2, 60))
    assert (buffer.shape, buffer.strides[0], buffer.storage) == ((2, 60), 240, "a")


def test_dense_buffers_are_one_row() -> None:
    a, b = (Buffer.allocate(name, (2, 3, 4, 5)) for name in "ab")
    rows = walk(a, b)
    assert (rows.counts, rows.run, rows.n_rows) == ((1, 1, 1, 1), 120, 1)


def test_a_halo_breaks_rows() -> None:
    """A halo around W leaves rows of W*C floats; one around H joins H as well."""
    dense = Buffer.allocate("a", (2, 3, 4, 5))
    around_w = walk(Buffer.allocate("b", (2, 3, 4, 5), ((0, 0), (0, 0), (1, 1))), dense)
    assert (around_w.n_rows, around_w.run) == (6, 20)
    around_h = walk(Buffer.allocate("b", (2, 3, 4, 5), ((0, 0), (1, 1), (0, 0))), dense)
    assert (around_h.n_rows, around_h.run) == (2, 60)


def test_the_fields_of_a_walk() -> None:
    rows = pixels(Buffer.allocate("a", (2, 3, 4, 5)))
    assert rows.run == 5
    assert rows.fields("x") == {
        "N": 2, "D": 1, "H": 3, "W": 4, "x_n": 240, "x_d": 240, "x_h": 80, "x_w": 20,
    }  # fmt: skip


def test_broadcast_by_hand() -> None:
    """One number per channel and image against whole images."""
    y = Buffer.allocate("y", (2, 3, 4, 5))
    rows = broadcast_walk(y, y, Buffer.allocate("s", (2, 1, 1, 5)))
    assert (rows.counts, rows.run, rows.steps) == ((1, 1, 2, 12), 5, (4, 4, 4))
    assert rows.strides[2][2:] == (20, 0)


def test_equal_shapes_are_merged_by_broadcast_too() -> None:
    y = Buffer.allocate("y", (2, 3, 4, 5))
    assert (broadcast_walk(y, y, y).n_rows, broadcast_walk(y, y, y).run) == (1, 120)


def test_one_number_per_pixel() -> None:
    y = Buffer.allocate("y", (2, 3, 4, 5))
    rows = broadcast_walk(y, y, Buffer.allocate("s", (2, 3, 4, 1)))
    assert (rows.counts, rows.run, rows.steps) == ((1, 1, 1, 24), 5, (4, 4, 0))
    assert rows.strides[2][3] == 4


def test_one_channel_makes_rows_of_pixels() -> None:
    y = Buffer.allocate("y", (2, 3, 4, 1))
    rows = broadcast_walk(y, y, Buffer.allocate("s", (2, 1, 4, 1)))
    assert (rows.counts, rows.run, rows.steps) == ((1, 1, 2, 3), 4, (4, 4, 4))


def test_a_channel_of_a_wider_buffer_has_no_rows() -> None:
    y = Buffer.allocate("y", (2, 3, 4, 1))
    rows = broadcast_walk(y, Buffer.allocate("s", (2, 3, 4, 2)).slice(-1, 1, 1), y)
    assert (rows.counts, rows.run, rows.strides[1][3]) == ((1, 1, 1, 24), 1, 8)


def test_a_number_broadcasts_everywhere() -> None:
    y = Buffer.allocate("y", (2, 3, 4, 5))
    rows = broadcast_walk(y, y, Buffer((1,), Address(ABSOLUTE, 64), (0, 0, 0, 0)))
    assert (rows.run, rows.steps, rows.strides[2]) == (120, (4, 4, 0), (0, 0, 0, 0))


def test_addresses_add_bytes() -> None:
    assert Address("a", 8) + -4 == Address("a", 4)
