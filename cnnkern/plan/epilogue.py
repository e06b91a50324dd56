"""What a kernel does to its results before it leaves them."""

from dataclasses import dataclass, replace
from typing import Any

from .buffer import FLOAT_NBYTES

INFINITY = float("inf")


@dataclass(frozen=True)
class Epilogue:
    """Clip to [lo, hi] and scale what is negative in registers, or apply a row function.

    Where there are slopes and a row function, either does.
    """

    lo: float = -INFINITY
    hi: float = INFINITY
    slopes: int = 0  # address of float32[columns]
    activate: int = 0  # address of a row function
    activate_args: int = 0  # address of its parameters

    @property
    def bounds(self) -> dict[str, Any]:
        """The fields of kernels that clip and do no more."""
        return {"lo": self.lo, "hi": self.hi}

    @property
    def in_registers(self) -> bool:
        """Whether kernels that can do everything need no row function."""
        return bool(self.slopes) or not self.activate

    @property
    def with_rows(self) -> dict[str, Any]:
        """The fields of kernels that know no slopes."""
        return {
            "activate": self.activate, "activate_args": self.activate_args, **self.bounds
        }  # fmt: skip

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of kernels that can do everything."""
        if self.in_registers:
            return {"slopes": self.slopes, **self.bounds}
        return self.with_rows

    def from_column(self, first: int) -> "Epilogue":
        """Return what happens to the columns from one on."""
        return replace(self, slopes=self.slopes and self.slopes + FLOAT_NBYTES * first)


NO_EPILOGUE = Epilogue()
