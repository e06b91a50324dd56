"""Plans: limits, sharing of memory, relocation, instruction sets."""

from itertools import combinations

import numpy as np
import pytest

from cnnkern.codegen.isa import available
from cnnkern.engine.workspace import Workspace
from cnnkern.errors import PlanError, ResourceLimitError, ShapeError
from cnnkern.graph import Array, Graph, Op
from cnnkern.ops.activation import Activation
from cnnkern.ops.conv import Conv
from cnnkern.ops.dense import Dense
from cnnkern.ops.depthwise import DepthwiseConv
from cnnkern.ops.layout import Flatten, Reshape, ZeroPadding
from cnnkern.ops.merge import Add, Concatenate
from cnnkern.ops.pool import MaxPool
from cnnkern.passes import optimise
from cnnkern.plan import Constants, Lowering, Plan, make_plan
from support import evaluate, graph_of, images, run_kernels, small_cnn

RELU = Activation("relu")


def plan_of(graph: Graph, *shapes: tuple[int, ...]) -> Plan:
    return make_plan(graph, dict(zip(graph.inputs, shapes, strict=True)), Constants())


def normal(*shape: int) -> Array:
    return np.random.default_rng(2).standard_normal(shape, np.float32)


def test_the_smallest_plan_by_hand() -> None:
    """One step, which writes over its input: the arena is the input, a cache line."""
    plan = plan_of(graph_of({"x": (None, 3)}, [("y", RELU, ("x",))]), (2, 3))
    assert [(step.node, step.kernel, step.n_tiles) for step in plan.steps] == [
        ("y", "f32_map", 1)
    ]
    assert (plan.arena_nbytes, plan.offsets) == (64, {"x": 0})


def test_an_input_with_two_readers_is_not_overwritten() -> None:
    x = normal(2, 3)
    graph = graph_of({"x": (None, 3)}, [("r", RELU, ("x",)), ("y", Add(), ("x", "r"))])
    np.testing.assert_array_equal(run_kernels(graph, x), evaluate(graph, x))


def test_outputs_are_not_overwritten() -> None:
    """Each output is also read by an op that works in place."""
    graph = graph_of(
        {"x": (None, 3)},
        [("a", RELU, ("x",)), ("b", Activation("tanh"), ("a",)), ("c", RELU, ("b",))],
        "x", "a", "b", "c",
    )  # fmt: skip
    x = normal(4, 3)
    for got, expected in zip(run_kernels(graph, x), evaluate(graph, x), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_views_keep_their_storage_alive() -> None:
    """`y` reads the flat view of `x` long after the last reader of `x` itself."""
    steps = [
        ("flat", Flatten(), ("x",)),
        ("a", Dense(normal(12, 12)), ("flat",)),
        ("b", Dense(normal(12, 12)), ("a",)),
        ("c", Reshape((2, 2, 3)), ("flat",)),
        ("y", Concatenate(), ("b", "flat")),
    ]
    graph, x = graph_of({"x": (None, 2, 2, 3)}, steps, "y", "c"), normal(2, 2, 2, 3)
    for got, expected in zip(run_kernels(graph, x), evaluate(graph, x), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_a_view_of_a_tensor_with_a_halo_is_a_copy() -> None:
    conv = Conv(normal(3, 3, 2, 2), padding="same")
    graph = graph_of(
        {"x": (None, 4, 4, 2)},
        [
            ("f", Flatten(), ("x",)),
            ("c", conv, ("x",)),
            ("g", Flatten(), ("c",)),
            ("y", Add(), ("f", "g")),
        ],
    )
    x = normal(2, 4, 4, 2)
    np.testing.assert_allclose(
        run_kernels(graph, x)[0], evaluate(graph, x)[0], rtol=1e-4, atol=1e-5
    )


def test_two_readers_share_the_widest_halo() -> None:
    steps = [
        ("a", Conv(normal(5, 5, 2, 3), padding="same"), ("x",)),
        ("b", Conv(normal(2, 2, 2, 3), padding="same"), ("x",)),
        ("y", Add(), ("a", "b")),
    ]
    graph, x = graph_of({"x": (None, 6, 7, 2)}, steps), normal(2, 6, 7, 2)
    plan = plan_of(graph, x.shape)
    assert plan.inputs[0].halo == ((0, 0), (2, 2), (2, 2))
    np.testing.assert_allclose(
        run_kernels(graph, x)[0], evaluate(graph, x)[0], rtol=1e-4, atol=1e-4
    )


def test_concatenate_and_padding_write_into_slices() -> None:
    steps = [
        ("p", ZeroPadding(((1, 2), (0, 3))), ("x",)),
        ("c", Concatenate(-2), ("p", "p")),
        ("d", Concatenate(-1), ("c", "c")),
        ("y", Conv(normal(3, 3, 4, 5), padding="same"), ("d",)),
    ]
    graph, x = graph_of({"x": (None, 3, 4, 2)}, steps), normal(2, 3, 4, 2)
    np.testing.assert_allclose(
        run_kernels(graph, x)[0], evaluate(graph, x)[0], rtol=1e-4, atol=1e-5
    )


def test_storages_alive_together_are_apart() -> None:
    plan = plan_of(optimise(small_cnn()), (3, 12, 12, 3))
    for step in plan.steps:
        spans = [(plan.offsets[s], plan.offsets[s] + plan.sizes[s]) for s in step.storages()]
        assert spans
        assert all(a[1] <= b[0] or b[1] <= a[0] for a, b in combinations(spans, 2))
    assert plan.arena_nbytes % 64 == 0
    assert plan.flops > 0


@pytest.mark.parametrize(
    ("op", "n_inputs", "shape"),
    [
        (RELU, 1, (1, 2**40)),
        (ZeroPadding(((10**9, 10**9),)), 1, (8, 1, 3)),
        (Concatenate(), 9, (2**20, 2**10)),
    ],
)
def test_bombs_are_refused_before_memory_is_taken(
    op: Op, n_inputs: int, shape: tuple[int, ...]
) -> None:
    graph = graph_of({"x": (None,) * len(shape)}, [("y", op, ("x",) * n_inputs)])
    with pytest.raises(ResourceLimitError, match="limit of"):
        plan_of(graph, shape)


def test_the_sum_of_activations_is_limited() -> None:
    graph = graph_of({"x": (None, 64)}, [("a", RELU, ("x",)), ("y", Add(), ("x", "a"))])
    with pytest.raises(ResourceLimitError, match="activations of 3072 bytes"):
        make_plan(graph, {"x": (6, 64)}, Constants(), arena_limit=2000)


def test_an_unknown_axis_is_refused() -> None:
    graph = graph_of({"x": (None, None)}, [("y", RELU, ("x",))])
    with pytest.raises(ResourceLimitError, match="not known"):
        make_plan(graph, {}, Constants())


def test_shapes_that_do_not_fit_are_refused() -> None:
    graph = graph_of({"x": (None, 5)}, [("y", Dense(normal(5, 2)), ("x",))])
    with pytest.raises(ShapeError, match=r"\(1, 6\)"):
        plan_of(graph, (1, 6))


def test_unknown_kernel_arguments_are_refused() -> None:
    with pytest.raises(PlanError, match=r"f32_map has no argument \['z'\]"):
        Lowering(Constants()).call("f32_map", 1, z=3)


def test_a_plan_can_be_placed_anywhere() -> None:
    """Two workspaces of one plan hold the same records at different addresses."""
    plan = plan_of(optimise(small_cnn()), (2, 12, 12, 3))
    x, results = images(2), []
    spaces = [Workspace(plan, 1), Workspace(plan, 1)]
    for space in spaces:
        space.inputs[0][...] = x
        space.run()
        results.append(space.outputs[0].copy())
    assert spaces[0].arena.ctypes.data != spaces[1].arena.ctypes.data
    np.testing.assert_array_equal(*results)


def test_every_instruction_set_computes_the_same() -> None:
    graph, x = small_cnn(), images(2)
    (expected,) = evaluate(graph, x)
    for isa in available():
        (y,) = run_kernels(optimise(graph), x, isa=isa)
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


def test_plans_of_one_model_share_their_weights() -> None:
    graph, constants = optimise(small_cnn()), Constants()
    make_plan(graph, {"x": (1, 12, 12, 3)}, constants)
    known = dict(constants.arrays)
    make_plan(graph, {"x": (7, 12, 12, 3)}, constants)
    shared = [key for key, array in known.items() if constants.arrays[key] is array]
    assert shared == list(known)
    assert sum(a.nbytes for a in constants.arrays.values()) < 1.2 * sum(
        a.nbytes for a in known.values()
    )


def kernels(plan: Plan) -> list[str]:
    return [step.kernel for step in plan.steps]


def test_parts_of_a_concatenation_are_written_in_place() -> None:
    """Concatenations of concatenations: only what the caller wrote must be copied."""
    steps = [
        ("a", Conv(normal(1, 1, 3, 4)), ("x",)),
        ("ab", Concatenate(), ("x", "a")),
        ("b", Conv(normal(3, 3, 7, 5), padding="same"), ("ab",)),
        ("y", Concatenate(), ("ab", "b")),
    ]
    graph, x = graph_of({"x": (None, 6, 5, 3)}, steps), normal(2, 6, 5, 3)
    plan = plan_of(graph, x.shape)
    assert kernels(plan).count("f32_move") == 1
    assert {"a", "ab", "b"}.isdisjoint(plan.offsets)
    (got,), (expected,) = run_kernels(graph, x), evaluate(graph, x)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_a_part_that_is_joined_twice_is_copied_once() -> None:
    steps = [
        ("a", Conv(normal(1, 1, 3, 4)), ("x",)),
        ("y", Concatenate(), ("a", "a")),
        ("r", Activation("tanh"), ("a",)),
        ("z", Concatenate(), ("r", "a")),
    ]
    graph, x = graph_of({"x": (None, 4, 4, 3)}, steps, "y", "z"), normal(2, 4, 4, 3)
    for got, expected in zip(run_kernels(graph, x), evaluate(graph, x), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_zero_padding_is_the_halo_of_its_input() -> None:
    steps = [
        ("a", Conv(normal(1, 1, 3, 4)), ("x",)),
        ("p", ZeroPadding(((1, 0), (2, 1))), ("a",)),
        ("y", MaxPool((2, 2), (1, 1)), ("p",)),
    ]
    graph, x = graph_of({"x": (None, 5, 5, 3)}, steps), normal(2, 5, 5, 3)
    assert kernels(plan_of(graph, x.shape)) == ["f32_halo", "f32_conv", "f32_max_pool"]
    np.testing.assert_allclose(run_kernels(graph, x)[0], evaluate(graph, x)[0], rtol=1e-4)


def test_a_residual_that_nobody_else_reads_is_overwritten() -> None:
    steps = [
        ("r", Conv(normal(1, 1, 4, 4)), ("x",)),
        ("c", Conv(normal(3, 3, 4, 4), padding="same", adds_residual=True), ("x", "r")),
        ("y", Dense(normal(4, 4), adds_residual=True), ("x", "c")),
    ]
    graph, x = graph_of({"x": (None, 5, 5, 4)}, steps), normal(2, 5, 5, 4)
    assert set(plan_of(graph, x.shape).offsets) == {"x", "r"}
    np.testing.assert_allclose(
        run_kernels(graph, x)[0], evaluate(graph, x)[0], rtol=1e-4, atol=1e-5
    )


def test_a_residual_with_another_reader_is_kept() -> None:
    steps = [
        ("r", Conv(normal(1, 1, 4, 4)), ("x",)),
        ("c", Conv(normal(1, 1, 4, 4), adds_residual=True), ("x", "r")),
        ("y", Add(), ("c", "r")),
    ]
    graph, x = graph_of({"x": (None, 5, 5, 4)}, steps), normal(2, 5, 5, 4)
    np.testing.assert_allclose(
        run_kernels(graph, x)[0], evaluate(graph, x)[0], rtol=1e-4, atol=1e-5
    )


def test_equal_images_before_depthwise_convolutions_share_one_border() -> None:
    """The second block finds the zeros of the first."""
    steps = [
        ("a", Conv(normal(1, 1, 4, 8)), ("x",)),
        ("b", DepthwiseConv(normal(3, 3, 8, 1), padding="same"), ("a",)),
        ("c", Conv(normal(1, 1, 8, 8)), ("b",)),
        ("y", DepthwiseConv(normal(3, 3, 8, 1), padding="same"), ("c",)),
    ]
    graph, x = graph_of({"x": (None, 5, 5, 4)}, steps), normal(2, 5, 5, 4)
    paired = optimise(graph)
    conv, depthwise = "f32_conv", "f32_depthwise_k3s1"
    expected = ["f32_halo", conv, depthwise, conv, depthwise]
    assert kernels(plan_of(paired, x.shape)) == expected
    np.testing.assert_allclose(
        run_kernels(paired, x)[0], evaluate(graph, x)[0], rtol=1e-4, atol=1e-4
    )


def test_rows_outside_of_the_image_are_left_out() -> None:
    """Without a border along H, infinite filters of rows outside add nothing."""
    filters = normal(3, 3, 4, 1)
    filters[0] = np.inf  # read by no window of the only row of outputs but above the image
    op = DepthwiseConv(filters, strides=(9, 1), padding=((1, 1), (1, 1)))
    assert op.input_halo((1, 5, 5, 4)) == ((0, 0), (0, 0), (1, 1))
    graph, x = graph_of({"x": (None, 5, 5, 4)}, [("y", op, ("x",))]), normal(2, 5, 5, 4)
    (y,) = run_kernels(graph, x)
    assert y.shape == (2, 1, 5, 4)
    assert np.isfinite(y).all()
    np.testing.assert_allclose(y, evaluate(graph, x)[0], rtol=1e-4, atol=1e-5)
