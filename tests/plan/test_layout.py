"""The arena layout: storages that live together never overlap."""

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from cnnkern.plan.layout import ALIGNMENT, Lifetime, place


def test_by_hand() -> None:
    """a and b live together, c follows a and takes its place."""
    offsets, nbytes = place(
        [Lifetime("a", 100, 0, 1), Lifetime("b", 64, 1, 3), Lifetime("c", 90, 2, 3)]
    )
    assert offsets == {"a": 0, "c": 0, "b": 128}
    assert nbytes == 192


def test_the_smallest_gap_that_fits_is_taken() -> None:
    """Gaps of 256 and 128 bytes open when the first row of storages is gone."""
    alive = [Lifetime("a", 1024, 0, 9), Lifetime("c", 512, 0, 9), Lifetime("e", 320, 0, 9)]
    dead = [Lifetime("b", 640, 0, 1), Lifetime("d", 384, 0, 1)]
    offsets, _ = place([*alive, *dead, Lifetime("x", 300, 5, 6)])
    assert offsets["a"] == 0
    assert offsets["x"] == offsets["d"]


def test_no_storage_needs_no_memory() -> None:
    assert place([]) == ({}, 0)
    assert place([Lifetime("empty", 0, 0, 5)]) == ({"empty": 0}, 0)


@st.composite
def lifetimes(draw: st.DrawFn) -> list[Lifetime]:
    span = st.tuples(st.integers(0, 5000), st.integers(-1, 12), st.integers(0, 6))
    spans = enumerate(draw(st.lists(span, max_size=14)))
    return [Lifetime(f"s{i}", n, first, first + more) for i, (n, first, more) in spans]


@given(lifetimes())
def test_storages_alive_together_do_not_overlap(items: list[Lifetime]) -> None:
    offsets, _ = place(items)
    for one, other in combinations(items, 2):
        if max(one.first, other.first) <= min(one.last, other.last):
            (start, stop), (begin, end) = (
                (offsets[i.storage], offsets[i.storage] + i.nbytes) for i in (one, other)
            )
            assert stop <= begin or end <= start


@given(lifetimes())
def test_alignment_and_size(items: list[Lifetime]) -> None:
    """The arena is at least the busiest step's bytes and at most all bytes."""
    offsets, nbytes = place(items)
    aligned = {i.storage: -(-i.nbytes // ALIGNMENT) * ALIGNMENT for i in items}
    assert all(offset % ALIGNMENT == 0 for offset in (*offsets.values(), nbytes))
    assert all(offsets[i.storage] + i.nbytes <= nbytes for i in items)
    busiest = max(
        (sum(i.nbytes for i in items if i.first <= step <= i.last) for step in range(-1, 20)),
        default=0,
    )
    assert busiest <= nbytes <= sum(aligned.values())


@given(lifetimes(), st.randoms())
def test_the_order_of_storages_does_not_matter(items: list[Lifetime], random: object) -> None:
    shuffled = list(items)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert place(shuffled) == place(items)
