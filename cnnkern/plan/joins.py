"""Where threads wait for each other: after every step, but for zeros that nobody reads yet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .call import Step


def joins(steps: Sequence[Step]) -> list[int]:
    """Return for how many steps, itself the last one, all threads wait after each step.

    0 after the zeros around a tensor when the next step writes the tensor itself.
    """
    counts, waiting = [], 0
    for index, step in enumerate(steps):
        waiting += 1
        if _may_run_together(step, *steps[index + 1 : index + 2]):
            counts.append(0)
        else:
            counts.append(waiting)
            waiting = 0
    return counts


def _may_run_together(step: Step, following: Step | None = None) -> bool:
    """Tell whether `following` only fills the inside of the border that `step` clears."""
    if step.kernel != "f32_halo" or following is None or following.node != step.node:
        return False
    border = step.fields["y"].storage
    return all(
        name == "y" or address.storage != border for name, address in following.addresses()
    )
