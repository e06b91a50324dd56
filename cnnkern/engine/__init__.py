"""Model: a graph that predicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..graph import Array, Graph, Layer
from ..passes import PRECISIONS, optimise
from ..plan import Constants, Plan, make_plan
from ..shapes import Shape
from ..structure import flat, pack
from .inputs import input_arrays
from .threads import POOL
from .workspace import Workspace

if TYPE_CHECKING:
    from ..inspect.profile import Profile

CACHE_NBYTES = 16 << 20  # of activations: half of a common L3
FLOAT32 = np.dtype(np.float32)
MAX_PLANS = 32  # one per input shape; the least recently made is dropped


class Model:
    """A trained network, ready to predict.

    Safe to call from several threads at once; results are bitwise equal for any number
    of threads and any batch size. Made by `cnnkern.load` or `cnnkern.from_keras`.

    Parameters
    ----------
    graph : Graph
    precision : "fast" or "strict"
        "strict" sums every convolution directly, and long sums in parts: its rounding errors
        are no larger than TensorFlow's. "fast" may use Winograd's algorithm for 3x3 filters
        and Strassen's for those of one tap, rounds matrices of 8 MiB and more to 24 bits, and
        sums in one go; its errors are a few times larger.

    Raises
    ------
    ValueError
        `precision` is neither.
    """

    def __init__(self, graph: Graph, precision: str = "fast") -> None:
        if precision not in PRECISIONS:
            raise ValueError(f"precision={precision!r} must be one of {PRECISIONS}")
        self.graph = graph.verify()
        self.precision = precision
        self._optimised = optimise(graph, precision)
        self._constants = Constants()
        self._plans: dict[tuple[tuple[int, ...], ...], _Planned] = {}
        # By input shape, where the model has one input and one output.
        self._simple: dict[tuple[int, ...], Callable[[Array], Array]] = {}
        self._structure = graph.output_structure
        if self._structure is None:
            self._structure = flat(len(graph.outputs))
        self._shapes = graph.shapes()

    @property
    def name(self) -> str:
        """The Keras model's name."""
        return self.graph.name

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers, as Keras lists them."""
        return self.graph.layers

    @property
    def input_shape(self) -> Shape | list[Shape]:
        """Shape of the input, or of each; axes of unknown length are None."""
        return _single([self._shapes[name] for name in self.graph.inputs])

    @property
    def output_shape(self) -> Shape | list[Shape]:
        """Shape of the output, or of each."""
        return _single([self._shapes[name] for name in self.graph.outputs])

    def __call__(self, x: Any) -> Any:
        """Predict a batch at once.

        Parameters
        ----------
        x : float32[input_shape], or lists and dicts of them
            Anything that NumPy turns into real numbers; it is cast to float32. Several inputs
            come as the Keras model takes them, or as a dict by the names of its inputs.

        Returns
        -------
        float32[output_shape], or the lists and dicts of them that the Keras model returns.

        Raises
        ------
        ShapeError
            Rank or an axis differs from `input_shape`.
        DTypeError
            The elements are not real numbers.
        ModelFileError
            Weights must be read from the model's file, which was changed after loading.
        """
        if isinstance(x, np.ndarray) and x.dtype is FLOAT32:
            predict_one = self._simple.get(x.shape)
            if predict_one is not None:
                return predict_one(x)
        arrays = input_arrays(self.graph, self._shapes, x)
        return pack(self._structure, self._predict_groups(arrays))

    def predict(self, x: Any, batch_size: int | None = None, verbose: int = 0) -> Any:
        """Predict in chunks of `batch_size` images, like Keras' ``Model.predict``.

        Parameters
        ----------
        x : float32[input_shape], or lists and dicts of them, as for a call
        batch_size : int, optional
            Images per chunk, 32 by default. It bounds the memory; results do not depend on it.
        verbose : int
            1 shows a progress bar on stderr.

        Returns
        -------
        float32[output_shape], or the lists and dicts of them that the Keras model returns.

        Raises
        ------
        ShapeError
            Rank or an axis differs from `input_shape`.
        DTypeError
            The elements are not real numbers.
        ModelFileError
            As in a call.
        """
        size = 32 if batch_size is None else batch_size
        if type(size) is not int or size < 1:
            raise ValueError(f"batch_size={batch_size!r} must be an int of at least 1")
        arrays = input_arrays(self.graph, self._shapes, x)
        n_images = arrays[0].shape[0]
        starts: Any = range(0, max(n_images, 1), size)
        if verbose:
            starts = _with_progress(starts)
        chunks = []
        for start in starts:
            chunk = [a[start : start + size] for a in arrays]
            chunks.append(self._predict_groups(chunk))
        return pack(self._structure, _joined(chunks))

    def plan(self, *input_shapes: tuple[int, ...]) -> Plan:
        """Return the plan for these input shapes, the batch included."""
        return self._planned(input_shapes).plan

    def summary(self) -> None:
        """Print layers, output shapes and parameter counts, like Keras' ``summary``."""
        from ..inspect.summary import print_summary

        print_summary(self)

    def profile(self, x: Any, repeats: int = 20) -> Profile:
        """Time each step of a predict of `x`; print the result or read its `steps`.

        Parameters
        ----------
        x : as in `predict`
        repeats : int
            Runs of which the medians are taken.

        Raises
        ------
        ShapeError, DTypeError
            As in `predict`.
        """
        from ..inspect.profile import profile

        arrays = input_arrays(self.graph, self._shapes, x)
        return profile(self.plan(*(a.shape for a in arrays)), arrays, repeats)

    def __repr__(self) -> str:
        return f"<cnnkern.Model {self.name!r} {self.input_shape} -> {self.output_shape}>"

    def __reduce__(self) -> tuple[type[Model], tuple[Graph, str]]:
        return Model, (self.graph, self.precision)

    def _predict_groups(self, arrays: Sequence[NDArray[Any]]) -> list[Array]:
        """Predict a batch, in groups of images where that is faster."""
        n_images = arrays[0].shape[0]
        size = self._group_size(n_images, tuple(a.shape[1:] for a in arrays))
        if size == n_images and len(arrays) == 1 and self._structure == 0:
            shape = arrays[0].shape
            self._simple[shape] = self._planned((shape,)).predict_one
        groups = [
            [a[start : start + size] for a in arrays]
            for start in range(0, max(n_images, 1), size)
        ]
        return _joined(
            [self._planned(tuple(a.shape for a in group)).predict(group) for group in groups]
        )

    def _group_size(self, n_images: int, shapes: tuple[tuple[int, ...], ...]) -> int:
        """Return how many images to compute together.

        Those of a group read the weights once; those of one that fits into the cache read
        and write its tensors there.
        """
        is_fixed = any(self._shapes[name][0] is not None for name in self.graph.inputs)
        if n_images < 2 or is_fixed:
            return max(n_images, 1)
        single = self._planned(tuple((1, *shape) for shape in shapes)).plan
        fitting = max(CACHE_NBYTES // max(single.arena_nbytes, 1), 1)
        if single.host_calls or fitting >= n_images:
            return n_images
        weights, tensors = self._constants.nbytes, 2 * single.tensors_nbytes
        return n_images if weights / n_images + tensors < weights / fitting else fitting

    def _planned(self, shapes: tuple[tuple[int, ...], ...]) -> _Planned:
        planned = self._plans.get(shapes)
        if planned is None:
            inputs = dict(zip(self.graph.inputs, shapes, strict=True))
            in_parts = self.precision == "strict"
            plan = make_plan(self._optimised, inputs, self._constants, in_parts=in_parts)
            planned = _Planned(plan)
            for oldest in list(self._plans)[: max(len(self._plans) - MAX_PLANS + 1, 0)]:
                self._plans.pop(oldest, None)
                self._simple.pop(oldest[0], None)
            self._plans[shapes] = planned
        return planned


class _Planned:
    """A plan and its free workspaces; a predict takes one and gives it back."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._free: list[Workspace] = []

    def predict(self, arrays: Sequence[NDArray[Any]]) -> list[Array]:
        workspace = self._take()
        with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite
            for view, array in zip(workspace.inputs, arrays, strict=True):
                view[...] = array
        workspace.run()
        results = [view.copy() for view in workspace.outputs]
        self._free.append(workspace)
        return results

    def predict_one(self, x: Array) -> Array:
        """The shortest way for one input and one output of float32."""
        workspace = self._take()
        workspace.x[...] = x
        workspace.run()
        result: Array = workspace.y.copy()
        self._free.append(workspace)
        return result

    def _take(self) -> Workspace:
        """Return a free workspace that has room for the current number of threads."""
        try:
            workspace = self._free.pop()
        except IndexError:  # none is left
            return Workspace(self.plan, POOL.n_threads)
        if workspace.wanted_threads == POOL.n_threads:
            return workspace
        return Workspace(self.plan, POOL.n_threads)


def _joined(chunks: list[list[Array]]) -> list[Array]:
    """Return every output of all chunks as one array."""
    if len(chunks) == 1:
        return chunks[0]
    return [np.concatenate(parts) for parts in zip(*chunks, strict=True)]


def _single(shapes: list[Shape]) -> Shape | list[Shape]:
    return shapes[0] if len(shapes) == 1 else shapes


def _with_progress(starts: range) -> Any:
    from rich.console import Console
    from rich.progress import track

    return track(starts, description="predict", console=Console(stderr=True))
