"""The argument records of kernel calls as machine words, with what is still to be added."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..kernels import KERNELS
from .buffer import ABSOLUTE, Address
from .call import Call

WORD_NBYTES = 8


@dataclass
class Words:
    """Records one after the other.

    Attributes
    ----------
    relocations : indices of the words to which the arena's address must be added
    links : indices of the words to which the address of the words themselves must be added
    """

    offsets: Mapping[str, int]  # storage -> bytes from the start of the arena
    relocations: list[int] = field(default_factory=list)
    links: list[int] = field(default_factory=list)
    _parts: list[np.ndarray] = field(default_factory=list)
    _count: int = 0

    def append(self, call: Call) -> int:
        """Append the record of a call behind those that it points to; return its first word."""
        pointed_to = {
            name: self.append(value)
            for name, value in call.fields.items()
            if isinstance(value, Call)
        }
        dtype, first = KERNELS[call.kernel].record, self._count
        record = np.zeros(1, dtype)
        for name, value in call.fields.items():
            word = first + dtype.fields[name][1] // WORD_NBYTES  # type: ignore[index]
            if name in pointed_to:
                self.links.append(word)
                record[name] = WORD_NBYTES * pointed_to[name]
            else:
                record[name] = self._number(value, word)
        self._parts.append(record.view(np.int64))
        self._count += self._parts[-1].size
        return first

    def _number(self, value: Any, word: int) -> Any:
        """Return a field's value; an address in the arena is noted and counted from there."""
        if not isinstance(value, Address):
            return value
        if value.storage == ABSOLUTE:
            return value.offset_bytes
        self.relocations.append(word)
        return self.offsets[value.storage] + value.offset_bytes

    def joined(self) -> np.ndarray:
        """Return all words, int64[n_words]."""
        return np.concatenate(self._parts) if self._parts else np.empty(0, np.int64)
