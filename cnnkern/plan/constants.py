"""What all plans of a model share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..graph import Array
from ..kernels.memory import Slabs, aligned


@dataclass
class Constants:
    """Packed weights, one aligned copy per model, shared by its plans."""

    arrays: dict[tuple[Any, ...], Array] = field(default_factory=dict)
    _slabs: Slabs = field(default_factory=Slabs)

    @property
    def nbytes(self) -> int:
        """Size of all arrays together."""
        return sum(array.nbytes for array in self.arrays.values())

    def empty(self, nbytes: int) -> np.ndarray:
        """Return memory for an array that is to be one of these."""
        return self._slabs.empty(nbytes)

    def address(self, key: tuple[Any, ...], make: Callable[[], np.ndarray]) -> int:
        """Return the address of the array that `make` gives, made once per key."""
        array = self.arrays.get(key)
        if array is None:  # of several threads that make it at once, the first one's is kept
            array = self.arrays.setdefault(key, aligned(make()))
        return array.ctypes.data
