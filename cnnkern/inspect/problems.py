"""The table that ``cnnkern check`` prints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from .text import printable

if TYPE_CHECKING:
    from ..reader import Problem


def print_problems(
    path: Path, problems: Sequence[Problem], console: Console | None = None
) -> None:
    """Print what keeps a model file from running, or that nothing does."""
    console = console or Console()
    name = printable(path.name)
    if not problems:
        console.print(name.append(": every layer and option is supported"))
        return
    table = Table("Layer", "Class", "Not supported", header_style="bold", show_lines=True)
    for problem in problems:
        table.add_row(*map(printable, (problem.layer, problem.class_name, problem.message)))
    console.print(table)
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    console.print(name.append(f": {count}"))
