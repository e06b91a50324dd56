"""Which products of a block of Winograd tiles ask for the patches of the next one."""

from __future__ import annotations

import numpy as np
import pytest

from cnnkern.codegen.isa import LINE, Isa, available
from cnnkern.ops.conv import Conv
from cnnkern.plan import Constants, Step, make_plan, winograd
from support import graph_of

CHANNELS, OC = 64, 80
N_POINTS, PATCH_ROWS, TILE_ROWS, TILE_COLUMNS = 48, 8, 6, 4  # of F(6x4, 3x3)
PIXEL_NBYTES = 4 * CHANNELS


def blocks_of(size: int, isa: Isa, dilation: int = 1) -> Step:
    """Return the step of a 3x3 convolution of an image."""
    filters = np.ones((3, 3, CHANNELS, OC), np.float32)
    conv = Conv(filters, padding="same", dilation_rate=(dilation, dilation), may_transform=True)
    graph = graph_of({"x": (None, size, size, CHANNELS)}, [("y", conv, ("x",))])
    plan = make_plan(graph, {"x": (1, size, size, CHANNELS)}, Constants(), isa=isa)
    *_, step = (s for s in plan.steps if s.kernel == "f32_winograd")
    return step


@pytest.mark.parametrize("isa", available(), ids=lambda isa: isa.name)
def test_the_last_products_ask_for_all_rows_of_outputs_and_of_the_next_patches(
    isa: Isa,
) -> None:
    fields = blocks_of(112, isa).fields
    n_products = N_POINTS * -(-OC // isa.tile_columns)
    assert n_products - fields["silent"] == (TILE_ROWS + PATCH_ROWS) * fields["row_parts"]
    assert fields["silent"] > 0 and fields["y_rows"] == TILE_ROWS
    tiles = fields["patches"] / fields["blocks"]
    for name, pixel_nbytes in (("y_part_nbytes", 4 * OC), ("part_nbytes", PIXEL_NBYTES)):
        asked, tile_nbytes = fields["row_parts"] * fields[name], TILE_COLUMNS * pixel_nbytes
        surplus = asked - tile_nbytes * tiles
        assert 0 <= surplus < fields["row_parts"] * LINE + tile_nbytes


@pytest.mark.parametrize("isa", available(), ids=lambda isa: isa.name)
def test_outputs_that_the_caches_have_are_not_asked_for(
    isa: Isa, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(winograd, "FAR_NBYTES", 1 << 30)
    fields = blocks_of(112, isa).fields
    n_products = N_POINTS * -(-OC // isa.tile_columns)
    assert n_products - fields["silent"] == PATCH_ROWS * fields["row_parts"]
    assert fields["y_rows"] == fields["y_part_nbytes"] == 0 < fields["part_nbytes"]


@pytest.mark.parametrize("isa", available(), ids=lambda isa: isa.name)
def test_a_block_for_each_thread_has_no_next_one(isa: Isa) -> None:
    assert blocks_of(24, isa).fields.get("part_nbytes", 0) == 0


@pytest.mark.parametrize("isa", available(), ids=lambda isa: isa.name)
def test_pixels_that_lie_apart_are_not_asked_for(isa: Isa) -> None:
    assert blocks_of(112, isa, dilation=2).fields.get("part_nbytes", 0) == 0
