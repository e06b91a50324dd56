"""What the tiles of a step ask for while they multiply: filters that memory has to deliver.

From run to run the filters of a large model leave the caches, and memory rests while tiles
multiply. A product of few rows is done as soon as its filters are there: tiles of the steps
before ask for them, each for a share. Other tiles ask for the panel that follows theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..codegen.isa import LINE, LONG_SUM, Isa, n_requests
from .call import Step

CONVS = "f32_conv", "f32_int24_conv"
FAR_NBYTES = 4 << 20  # filters that no cache keeps until the next run
LEAST_NBYTES = 256 << 10  # of a matrix whose panels are asked for
FEW_ROWS = 8  # of a product that takes as long as its filters
MANY_ROWS = 32  # of one that takes long enough for others' filters, too
LEAST_WANTED_NBYTES = 32 << 10  # of its filters
# Most of what has been asked for and not been used: it shall stay in the L3 cache.
LEAD_NBYTES = 16 << 20


@dataclass
class _Wanted:
    """Filters that earlier steps ask for, the last bytes first."""

    address: int
    nbytes: int


def with_requests(steps: Sequence[Step], isa: Isa) -> tuple[Step, ...]:
    """Return the steps with what the tiles of each ask for."""
    if sum(map(_filters_nbytes, steps)) < FAR_NBYTES:
        return tuple(steps)
    wanted: list[_Wanted] = []  # the nearest one last
    return tuple(reversed([_with_request(step, wanted, isa) for step in reversed(steps)]))


def _with_request(step: Step, wanted: list[_Wanted], isa: Isa) -> Step:
    nbytes = _filters_nbytes(step)
    if not nbytes:
        return step
    if step.fields["M"] < FEW_ROWS:
        nbytes = min(nbytes, LEAD_NBYTES - sum(filters.nbytes for filters in wanted))
        if nbytes >= LEAST_WANTED_NBYTES:
            wanted.append(_Wanted(step.fields["panels"], nbytes))
        return step
    if wanted and step.fields["M"] >= MANY_ROWS and _n_groups(step) == 1:
        return _asking_for(wanted, step, isa)
    if nbytes >= LEAST_NBYTES:
        panel = step.fields["panel_nbytes"]
        return _with(step, ahead=step.fields["panels"] + panel, ahead_nbytes=panel)
    return step


def _asking_for(wanted: list[_Wanted], step: Step, isa: Isa) -> Step:
    """Return the step with a request for the nearest of what is wanted; take it from there."""
    n_panels, n_blocks = -(-step.fields["OC"] // isa.tile_columns), step.fields["row_blocks"]
    filters, n_shares = wanted[-1], n_panels * n_blocks
    share = min(-(-filters.nbytes // (n_shares * LINE)) * LINE, _most_nbytes(step, isa))
    asked = min(share * n_shares, filters.nbytes)
    filters.nbytes -= asked
    if not filters.nbytes:
        wanted.pop()
    first = filters.address + filters.nbytes
    return _with(step, ahead=first, ahead_nbytes=share, ahead_rows=n_panels * share)


def _most_nbytes(step: Step, isa: Isa) -> int:
    """Return how much the tiles of one panel have time to ask for."""
    fields = step.fields
    n_tiles = -(-min(fields["rows_per_task"], fields["M"]) // fields["height"])
    run_len = min(fields["run_len"], fields["part"])
    return most_nbytes(n_tiles, run_len, _products(step), isa)


def most_nbytes(n_tiles: int, run_len: int, products: int, isa: Isa) -> int:
    """Return how much so many tiles have time to ask for."""
    is_long = isa.unroll == 1 or run_len >= LONG_SUM
    return LINE * n_requests(n_tiles, products, isa.first_tiles, isa.unroll) if is_long else 0


def _filters_nbytes(step: Step) -> int:
    return _n_groups(step) * int(step.fields["group_nbytes"]) if step.kernel in CONVS else 0


def _n_groups(step: Step) -> int:
    return step.n_tiles // int(step.fields["group_step"])


def _products(step: Step) -> int:
    return int(step.fields["n_runs"] * step.fields["run_len"])


def _with(step: Step, **request: int) -> Step:
    return replace(step, fields=step.fields | request)
