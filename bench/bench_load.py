"""What a process pays to load a model and predict once: time and peak memory by stage.

    python bench/bench_load.py [NAME ...]

Each model of ``keras.applications`` is saved, then loaded by new processes whose kernels
are in the cache. Peak memory is what Linux calls VmHWM: it includes Python, NumPy, the
pages of shared libraries, everything. A process has two threads or as many as are set.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

from rich.console import Console
from rich.table import Table

SAVE = """
import keras, sys
getattr(keras.applications, sys.argv[1])(weights=None).save(sys.argv[2])
"""
RUN = """
import json, sys, time

def note(stage):
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("VmHWM"))
    stages.append((stage, time.perf_counter(), int(line.split()[1]) / 1024))

stages = []
note("start")
import numpy
note("import numpy")
import cnnkern
cnnkern.load
note("import cnnkern")
model = cnnkern.load(sys.argv[1])
note("load")
x = numpy.zeros((1, *(n or 224 for n in model.input_shape[1:])), numpy.float32)
model.plan(x.shape)
note("plan and pack")
model(x)
note("first predict")
model(x)
note("second predict")
print(json.dumps(stages))
"""


def stages_of(file: Path) -> list[tuple[str, float, float]]:
    """Return the name, the seconds and the peak in MiB of each stage of a new process."""
    command = [sys.executable, "-c", RUN, str(file)]
    stages = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return [(name, end - begin, peak) for (_, begin, _), (name, end, peak) in pairwise(stages)]


def table_of(name: str, file: Path, repeats: int) -> Table:
    stages_of(file)  # compiles what is not cached
    runs = [stages_of(file) for _ in range(repeats)]
    table = Table("stage", title=f"{name}, {file.stat().st_size / 2**20:.0f} MiB")
    table.add_column("ms", justify="right")
    table.add_column("peak MiB so far", justify="right")
    for rows in zip(*runs, strict=True):
        (stage, *_), seconds, peaks = rows[0], [row[1] for row in rows], [r[2] for r in rows]
        table.add_row(stage, f"{1e3 * statistics.median(seconds):.1f}", f"{max(peaks):.1f}")
    loads = [sum(row[1] for row in run[2:5]) for run in runs]
    table.add_section()
    table.add_row("load, plan and first predict", f"{1e3 * statistics.median(loads):.1f}", "")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=["ResNet50"], metavar="NAME")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in options.names:
            file = Path(folder) / f"{name}.keras"
            subprocess.run([sys.executable, "-c", SAVE, name, str(file)], check=True)
            Console().print(table_of(name, file, options.repeats))


if __name__ == "__main__":
    main()
