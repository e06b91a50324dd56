"""The table of layers that ``Model.summary`` prints."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..graph import Graph, Layer, Node
from .text import nbytes_text, printable

if TYPE_CHECKING:
    from ..engine import Model

FLOAT32_NBYTES = 4


def print_summary(model: Model, console: Console | None = None) -> None:
    """Print layers, output shapes and parameter counts, as Keras does.

    Parameters
    ----------
    model : Model
    console : rich.console.Console, optional
        Where to print; standard output by default.
    """
    console = console or Console()
    console.print(Text("Model: ").append_text(printable(model.name)), style="bold")
    console.print(summary_table(model.graph))
    n_params = sum(layer.n_params for layer in model.layers)
    size = nbytes_text(FLOAT32_NBYTES * n_params)
    console.print(f"Total params: {n_params:,} ({size})", highlight=False)


def summary_table(graph: Graph) -> Table:
    """Return one row per layer; a model with branches also shows what each layer reads."""
    table = Table("Layer (type)", "Output shape", header_style="bold")
    table.add_column("Param #", justify="right", no_wrap=True)
    shapes = graph.shapes()
    sources = layer_inputs(graph)
    branches = not is_chain(graph.layers, sources)
    if branches:
        table.add_column("Connected to")
    for layer in graph.layers:
        title = printable(layer.name).append_text(printable(f" ({layer.class_name})"))
        row = [title, Text(str(shapes[layer.output])), Text(f"{layer.n_params:,}")]
        if branches:
            row.append(printable(", ".join(sources[layer.name])))
        table.add_row(*row)
    return table


def layer_inputs(graph: Graph) -> dict[str, tuple[str, ...]]:
    """Return for each layer the names of the layers whose outputs it reads.

    A layer that does nothing at inference has no node: its output is the tensor it reads.
    A layer that is called several times has several nodes with one op.
    """
    nodes = {node.name: node for node in graph.nodes}
    returning: dict[int, list[str]] = {}  # op -> the layers that return its result, in order
    for layer in graph.layers:
        returning.setdefault(id(nodes[layer.output].op), []).append(layer.name)
    last = {op: names[-1] for op, names in returning.items()}
    sources = {}
    for layer in graph.layers:
        names = returning[id(nodes[layer.output].op)]
        index = names.index(layer.name)
        above = names[index - 1 : index] if index else _layers_behind(layer.output, nodes, last)
        sources[layer.name] = tuple(above)
    return sources


def is_chain(layers: tuple[Layer, ...], sources: dict[str, tuple[str, ...]]) -> bool:
    """Return whether every layer but the first reads exactly the layer above it."""
    return all(sources[layer.name] == (above.name,) for above, layer in pairwise(layers))


def _layers_behind(tensor: str, nodes: dict[str, Node], last: dict[int, str]) -> list[str]:
    """Return the layers met first on every way back from `tensor`, in order, each once."""
    found: dict[str, None] = {}
    seen: set[str] = set()
    waiting = list(reversed(nodes[tensor].inputs))
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if id(nodes[name].op) in last:
            found[last[id(nodes[name].op)]] = None
        else:
            waiting.extend(reversed(nodes[name].inputs))
    return list(found)
