"""Tables, file and picture of what bench_models.py measured."""

from __future__ import annotations

import json
import platform
import re
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from peers import OURS, RUNTIMES

HEADINGS = ("median ms", "min ms", "x cnnkern", "peak MB", "load s", "first ms", "max|d|")
Facts = dict[str, Any]  # a Row's summary
COLORS = {
    "ONNX Runtime": "#4c72b0", "OpenVINO": "#55a868", "LiteRT": "#c44e52", "MNN": "#8172b3",
    "ncnn": "#64b5cd", "tf.function": "#ccb974", "model.predict": "#8c8c8c",
}  # fmt: skip

LONGEST = 3.0  # bars end here; the number tells the rest


def case_of(row: Facts) -> tuple[int, int, str]:
    """Return batch, threads and model, by which rows are grouped."""
    return row["batch"], row["threads"], row["model"]


def merge(path: Path, rows: list[Facts]) -> list[Facts]:
    """Add rows to the file, in place of earlier ones of the same cases; return all."""
    earlier = json.loads(path.read_text())["rows"] if path.exists() else []
    cases = {case_of(row) for row in rows}
    merged = [row for row in earlier if case_of(row) not in cases] + rows
    path.write_text(json.dumps({"machine": machine(), "rows": merged}, indent=1))
    return merged


def machine() -> Facts:
    """Return what the times depend on."""
    names = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {"processors": names, "python": platform.python_version(), "numpy": np.__version__}


def cell(value: float | None, scale: float = 1) -> str:
    """Format a number to three significant digits; a dash where there is none."""
    if value is None:
        return "-"
    scaled = value * scale
    return f"{scaled:,.0f}" if scaled >= 100 else f"{scaled:#.3g}"


def ratio(row: Facts, rows: list[Facts]) -> float | None:
    """Return how many times cnnkern's median a row's median is, in the same case."""
    ours = next((r.get("median") for r in rows if r["runtime"] == OURS), None)
    return row["median"] / ours if ours and row.get("median") else None


def print_case(rows: list[Facts], console: Console) -> None:
    """Print one case: a runtime per row, and what is wrong with those that have no time."""
    batch, threads, model = case_of(rows[0])
    table = Table("runtime", title=f"{model}, batch {batch}, {threads} threads")
    for heading in HEADINGS:
        table.add_column(heading, justify="right")
    for row in rows:
        difference = row["difference"]
        table.add_row(
            f"{row['runtime']} {row['version']}",
            cell(row.get("median"), 1e3), cell(row.get("minimum"), 1e3),
            cell(ratio(row, rows)), cell(row["peak_bytes"], 1e-6),
            cell(row["load_seconds"]), cell(row["first_seconds"], 1e3),
            "-" if difference is None else f"{difference:.0e}",
        )  # fmt: skip
    console.print(table)
    console.print(f"other processes used {rows[0]['others']:.0%} of the CPUs", style="dim")
    for row in rows:
        if row["problem"]:
            console.print(f"{row['runtime']}: {row['problem']}", markup=False, style="dim")


def print_ratios(rows: list[Facts], console: Console) -> None:
    """Print all cases: medians of all runtimes, and the fastest peer's over cnnkern's."""
    table = Table("model", "batch", "threads", title="median ms; fastest peer / cnnkern")
    for name in RUNTIMES:
        table.add_column(name, justify="right")
    table.add_column("ratio", justify="right", style="bold")
    for (batch, threads, model), group in groupby(sorted(rows, key=case_of), case_of):
        case = list(group)
        medians = {row["runtime"]: row.get("median") for row in case}
        ratios = [ratio(row, case) for row in case if row["runtime"] != OURS]
        table.add_row(
            model, str(batch), str(threads), *(cell(medians.get(n), 1e3) for n in RUNTIMES),
            cell(min((r for r in ratios if r), default=None)),
        )  # fmt: skip
    console.print(table)


def plot(rows: list[Facts], path: Path) -> None:
    """Draw each runtime's time relative to cnnkern's, a panel per batch and thread count."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    panels = [
        (setting, [list(case) for _, case in groupby(group, case_of)])
        for setting, group in groupby(sorted(rows, key=case_of), lambda row: case_of(row)[:2])
    ]
    measured = {row["runtime"] for row in rows}
    colors = {name: color for name, color in COLORS.items() if name in measured}
    most = max(len(cases) for _, cases in panels)
    figure = Figure(
        figsize=(4 * len(panels), 1.5 + 0.65 * most), layout="constrained"
    )  # inches
    for i, ((batch, threads), cases) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), i + 1)
        draw_bars(axes, cases, colors)
        axes.set_ylim(most - 0.5, -0.5)
        axes.set_title(f"batch {batch}, {threads} threads")
    handles = [Patch(color=color, label=name) for name, color in colors.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path, dpi=110)


def draw_bars(axes: Any, cases: list[list[Facts]], colors: dict[str, str]) -> None:
    """Draw a group of bars per model, from cnnkern's time on."""
    height = 0.85 / len(colors)
    for k, (name, color) in enumerate(colors.items()):
        for i, case in enumerate(cases):
            row = next((row for row in case if row["runtime"] == name), None)
            if row and (times := ratio(row, case)):
                y = i + (k - (len(colors) - 1) / 2) * height
                end = min(times, LONGEST)
                axes.barh(y, end - 1, height, left=1, color=color)
                axes.text(max(end, 1), y, f" {cell(times)}", va="center", fontsize=6)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xlim(0.5, LONGEST + 0.4)
    axes.set_yticks(range(len(cases)), [case[0]["model"] for case in cases])
    axes.set_xlabel("time / time of cnnkern")
    axes.spines[["top", "right"]].set_visible(False)
