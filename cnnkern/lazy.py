"""Weights that are not in memory: their shape is known, their elements come when needed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .shapes import product

Floats = NDArray[np.float32]


class LazyArray(ABC):
    """A float32 array whose elements are made anew each time they are asked for.

    ``np.asarray`` gives them, and so do most functions of NumPy. A pickle holds an array.
    """

    shape: tuple[int, ...]

    @abstractmethod
    def read(self) -> Floats:
        """Return the elements as a new array."""

    @abstractmethod
    def __getitem__(self, rows: slice) -> Floats:
        """Return the elements of a range along axis 0 as a new array; read only them."""

    @abstractmethod
    def reshape(self, *shape: int) -> Weight:
        """Return the same elements in another shape, still lazy if possible."""

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return product(self.shape)

    @property
    def dtype(self) -> np.dtype[np.float32]:
        """Always float32."""
        return np.dtype(np.float32)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("a lazy array has no elements in memory to be shared")
        return self.read().astype(dtype or np.float32, copy=False)

    def __reduce__(self) -> tuple[Callable[..., Floats], tuple[Floats]]:
        return np.asarray, (self.read(),)


Weight = Floats | LazyArray


class Scaled(LazyArray):
    """The product ``base * factor``.

    Parameters
    ----------
    base : array or LazyArray
    factor : float32 array that broadcasts to it
    """

    def __init__(self, base: Weight, factor: Floats) -> None:
        self.base, self.factor, self.shape = base, factor, base.shape

    def read(self) -> Floats:
        return self._product(np.asarray(self.base), self.factor)

    def __getitem__(self, rows: slice) -> Floats:
        is_per_row = self.factor.ndim == self.ndim and self.factor.shape[0] > 1
        factor = self.factor[rows] if is_per_row else self.factor
        return self._product(self.base[rows], factor)

    def reshape(self, *shape: int) -> Weight:
        base, n_axes = self.base.reshape(*shape), self.factor.ndim
        if base.shape[base.ndim - n_axes :] == self.shape[self.ndim - n_axes :]:
            return Scaled(base, self.factor)
        return self.read().reshape(shape)

    def _product(self, values: Floats, factor: Floats) -> Floats:
        target = values if isinstance(self.base, LazyArray) else None  # already a new array
        with np.errstate(all="ignore"):
            return np.multiply(values, factor, out=target)
