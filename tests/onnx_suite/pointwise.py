"""Nodes without a layout of their own: activations, merges, rows, moved axes."""

from __future__ import annotations

import numpy as np

from cnnkern.graph import Op
from cnnkern.ops.activation import Activation, relu
from cnnkern.ops.dense import Dense
from cnnkern.ops.layernorm import LayerNorm, RMSNorm, UnitNorm
from cnnkern.ops.layout import Flatten, Permute, Reshape
from cnnkern.ops.merge import (
    Add,
    Average,
    Concatenate,
    Divide,
    Maximum,
    Minimum,
    Multiply,
    Subtract,
)
from cnnkern.ops.prelu import PReLU
from cnnkern.ops.softmax import LogSoftmax, Softmax

from .cases import Case
from .translation import Translation, on_samples

PLAIN = {
    "Exp": "exponential", "Mish": "mish", "Relu": "relu", "Sigmoid": "sigmoid",
    "Softplus": "softplus", "Softsign": "softsign", "Tanh": "tanh", "HardSwish": "hard_silu",
}  # fmt: skip
MERGES = {
    "Add": Add, "Div": Divide, "Max": Maximum, "Mean": Average, "Min": Minimum,
    "Mul": Multiply, "Sub": Subtract, "Sum": Add,
}  # fmt: skip
SELU = (1.6732632, 1.0507010)  # alpha and gamma of Klambauer et al. 2017


def activation(case: Case) -> Translation:
    """Apply a function of one element."""
    return on_samples([case.x], _function(case))


def _function(case: Case) -> Op:
    op, attributes = case.node.op_type, case.attributes
    if op in PLAIN:
        return Activation(PLAIN[op])
    if op == "Gelu":
        is_tanh = attributes.get("approximate", "none") == "tanh"
        return Activation("gelu_tanh" if is_tanh else "gelu")
    if op == "Selu":
        values = (attributes.get("alpha", SELU[0]), attributes.get("gamma", SELU[1]))
        case.refuse("selu with other constants", not np.allclose(values, SELU))
        return Activation("selu")
    if op == "HardSigmoid":
        values = (attributes.get("alpha", 0.2), attributes.get("beta", 0.5))
        case.refuse("hard sigmoid of another slope", not np.allclose(values, (1 / 6, 0.5)))
        return Activation("hard_sigmoid")
    if op == "Swish":
        case.refuse("swish with a factor", attributes.get("alpha", 1.0) != 1)
        return Activation("silu")
    if op == "Shrink":
        threshold, bias = attributes.get("lambd", 0.5), attributes.get("bias", 0.0)
        case.refuse("shrink by another bias", bias not in (0, threshold))
        return Activation("soft_shrink" if bias else "hard_shrink", (threshold,))
    alpha = attributes.get("alpha", 0.01 if op == "LeakyRelu" else 1.0)
    if op == "ThresholdedRelu":
        return relu(0.0, threshold=alpha)
    return relu(alpha) if op == "LeakyRelu" else Activation(op.lower(), (alpha,))


def prelu(case: Case) -> Translation:
    """Slopes broadcast to the whole tensor; before opset 7 there was one per channel."""
    alpha = np.asarray(case.input(1))
    if case.opset < 7:
        alpha = alpha.reshape(-1, *(1,) * (case.x.ndim - 2))
    return on_samples([case.x], PReLU(alpha))


def softmax(case: Case) -> Translation:
    """Normalize one axis; before opset 13 `axis` was the first of several."""
    is_old = case.opset < 13
    axis = from_end(case, case.attributes.get("axis", 1 if is_old else -1))
    case.refuse("softmax over several axes", is_old and axis != -1)
    op = LogSoftmax if case.node.op_type == "LogSoftmax" else Softmax
    return on_samples([case.x], op((axis,)))


def merge(case: Case) -> Translation:
    """Combine tensors that are brought to one rank, as NumPy broadcasts."""
    inputs = [np.asarray(x) for x in case.inputs]
    case.refuse("one operand", len(inputs) < 2)
    case.refuse("broadcast attribute", "broadcast" in case.attributes)
    rank = max(x.ndim for x in inputs)
    equal = [x.reshape((1,) * (rank - x.ndim) + x.shape) for x in inputs]
    return on_samples(equal, MERGES[case.node.op_type]())


def concat(case: Case) -> Translation:
    """Join tensors along an axis."""
    axis = from_end(case, case.attributes["axis"])
    return on_samples([np.asarray(x) for x in case.inputs], Concatenate(axis))


def flatten(case: Case) -> Translation:
    """The axes behind the batch become one."""
    axis = case.attributes.get("axis", 1) % max(case.x.ndim, 1)
    case.refuse("flatten to other axes than [N, F]", axis != 1)
    return Translation((Flatten(),), (case.x,), lambda y: y)


def reshape(case: Case) -> Translation:
    """A length of 0 copies the input's, -1 takes what is left."""
    lengths = [int(n) for n in np.asarray(case.input(1))]
    case.refuse("empty tensors", 0 in case.expected.shape)
    target = tuple(case.x.shape[i] if n == 0 else n for i, n in enumerate(lengths))
    return on_samples([case.x], Reshape(target))


def transpose(case: Case) -> Translation:
    """Reorder the axes."""
    perm = case.attributes.get("perm", range(case.x.ndim)[::-1])
    return on_samples([case.x], Permute(tuple(axis + 1 for axis in perm)))


def gemm(case: Case) -> Translation:
    """Multiply by ``alpha * B`` and add ``beta * C`` to each row."""
    a, b, c = case.x, case.input(1), case.input(2)
    assert b is not None
    a = a.T if case.attributes.get("transA", 0) else a
    b = b.T if case.attributes.get("transB", 0) else b
    bias = None
    if c is not None:
        case.refuse("gemm with a bias per row", c.ndim == 2 and c.shape[0] > 1)
        scaled = c.reshape(-1) * np.float32(case.attributes.get("beta", 1.0))
        bias = np.broadcast_to(scaled, b.shape[1])
    weight = b * np.float32(case.attributes.get("alpha", 1.0))
    return Translation((Dense(weight, bias),), (a,), lambda y: y)


def layer_norm(case: Case) -> Translation:
    """Normalize the axes from `axis` on."""
    op = RMSNorm if case.node.op_type == "RMSNormalization" else LayerNorm
    first = from_end(case, case.attributes.get("axis", -1))
    epsilon = case.attributes.get("epsilon", 1e-5)
    return on_samples([case.x], op(tuple(range(first, 0)), epsilon, *case.inputs[1:]))


def unit_norm(case: Case) -> Translation:
    """Scale to unit length."""
    case.refuse("another norm than the Euclidean", case.attributes.get("p", 2) != 2)
    axis = from_end(case, case.attributes.get("axis", -1))
    return on_samples([case.x], UnitNorm((axis,)))


def from_end(case: Case, axis: int) -> int:
    """Return an axis of the first input, counted from the end."""
    return axis if axis < 0 else axis - case.x.ndim


FUNCTIONS = (
    *PLAIN, "Celu", "Elu", "Gelu", "HardSigmoid", "LeakyRelu", "Selu", "Shrink", "Swish",
    "ThresholdedRelu",
)  # fmt: skip
TRANSLATORS = {
    **dict.fromkeys(FUNCTIONS, activation),
    **dict.fromkeys(MERGES, merge),
    "Concat": concat,
    "Flatten": flatten,
    "Gemm": gemm,
    "LayerNormalization": layer_norm,
    "LogSoftmax": softmax,
    "LpNormalization": unit_norm,
    "PRelu": prelu,
    "RMSNormalization": layer_norm,
    "Reshape": reshape,
    "Softmax": softmax,
    "Transpose": transpose,
}
