"""Rewrites of a graph that keep its meaning: each a pure function Graph -> Graph.

PASSES gives their order; `optimise` runs them and verifies the graph after each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from .codegen.isa import NARROW_COLUMNS
from .graph import Graph, Node, Op, as_array
from .ops.activation import Activation
from .ops.conv import Conv
from .ops.dense import Dense
from .ops.depthwise import DepthwiseConv
from .ops.layout import Identity, ZeroPadding
from .ops.merge import Add, Multiply, ScaledAdd
from .ops.norm import Affine, BatchNorm, Normalization
from .ops.pairs import ConvInBands, GatedConv, PooledConv, is_gate
from .ops.pool import AveragePool, GlobalAveragePool, GlobalPool, MaxPool, Pool
from .ops.prelu import PReLU
from .ops.transpose import ConvTranspose
from .permutes import sink_permutes

# Ops that end in an epilogue: an affine map whose output channels can be scaled.
Linear = Conv | ConvTranspose | Dense | DepthwiseConv

INT24_MIN_NBYTES = 8 << 20  # of a matrix that no cache keeps beside the rest of a model
STRASSEN_MIN_CHANNELS = 128  # with fewer, additions cost more than the products they save
PRECISIONS = ("fast", "strict")


def optimise(graph: Graph, precision: str = "fast") -> Graph:
    """Return the graph that the planner sees.

    With "strict" every convolution sums its products directly, of what Keras multiplies; "fast"
    may use Winograd's and Strassen's algorithms, fold scales ahead and round large matrices to
    24 bits, which rounds worse.
    """
    fast = (fold_scales_ahead, allow_transforms) if precision == "fast" else ()
    for rewrite in (*PASSES, *fast, pair_with_readers, pair_with_tiles, gate_convolutions):
        graph = rewrite(graph).verify()
    return graph


def drop_identities(graph: Graph) -> Graph:
    """Let the readers of an identity read its input."""
    stands_for: dict[str, str] = {}
    kept = []
    for node in graph.nodes:
        inputs = tuple(stands_for.get(name, name) for name in node.inputs)
        if isinstance(node.op, Identity) and node.name not in graph.outputs:
            (stands_for[node.name],) = inputs
        else:
            kept.append(replace(node, inputs=inputs))
    return replace(graph, nodes=tuple(kept))


def recognise_hard_sigmoid(graph: Graph) -> Graph:
    """Make ``relu6(x + 3) * (1/6)``, as MobileNetV3 in Keras writes it, one activation."""

    def rule(*ops: Op) -> Op | None:
        shift, clip, scale = ops
        is_shift = isinstance(shift, Add) and shift.scalar == 3
        is_clip = isinstance(clip, Activation) and clip.bounds == (0, 6)
        is_scale = isinstance(scale, Multiply) and scale.scalar == 1 / 6
        return Activation("hard_sigmoid") if is_shift and is_clip and is_scale else None

    return _fuse_chains(graph, 3, rule)


def fold_padding(graph: Graph) -> Graph:
    """Make ZeroPadding in front of an unpadded convolution the convolution's own padding."""

    def rule(first: Op, second: Op) -> Op | None:
        if not isinstance(first, ZeroPadding) or not isinstance(second, Conv | DepthwiseConv):
            return None
        return replace(second, padding=first.padding) if second.padding == "valid" else None

    return _fuse_chains(graph, 2, rule)


def share_equal_nodes(graph: Graph) -> Graph:
    """Compute once what several nodes compute from the same tensors without weights."""
    stands_for: dict[str, str] = {}
    known: dict[tuple[Op, tuple[str, ...]], str] = {}
    kept = []
    for node in graph.nodes:
        inputs = tuple(stands_for.get(name, name) for name in node.inputs)
        key = (node.op, inputs)
        first = known.setdefault(key, node.name) if node.op.is_value else node.name
        if first == node.name or node.name in (*graph.inputs, *graph.outputs):
            kept.append(replace(node, inputs=inputs))
        else:
            stands_for[node.name] = first
    return replace(graph, nodes=tuple(kept))


def merge_scales(graph: Graph) -> Graph:
    """Make neighbouring scales and shifts one: images are often rescaled, then normalized."""

    def rule(first: Op, second: Op) -> Op | None:
        if not isinstance(first, Affine) or not isinstance(second, Affine | Normalization):
            return None
        numbers = [v.astype(np.float64) for op in (first, second) for v in op.scale_and_shift()]
        if first.activation is not None or not all(np.isfinite(v).all() for v in numbers):
            return None
        scale, shift, then_scale, then_shift = numbers
        return Affine(
            as_array(scale * then_scale),
            as_array(shift * then_scale + then_shift),
            getattr(second, "activation", None),
        )

    return _fuse_chains(graph, 2, rule)


def pool_before_scales(graph: Graph) -> Graph:
    """Scale what a pooling leaves instead of what it reads, where that is the same.

    Many networks normalize between an activation and a pooling. The larger of two numbers
    stays the larger one under a positive scale, and rounding keeps their order. (A window of
    NaN alone, which gives the lowest float32, gives that one scaled.)
    """
    shapes, private = graph.shapes(), graph.private_tensors()
    done: dict[str, Node] = {}
    for node in graph.nodes:
        done[node.name] = node
        if not isinstance(node.op, Pool | GlobalPool):
            continue
        before = done[node.inputs[0]]
        scaled = _scaled_after(node.op, before.op, shapes[node.name][-1])
        if scaled is not None and before.name in private:
            done[before.name] = replace(before, op=node.op)
            done[node.name] = replace(node, op=scaled)
    return replace(graph, nodes=tuple(done.values()))


def _scaled_after(pool: Op, scale: Op, C: int | None) -> Affine | None:
    """Return what to do after `pool` instead of `scale` before it, if there is such."""
    if not isinstance(scale, BatchNorm | Affine) or scale.activation is not None or C is None:
        return None
    factors = scale.per_channel(C)
    if factors is None or not np.isfinite(factors).all():
        return None
    keeps_order = isinstance(pool, AveragePool | GlobalAveragePool) or (factors[0] > 0).all()
    return Affine(*factors) if keeps_order else None


def fold_scales(graph: Graph) -> Graph:
    """Multiply the scale of a BatchNorm or Affine into the filters in front, add its shift."""

    def rule(first: Op, second: Op) -> Op | None:
        if not isinstance(first, Linear) or not isinstance(second, BatchNorm | Affine):
            return None
        factors = second.per_channel(first.out_channels)
        is_affine = first.activation is None and not getattr(first, "adds_residual", False)
        if factors is None or not is_affine or not np.isfinite(factors).all():
            return None
        return first.scaled(*factors)

    return _fuse_chains(graph, 2, rule)


def fold_branch_scales(graph: Graph) -> Graph:
    """Multiply the scale of a ScaledAdd into the convolution that it scales."""
    private = graph.private_tensors()
    done: dict[str, Node] = {}
    for node in graph.nodes:
        done[node.name] = node
        if not isinstance(node.op, ScaledAdd):
            continue
        branch = done[node.inputs[1]]
        if not isinstance(branch.op, Linear) or branch.name not in private:
            continue
        if branch.op.activation is None:
            scale = np.full(branch.op.out_channels, node.op.scale, np.float32)
            done[branch.name] = replace(branch, op=branch.op.scaled(scale, 0 * scale))
            done[node.name] = replace(node, op=Add())
    return replace(graph, nodes=tuple(done.values()))


def fold_scales_ahead(graph: Graph) -> Graph:
    """Multiply the scale of a BatchNorm or Affine into the filters that alone read it.

    What is padded then is no zero, but what the scale would make zero. It stands around what
    the scale reads, and so nobody else may read that.
    """
    private = graph.private_tensors()
    done: dict[str, Node] = {}

    def without_scale(node: Node) -> Node | None:
        name, *others = node.inputs
        scale = done[name].op
        if not isinstance(node.op, Conv) or not isinstance(scale, BatchNorm | Affine):
            return None
        if scale.activation is not None or name not in private:
            return None
        (source,) = done[name].inputs
        factors = scale.per_channel(node.op.in_channels)
        op = None if factors is None else node.op.of_scaled(*factors)
        has_room = source in private and done[source].op.joined_axis is None
        if op is None or not (op.border is None or has_room):
            return None
        return Node(node.name, op, (source, *others))

    for node in graph.nodes:
        done[node.name] = node
        while node.inputs and (folded := without_scale(done[node.name])):
            del done[done[node.name].inputs[0]]
            done[node.name] = folded
    return replace(graph, nodes=tuple(done.values()))


def fuse_activation(graph: Graph) -> Graph:
    """Let a convolution, matrix product or scale apply the activation that follows it."""

    def rule(first: Op, second: Op) -> Op | None:
        if not isinstance(first, Linear | BatchNorm | Affine) or first.activation is not None:
            return None
        if isinstance(second, PReLU) and isinstance(first, Linear):
            return replace(first, activation=second) if _takes_slopes(first, second) else None
        if not isinstance(second, Activation):
            return None
        can_apply = isinstance(first, Linear) or second.bounds is not None
        return replace(first, activation=second) if can_apply else None

    return _fuse_chains(graph, 2, rule)


def _takes_slopes(op: Linear, prelu: PReLU) -> bool:
    """Tell whether all kernels for `op` can multiply what is negative by a slope per column."""
    is_small = op.is_small if isinstance(op, Conv) else op.out_channels <= NARROW_COLUMNS
    return not is_small and prelu.slopes(op.out_channels) is not None


def fuse_residual(graph: Graph) -> Graph:
    """Let the later of an Add's two operands, if a convolution, add the other one itself."""
    shapes, private = graph.shapes(), graph.private_tensors()
    done: dict[str, Node] = {}
    for node in graph.nodes:
        done[node.name] = node
        is_pair = len(node.inputs) == 2 and len(set(node.inputs)) == 2
        if not isinstance(node.op, Add) or not is_pair:
            continue
        order = list(done)
        earlier, later = sorted(node.inputs, key=order.index)
        op = done[later].op
        is_private = later in private
        is_same = shapes[earlier] == shapes[later]
        if isinstance(op, Conv | Dense) and op.takes_residual and is_private and is_same:
            fused = Node(
                node.name, replace(op, adds_residual=True), (*done[later].inputs, earlier)
            )
            del done[later], done[node.name]
            done[node.name] = fused
    return replace(graph, nodes=tuple(done.values()))


def allow_transforms(graph: Graph) -> Graph:
    """Let convolutions and matrix products with enough channels do with fewer products.

    Large matrices may be rounded to 24 bits, where few rows make memory the limit.
    """

    def allowed(op: Op) -> Op:
        if isinstance(op, Dense) or (isinstance(op, Conv) and op.is_pointwise):
            C, OC = (op.weight if isinstance(op, Dense) else op.filter).shape[-2:]
            has_channels = min(C, OC) >= STRASSEN_MIN_CHANNELS
            is_large = 4 * C * OC >= INT24_MIN_NBYTES
            return replace(op, may_transform=has_channels, may_round=is_large)
        if not isinstance(op, Conv | ConvTranspose):
            return op
        is_wide = op.out_channels > NARROW_COLUMNS
        return replace(op, may_transform=is_wide and op.has_winograd_tiles)

    nodes = (replace(node, op=allowed(node.op)) for node in graph.nodes)
    return replace(graph, nodes=tuple(nodes))


def pair_with_readers(graph: Graph) -> Graph:
    """Make a convolution and the depthwise one or the pooling that alone reads it one op.

    Where the convolution may take Winograd's tiles, that is a pooling which divides them.
    Poolings whose windows overlap save too little for the rows that threads compute twice, as
    do dilated filters.
    """

    def rule(first: Op, second: Op) -> Op | None:
        if not isinstance(first, Conv) or not isinstance(second, DepthwiseConv | Pool):
            return None
        if first.adds_residual or first.groups > 1:
            return None
        if isinstance(second, MaxPool) and PooledConv.joins(first, second):
            return PooledConv(first, second)
        if isinstance(second, Pool):
            reads_once = second.pool_size[0] <= second.strides[0]
        else:
            is_dense = max(second.dilation_rate) == 1
            reads_once = is_dense and second.in_channels == second.out_channels
        may_band = _is_dense_2d(first) and reads_once and not first.may_tile
        return ConvInBands(first, second) if may_band else None

    return _fuse_chains(graph, 2, rule)


def pair_with_tiles(graph: Graph) -> Graph:
    """Make a convolution and the one in Winograd's tiles that alone reads it one op."""

    def rule(first: Op, second: Op) -> Op | None:
        if not isinstance(first, Conv) or not isinstance(second, Conv | PooledConv):
            return None
        last = second.conv if isinstance(second, PooledConv) else second
        adds = first.adds_residual or last.adds_residual
        if adds or first.groups > 1 or first.may_transform or last.border is not None:
            return None
        may_band = last.may_tile and _is_dense_2d(first) and _is_dense_2d(last)
        return ConvInBands(first, second) if may_band else None

    return _fuse_chains(graph, 2, rule)


def _is_dense_2d(conv: Conv) -> bool:
    return len(conv.sizes) == 2 and max(conv.dilation_rate) == 1


def gate_convolutions(graph: Graph) -> Graph:
    """Let a convolution of one tap scale the channels that it alone reads scaled."""
    shapes, private = graph.shapes(), graph.private_tensors()
    done: dict[str, Node] = {}
    for node in graph.nodes:
        done[node.name] = node
        if not isinstance(node.op, Conv) or not node.op.is_pointwise:
            continue
        name, *residual = node.inputs
        scaled = done[name]
        is_product = isinstance(scaled.op, Multiply) and len(scaled.inputs) == 2
        gates = [g for g in scaled.inputs if is_product and is_gate(shapes[g], shapes[name])]
        if name in private and len(gates) == 1:
            (x,) = (i for i in scaled.inputs if i != gates[0])
            del done[name], done[node.name]
            done[node.name] = Node(node.name, GatedConv(node.op), (x, gates[0], *residual))
    return replace(graph, nodes=tuple(done.values()))


PASSES: tuple[Callable[[Graph], Graph], ...] = (
    drop_identities,
    recognise_hard_sigmoid,
    share_equal_nodes,
    sink_permutes,
    fold_padding,
    fold_scales,
    fold_branch_scales,
    fuse_residual,
    pool_before_scales,
    merge_scales,
    fuse_activation,
)


def _fuse_chains(graph: Graph, length: int, rule: Callable[..., Op | None]) -> Graph:
    """Replace `length` nodes, each the next one's only input, by the op that `rule` gives.

    They must have no other reader. The fused node keeps the last one's name.
    """
    private = graph.private_tensors()
    done: dict[str, Node] = {}
    for node in graph.nodes:
        done[node.name] = node
        chain = [node]
        while len(chain) < length and len(chain[0].inputs) == 1:
            before = done[chain[0].inputs[0]]
            if before.name not in private:
                break
            chain.insert(0, before)
        op = rule(*(link.op for link in chain)) if len(chain) == length else None
        if op is not None:
            for link in chain:
                del done[link.name]
            done[node.name] = Node(node.name, op, chain[0].inputs)
    return replace(graph, nodes=tuple(done.values()))
