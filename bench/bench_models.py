"""cnnkern against other runtimes on whole models: time, memory, loading.

    PYTHONPATH=tests python bench/bench_models.py [NAME ...]
        [--threads 1 2] [--batch 1 16] [--rounds 10] [--quick]

The models are some of ``keras.applications``, at their default image sizes, with random weights
that keep activations alive, and some of sizes that people train themselves (own_models.py).
They are converted once, into the folder, beside their images and what ``model.predict`` says
about them, with which every runtime is compared before it is timed. A failed conversion
leaves FILE.error and is not tried again while that is there. A runtime that is not
installed, cannot convert, load or run a model, or is wrong about it has a dash in the table,
and the reason stands below. ``--rounds 0`` checks and times nothing.

Each runtime runs in a process of its own, which imports nothing else, on as many CPUs as it
may use threads. All are loaded first; then they take turns, round by round, and whoever has
no turn is stopped. A turn warms up, then times each call; where calls take microseconds turns
are short, and there are more of them. Load time includes the import of the runtime, memory is
the process's largest, cnnkern's kernel cache is warm.

Results gather in models.json in the folder, case by case; ``--report`` prints what is there.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from itertools import groupby, product
from pathlib import Path

from rich.console import Console

from conversions import N_IMAGES, SOURCES, converted
from peers import RUNTIMES
from report import case_of, merge, plot, print_case, print_ratios
from turns import Case, failure, measure

HERE = Path(__file__).parent
MODELS = (
    "seed", "LeNet", "autoencoder", "ResNet20", "UNet", "C3D", "SpliceAI", "MobileFaceNet",
    "VGG16", "ResNet50", "ResNet50V2", "EfficientNetB0", "EfficientNetV2B0",
    "MobileNet", "MobileNetV2", "MobileNetV3Small", "MobileNetV3Large", "DenseNet121",
    "InceptionV3", "Xception", "NASNetMobile", "ConvNeXtTiny",
)  # fmt: skip
BATCHED = ("ResNet50", "MobileNetV2")  # run batches too, unless models are named
QUICK_ROUNDS = 2


def convert(model: str, format: str, batch: int, target: Path) -> None:
    """Make a file in a process of its own unless it is there or has failed before."""
    file = converted(target, format, batch)
    report = file.with_name(file.name + ".error")
    if file.exists() or report.exists():
        return
    command: list[str | Path] = [sys.executable, HERE / "conversions.py", model, format, target]
    result = subprocess.run(
        [*command, "--batch", str(batch)], capture_output=True, text=True, errors="replace"
    )
    if result.returncode:
        report.write_text(failure(result.returncode, result.stderr))


def prepare(model: str, batch: int, runtimes: list[str], folder: Path) -> Path:
    """Make all files of a model; return their path without suffixes."""
    target = folder / model / "model"
    target.parent.mkdir(parents=True, exist_ok=True)
    formats = [RUNTIMES[name].format for name in runtimes]
    steps = [step for format in formats for step in (SOURCES.get(format, format), format)]
    for format in dict.fromkeys(["keras", *steps]):
        convert(model, format, batch, target)
    return target


def cases(options: argparse.Namespace) -> list[Case]:
    """Return what is to be measured, model by model."""
    return [
        Case(model, threads, batch)
        for model, threads, batch in product(
            options.names or MODELS, options.threads, options.batch
        )
        if batch == 1 or options.names or model in BATCHED
    ]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"by default {' '.join(MODELS)}"
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, N_IMAGES])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROUNDS} rounds")
    parser.add_argument("--runtimes", nargs="+", choices=RUNTIMES, default=list(RUNTIMES))
    parser.add_argument("--folder", type=Path, default=Path("results/models"))
    parser.add_argument(
        "--plot", type=Path, help="file of the picture; models.png in the folder"
    )
    parser.add_argument("--report", action="store_true", help="measure nothing")
    return parser.parse_args()


def main() -> None:
    options = parse_arguments()
    console = Console(width=130)
    rounds = QUICK_ROUNDS if options.quick else options.rounds
    stored = options.folder / "models.json"
    if not options.report:
        subprocess.run([sys.executable, "-m", "cnnkern", "warmup"], check=True)
        for case in cases(options):
            target = prepare(case.model, case.batch, options.runtimes, options.folder)
            rows = [row.summary() for row in measure(case, target, options.runtimes, rounds)]
            print_case(rows, console)
            merge(stored, rows)
    rows = json.loads(stored.read_text())["rows"]
    if options.report:
        for _, group in groupby(rows, case_of):
            print_case(list(group), console)
    print_ratios(rows, console)
    plot(rows, options.plot or options.folder / "models.png")


if __name__ == "__main__":
    main()
