"""Where the time goes in every model of ``keras.applications``.

    PYTHONPATH=tests python bench/bench_steps.py [NAME ...]

For each model at its default image size, batch 1: the time of a predict, the share of
convolutions and matrix products, and the largest other step, which should stay small.
"""

import argparse

import keras
import numpy as np
from rich.console import Console
from rich.table import Table

import cnnkern
from applications import NAMES
from cnnkern.inspect.profile import Profile

UNKNOWN_LENGTH = 224  # of image axes that a model leaves open
# Convolutions and matrix products.
PRODUCTS = (
    "f32_conv",
    "f32_int24_conv",
    "f32_narrow_conv",
    "f32_plane_conv",
    "f32_winograd",
    "f32_strassen",
    "f32_depthwise",
    "f32_bands",
)


def largest_other_step(profile: Profile) -> tuple[float, str]:
    """Return the share and the name of the slowest step that is not a product."""
    others = [step for step in profile.steps if not step.kernel.startswith(PRODUCTS)]
    slowest = max(others, key=lambda step: step.seconds)
    return slowest.seconds / profile.seconds, f"{slowest.node} ({slowest.kernel})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=NAMES, metavar="NAME")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    table = Table("model", title=f"batch 1, {cnnkern.get_num_threads()} threads")
    for heading in ("ms", "products %", "largest other step %"):
        table.add_column(heading, justify="right")
    table.add_column("which")
    for name in options.names:
        model = cnnkern.from_keras(getattr(keras.applications, name)(weights=None))
        keras.backend.clear_session()
        shape = [n or UNKNOWN_LENGTH for n in model.input_shape[1:]]
        x = np.random.default_rng(0).random((1, *shape), np.float32)
        profile = model.profile(x, options.repeats)
        products = sum(s.seconds for s in profile.steps if s.kernel.startswith(PRODUCTS))
        share, which = largest_other_step(profile)
        table.add_row(
            name, f"{1e3 * profile.seconds:.2f}", f"{100 * products / profile.seconds:.1f}",
            f"{100 * share:.1f}", which,
        )  # fmt: skip
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
