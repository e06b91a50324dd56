"""Instruction sets: which one is taken, and that its tiles fit its registers."""

from collections.abc import Iterator
from itertools import pairwise

import pytest

from cnnkern.codegen import isa
from cnnkern.codegen.isa import AVX2, AVX512, GENERIC, ISAS, Isa

REGISTERS = {"avx512f": 32, "avx2": 16, "generic": 16}


@pytest.fixture
def fresh() -> Iterator[None]:
    """Let the CPU be asked again, before and after the test."""
    for function in (isa.cpu_features, isa.available):
        function.cache_clear()
    yield
    for function in (isa.cpu_features, isa.available):
        function.cache_clear()


@pytest.mark.parametrize(
    ("cpu", "expected"),
    [
        ("skylake-avx512", (AVX512, AVX2, GENERIC)),
        ("haswell", (AVX2, GENERIC)),
        ("generic", (GENERIC,)),
        ("some-unknown-cpu", (GENERIC,)),
    ],
)
def test_named_cpu(
    cpu: str, expected: tuple[Isa, ...], fresh: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMBA_CPU_NAME", cpu)
    assert isa.cpu_name() == cpu
    assert isa.available() == expected
    assert isa.best() is expected[0]


def test_this_cpu(fresh: None) -> None:
    assert isa.available()[-1] is GENERIC
    assert all(i.needs <= isa.cpu_features() for i in isa.available())


@pytest.mark.parametrize("each", ISAS, ids=lambda i: i.name)
def test_a_tile_fits_the_registers(each: Isa) -> None:
    """Accumulators, filter vectors, and a broadcast pixel where it needs a register."""
    broadcast = 0 if each.has_broadcast else 1
    tallest = each.heights[0] * each.vectors + each.vectors + broadcast
    assert tallest <= REGISTERS[each.name]


@pytest.mark.parametrize("each", ISAS, ids=lambda i: i.name)
def test_heights_fall_to_one(each: Isa) -> None:
    assert list(each.heights) == sorted(set(each.heights), reverse=True)
    assert each.heights[-1] == 1
    # A tile does at most its last row twice.
    assert all(upper - lower <= 2 for upper, lower in pairwise(each.heights))
    assert each.tile_columns == each.lanes * each.vectors
