"""The command line. Only the chosen command imports what it needs."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from . import __version__
from .errors import CnnkernError, ShapeError, UnsupportedLayerError

if TYPE_CHECKING:
    from .engine import Model

UNSUPPORTED = 1  # exit status of `check` when a layer or option is missing
FAILED = 2  # exit status after an error, which is one line on stderr

EXAMPLES = """
Examples:

  cnnkern demo  (classify handwritten digits with the model that ships)

  cnnkern check model.keras  (is every layer supported?)

  cnnkern summary model.h5

  cnnkern predict model.keras images.npy -o probabilities.npy

  cnnkern predict model.keras cat.jpg dog.png --resize --divide 255
"""


class _Commands(TyperGroup):
    """Commands whose errors are one line for a person instead of a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (CnnkernError, OSError) as error:
            _complain(error)
            raise typer.Exit(FAILED) from error


def _complain(error: Exception) -> None:
    """Say on stderr, in one line, what went wrong."""
    from .inspect.text import printable

    print(f"cnnkern: {printable(str(error))}", file=sys.stderr)


app = typer.Typer(
    cls=_Commands,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EXAMPLES,
)

ModelFile = Annotated[
    Path, typer.Argument(metavar="FILE", help="A model that Keras saved: .keras, .h5 or .hdf5.")
]


class Demo(StrEnum):
    """The demonstrations."""

    digits = "digits"
    seed = "seed"


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"cnnkern {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Run trained Keras CNNs on compiled CPU kernels, without TensorFlow."""


@app.command()
def demo(
    which: Annotated[Demo, typer.Argument(help="What to show.")] = Demo.digits,
) -> None:
    """Classify digits with the model that ships, or walk through a tiny network (seed)."""
    if which is Demo.seed:
        from .demo.seed import main
    else:
        from .demo.digits import main
    main()


@app.command()
def summary(file: ModelFile) -> None:
    """Print the layers, output shapes and parameter counts of a model."""
    from .api import load

    load(file).summary()


@app.command()
def check(file: ModelFile) -> None:
    """List the layers and options that are not supported; nothing is compiled.

    Exit status: 0 everything is supported, 1 something is not, 2 the file cannot be read.
    """
    from .api import check as find_problems
    from .inspect.problems import print_problems

    try:
        problems = find_problems(file)
    except UnsupportedLayerError as error:  # the model as a whole, such as its class
        _complain(error)
        raise typer.Exit(UNSUPPORTED) from error
    print_problems(file, problems)
    if problems:
        raise typer.Exit(UNSUPPORTED)


@app.command()
def predict(
    file: ModelFile,
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT...",
            help="One .npy array per model input, or images that make one batch.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write the result to this .npy file instead."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images computed at once.")] = 32,
    resize: Annotated[
        bool,
        typer.Option("--resize", help="Scale images to the model's input size (bilinear)."),
    ] = False,
    divide: Annotated[
        float, typer.Option(min=1.0, help="Divide pixels 0..255 by this, as in training.")
    ] = 1.0,
    strict: Annotated[
        bool, typer.Option("--strict", help="Sum every convolution directly; rounds less.")
    ] = False,
) -> None:
    """Predict arrays or images and print the result, or write it to a file.

    Several outputs of a model are written as an .npz archive: output_0, output_1, ...
    """
    from .api import load
    from .inputs import write_results
    from .structure import leaves

    model = load(file, precision="strict" if strict else "fast")
    results = model.predict(_read(inputs, model, resize, divide), batch_size=batch_size)
    results = list(leaves(results))
    if output is not None:
        write_results(output, results)
        return
    for result in results:
        print(f"{result.dtype}{list(result.shape)}")
        print(result)


@app.command()
def warmup() -> None:
    """Compile every kernel for this machine now; later runs find them in the cache."""
    from .api import warmup as compile_kernels
    from .codegen.cache import folder

    n_kernels = compile_kernels()
    print(f"{n_kernels} kernels are ready in {folder() or 'memory (no cache folder)'}")


def _read(paths: list[Path], model: Model, resize: bool, divide: float) -> Any:
    """Return what the files hold, as `model.predict` takes it."""
    from .inputs import read_arrays, read_images

    if all(path.suffix == ".npy" for path in paths):
        arrays = read_arrays(paths)
        names = model.graph.inputs
        if len(arrays) == len(names) > 1:
            return dict(zip(names, arrays, strict=True))
        return arrays[0] if len(arrays) == 1 else arrays
    if isinstance(model.input_shape, list):
        raise ShapeError("a model with several inputs takes one .npy file for each")
    return read_images(paths, model.input_shape, resize) / divide


def main() -> None:
    """Run the command line."""
    app()
