"""What several test files share: small graphs, a way to run one, child processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cnnkern.codegen.isa import Isa, best
from cnnkern.engine.workspace import Workspace
from cnnkern.graph import Array, Graph, Node, Op
from cnnkern.ops.activation import Activation
from cnnkern.ops.conv import Conv
from cnnkern.ops.dense import Dense
from cnnkern.ops.layout import Flatten, Input
from cnnkern.ops.merge import Add
from cnnkern.ops.pool import MaxPool
from cnnkern.plan import Constants, make_plan

ROOT = Path(__file__).parent.parent
PATHS = (ROOT, ROOT / "tests", ROOT / "tests" / "kernels")  # of child processes


def graph_of(
    inputs: Mapping[str, tuple[int | None, ...]],
    steps: Sequence[tuple[str, Op, tuple[str, ...]]],
    *outputs: str,
) -> Graph:
    """Return a graph of inputs and (name, op, inputs) steps; the last step is its output."""
    nodes = [Node(name, Input(shape)) for name, shape in inputs.items()]
    nodes += [Node(*step) for step in steps]
    return Graph(tuple(nodes), tuple(inputs), outputs or (nodes[-1].name,)).verify()


def evaluate(graph: Graph, *inputs: Array) -> list[Array]:
    """Return the outputs by the ops' references."""
    values = dict(zip(graph.inputs, inputs, strict=True))
    for node in graph.nodes:
        if node.name not in values:
            values[node.name] = node.op.reference(*(values[i] for i in node.inputs))
    return [values[name] for name in graph.outputs]


def run_kernels(
    graph: Graph,
    *inputs: Array,
    isa: Isa | None = None,
    n_threads: int = 1,
    in_parts: bool = False,
) -> list[Array]:
    """Return the outputs by the kernels of `isa`, in memory that is NaN before the run."""
    shapes = {name: x.shape for name, x in zip(graph.inputs, inputs, strict=True)}
    plan = make_plan(graph, shapes, Constants(), isa=isa or best(), in_parts=in_parts)
    workspace = Workspace(plan, n_threads)
    poison(workspace.arena)
    for view, x in zip(workspace.inputs, inputs, strict=True):
        view[...] = x
    workspace.run()
    return [view.copy() for view in workspace.outputs]


def poison(arena: np.ndarray) -> None:
    """Fill memory with NaN, so that what is read before it is written shows."""
    arena.view(np.float32)[:] = np.nan


def small_cnn(seed: int = 0, side: int = 12) -> Graph:
    """Return conv, conv with shortcut, pool, dense on ``float32[N, side, side, 3]``."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> Array:
        return rng.standard_normal(shape, np.float32) / np.float32(4)

    features = (side // 2) ** 2 * 20
    return graph_of(
        {"x": (None, side, side, 3)},
        [
            ("conv1", Conv(normal(3, 3, 3, 20), normal(20), padding="same"), ("x",)),
            ("relu1", Activation("relu"), ("conv1",)),
            ("conv2", Conv(normal(3, 3, 20, 20), normal(20), padding="same"), ("relu1",)),
            ("add", Add(), ("conv2", "relu1")),
            ("tanh", Activation("tanh"), ("add",)),
            ("pool", MaxPool(), ("tanh",)),
            ("flat", Flatten(), ("pool",)),
            ("dense", Dense(normal(features, 10), normal(10)), ("flat",)),
            ("y", Activation("sigmoid"), ("dense",)),
        ],
    )


def integers(rng: np.random.Generator, *shape: int) -> Array:
    """Return floats of which every sum is exact."""
    return rng.integers(-3, 4, shape).astype(np.float32)


def images(count: int, side: int = 12, seed: int = 1) -> Array:
    """Return gaussian ``float32[count, side, side, 3]``."""
    return np.random.default_rng(seed).standard_normal((count, side, side, 3), np.float32)


def child_environment(**changes: str | None) -> dict[str, str]:
    """Return the environment of a child process that finds cnnkern; None unsets a variable."""
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, PATHS)), **changes}
    return {name: value for name, value in variables.items() if value is not None}


def run_python(code: str, timeout: float = 60, **environment: str | None) -> str:
    """Run `code` in a new interpreter and return what it printed."""
    child = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", code],
        env=child_environment(**environment),
        capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip
    assert child.returncode == 0, f"exit status {child.returncode}\n{child.stderr}"
    return child.stdout.strip()
