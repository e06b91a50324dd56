"""How many tiles of a step a thread claims at once."""

import pytest

from cnnkern.plan.call import MAX_CLAIMS, MIN_CLAIMS, Step, claims


@pytest.mark.parametrize(
    ("nbytes", "expected"),
    [(0, MIN_CLAIMS), (1 << 16, 8), (1 << 30, MAX_CLAIMS)],
)
def test_a_claim_is_worth_its_cost(nbytes: int, expected: int) -> None:
    assert claims(nbytes) == expected


@pytest.mark.parametrize(("n_tiles", "grain"), [(1, 1), (4, 1), (5, 2), (8, 2), (97, 25)])
def test_the_grain_keeps_the_bound(n_tiles: int, grain: int) -> None:
    assert Step("f32_halo", {}, "x", n_tiles, max_claims=4).grain == grain
