"""The arena layout: storages that live together never overlap."""

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from cnnkern.plan.layout import ALIGNMENT, Lifetime, place


def test_by_hand() -> None:
    """a and b live together, c follows a and stands in the middle of its place."""
    offsets, nbytes = place(
        [Lifetime("a", 320, 0, 1), Lifetime("b", 64, 1, 3), Lifetime("c", 90, 2, 3)]
    )
    assert offsets == {"a": 0, "c": 64, "b": 320}
    assert nbytes == 384


def test_halves_stay_where_they_are() -> None:
    """The middle of every storage of a lane is the lane's, to a cache line."""
    sizes = {"a": 4096, "b": 1024, "c": 65, "d": 3000}
    offsets, nbytes = place(Lifetime(s, n, i, i) for i, (s, n) in enumerate(sizes.items()))
    assert nbytes == 4096
    assert all(abs(offsets[s] + n / 2 - 2048) <= 64 for s, n in sizes.items())


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
