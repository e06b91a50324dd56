"""How a product is cut into tasks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnkern.codegen.isa import AVX2, AVX512, ISAS, Isa
from cnnkern.kernels.conv import rows_of_block
from cnnkern.plan.matrix import ROWS_PER_TASK, _blocks, tile_height


def test_blocks_by_hand() -> None:
    """1000 rows are 72 tiles in 10 tasks; 5 rows are one, so the 20 panels are shared out."""
    many_rows = _blocks(1000, 3, 10**9, 1, AVX512, by_rows=False, is_gated=False)
    assert (many_rows["rows_per_task"], many_rows["row_blocks"]) == (8 * 14, 10)
    assert (many_rows["panels_per_task"], many_rows["panel_blocks"]) == (2, 2)
    few_rows = _blocks(5, 20, 10**7, 1, AVX512, by_rows=False, is_gated=False)
    assert (few_rows["rows_per_task"], few_rows["row_blocks"]) == (14, 1)
    assert (few_rows["panels_per_task"], few_rows["panel_blocks"]) == (2, 10)


def test_few_rows_are_cut_where_filters_arrive_sooner_than_inputs() -> None:
    """49 rows are 9 tiles: 4 blocks of 2 or 3, or one, in which the panels are shared out."""
    by_rows, by_panels = (
        _blocks(49, 32, 10**8, 1, AVX2, by_rows=b, is_gated=False) for b in (True, False)
    )
    assert (by_rows["row_unit"], by_rows["rows_per_task"], by_rows["row_blocks"]) == (6, 18, 4)
    assert (by_rows["panels_per_task"], by_rows["panel_blocks"]) == (8, 4)
    assert (by_panels["rows_per_task"], by_panels["row_blocks"]) == (54, 1)
    assert (by_panels["panels_per_task"], by_panels["panel_blocks"]) == (2, 16)


def test_gated_tasks_share_no_rows() -> None:
    """Each scales its rows itself: 196 rows are 8 tasks with all panels."""
    blocks = _blocks(196, 3, 10**8, 1, AVX512, by_rows=False, is_gated=True)
    assert (blocks["rows_per_task"], blocks["row_blocks"]) == (28, 8)
    assert blocks["panel_blocks"] == 1


def test_neighbouring_tasks_share_rows_or_panels() -> None:
    """196 rows are 2 blocks at least; the panels are 8."""
    by_rows, by_panels = (
        _blocks(196, 8, 10**8, 1, AVX512, by_rows=b, is_gated=False) for b in (True, False)
    )
    assert (by_rows["row_step"], by_rows["panel_step"], by_rows["group_step"]) == (4, 1, 16)
    assert (by_panels["row_step"], by_panels["panel_step"]) == (1, 2)


def test_two_threads_end_together() -> None:
    """Of 784 rows and one panel 7 tasks would be 3 and 4; so would 7 of 5 rows' panels."""
    rows = _blocks(784, 1, 10**6, 1, AVX512, by_rows=True, is_gated=False)
    assert (rows["rows_per_task"], rows["row_blocks"]) == (98, 8)
    panels = _blocks(5, 8, 7 * 200_000, 1, AVX512, by_rows=False, is_gated=False)
    assert panels["panel_blocks"] == 8


def test_groups_are_tasks_already() -> None:
    """49 rows of 36 groups, as Winograd's points are, stay one block each."""
    blocks = _blocks(49, 32, 10**9, 36, AVX2, by_rows=True, is_gated=False)
    assert (blocks["row_blocks"], blocks["panel_blocks"]) == (1, 1)


def test_a_small_product_is_one_task() -> None:
    blocks = _blocks(49, 8, 200_000, 1, AVX512, by_rows=True, is_gated=False)
    assert (blocks["row_blocks"], blocks["panel_blocks"]) == (1, 1)


def test_a_single_row_takes_several_panels_at_once() -> None:
    """The 15 panels of one row are 4 tasks; of two rows they are 15."""
    one, two = (_blocks(M, 15, 10**8, 1, AVX512, by_rows=False, is_gated=False) for M in (1, 2))
    assert (one["panels_per_task"], one["panel_blocks"]) == (4, 4)
    assert (two["panels_per_task"], two["panel_blocks"]) == (1, 15)


def test_no_rows_are_one_empty_block() -> None:
    blocks = _blocks(0, 3, 0, 1, AVX512, by_rows=True, is_gated=False)
    assert blocks["rows_per_task"] == 14


@given(
    st.integers(1, 10**6), st.integers(1, 200), st.integers(0, 10**11), st.integers(1, 64),
    st.sampled_from(ISAS), st.booleans(), st.booleans(),
)  # fmt: skip
def test_blocks_cover_everything_once(
    M: int, panels: int, flops: int, groups: int, isa: Isa, by_rows: bool, is_gated: bool
) -> None:
    blocks = _blocks(M, panels, flops, groups, isa, by_rows, is_gated)
    most, per_task = blocks["rows_per_task"], blocks["panels_per_task"]
    assert most <= ROWS_PER_TASK
    unit, n, first = blocks["row_unit"], blocks["row_blocks"], 0
    for block in range(n):
        begin, rows = rows_of_block.py_func(block, n, M, unit)
        assert begin == first and begin % unit == 0 and 0 < rows <= most
        first += rows
    assert first == M
    assert (blocks["panel_blocks"] - 1) * per_task < panels <= blocks["panel_blocks"] * per_task


@pytest.mark.parametrize(
    ("pixel_nbytes", "isa", "height"),
    [
        (4, AVX512, 14),
        (4092, AVX512, 14),
        (4096, AVX512, 7),
        (8192, AVX512, 7),
        (4096, AVX2, 6),
    ],
)
def test_pixels_a_page_apart_take_a_shorter_tile(
    pixel_nbytes: int, isa: Isa, height: int
) -> None:
    assert tile_height(pixel_nbytes, isa.heights) == height
