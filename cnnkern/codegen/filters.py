"""How a row of filters stands in a panel, and how a tile loads it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .simd import Simd

BITS = 8  # of a byte


@dataclass(frozen=True)
class Format:
    """Filters of one kind: ``load(vectors, address)`` gives a panel's row as float32."""

    name: str
    nbytes: int  # of a filter
    load: Callable[[Sequence[Simd], Any], list[Any]]


def _load_float32(vectors: Sequence[Simd], address: Any) -> list[Any]:
    nbytes = vectors[0].vector_nbytes
    return [simd.load(simd.offset(address, j * nbytes)) for j, simd in enumerate(vectors)]


def _load_int24(vectors: Sequence[Simd], address: Any) -> list[Any]:
    """Load the columns of two whole vectors, each number times 256.

    Three quarters of the columns are the upper bytes of words, the last quarter their low
    bytes. Most columns so need no shuffle, which would take longer than memory does.
    """
    simd, _ = vectors
    b, quarter = simd.builder, simd.of_lanes(simd.isa.lanes // 2)
    words = [
        quarter.load_words(simd.offset(address, i * quarter.vector_nbytes)) for i in range(3)
    ]
    last = quarter.word_constant(0)
    for word in words:  # their low bytes come in from above
        last = quarter.shift_right(word, last, BITS)
    upper = -1 << BITS
    first_two = b.and_(simd.load_words(address), simd.word_constant(upper))
    third = b.and_(words[2], quarter.word_constant(upper))
    return [b.sitofp(half, simd.vector) for half in (first_two, simd.join(third, last))]


FLOAT32 = Format("f32", 4, _load_float32)
INT24 = Format("i24", 3, _load_int24)
