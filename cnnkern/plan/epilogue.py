"""What a kernel does to its results before it leaves them."""

from dataclasses import dataclass
from typing import Any

INFINITY = float("inf")


@dataclass(frozen=True)
class Epilogue:
    """Clip to [lo, hi] in registers; then, where `activate` is set, apply a row function."""

    lo: float = -INFINITY
    hi: float = INFINITY
    activate: int = 0  # address of a row function
    activate_args: int = 0  # address of its parameters

    @property
    def bounds(self) -> dict[str, Any]:
        """The fields of kernels that clip and do no more."""
        return {"lo": self.lo, "hi": self.hi}


NO_EPILOGUE = Epilogue()
