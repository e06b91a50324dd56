"""Nodes of ONNX, an independent definition of the same layers, by kernels and references."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest

from . import pointwise, spatial
from .cases import Case, Outside, cases
from .translation import Translation

TRANSLATORS = {**spatial.TRANSLATORS, **pointwise.TRANSLATORS}
# Of each type, how many cases are equal, and how many are left out for which reason.
COUNTS: dict[str, tuple[int, dict[str, int]]] = {
    "Add": (2, {"not float32": 10}),
    "AveragePool": (17, {"dilated pooling": 2, "pooling with ceil_mode": 6}),
    "BatchNormalization": (7, {"training": 2}),
    "Celu": (1, {"not float32": 2}),
    "Concat": (13, {}),
    "Conv": (33, {}),
    "ConvTranspose": (12, {"transposed convolution in groups": 2}),
    "Div": (3, {"not float32": 7}),
    "Elu": (4, {}),
    "Exp": (3, {}),
    "Flatten": (4, {"flatten to other axes than [N, F]": 7}),
    "Gelu": (4, {}),
    "Gemm": (11, {"gemm with a bias per row": 1}),
    "GlobalAveragePool": (2, {}),
    "GlobalMaxPool": (2, {}),
    "GroupNormalization": (2, {}),
    "HardSigmoid": (0, {"hard sigmoid of another slope": 3}),
    "HardSwish": (1, {}),
    "InstanceNormalization": (3, {}),
    "LayerNormalization": (19, {}),
    "LeakyRelu": (5, {}),
    "LogSoftmax": (10, {}),
    "LpNormalization": (3, {"another norm than the Euclidean": 3}),
    "Max": (4, {"not float32": 10, "one operand": 1}),
    "MaxPool": (19, {"dilated pooling": 5, "not float32": 1, "pooling with ceil_mode": 3}),
    "Mean": (2, {"one operand": 1}),
    "Min": (4, {"not float32": 10, "one operand": 1}),
    "Mish": (1, {}),
    "Mul": (3, {"not float32": 6}),
    "PRelu": (8, {}),
    "RMSNormalization": (19, {}),
    "Relu": (2, {}),
    "Reshape": (9, {"empty tensors": 1}),
    "Resize": (5, {
        "align_corners coordinates": 3, "antialias with repeated borders": 1,
        "asymmetric coordinates": 2, "cubic coefficient -0.75": 4,
        "keep_aspect_ratio_policy": 4, "nearest_mode ceil": 1,
        "output length is not input length times scale": 10,
        "pytorch_half_pixel coordinates": 1, "tf_crop_and_resize coordinates": 4,
        "ties rounded down": 4,
    }),
    "Selu": (3, {"selu with other constants": 2}),
    "Shrink": (2, {}),
    "Sigmoid": (3, {}),
    "Softmax": (10, {}),
    "Softplus": (3, {}),
    "Softsign": (2, {}),
    "Sub": (3, {"not float32": 6}),
    "Sum": (2, {"one operand": 1}),
    "Swish": (1, {}),
    "Tanh": (3, {}),
    "ThresholdedRelu": (3, {}),
    "Transpose": (8, {}),
    "Upsample": (1, {}),
}  # fmt: skip


def translate(case: Case) -> Translation:
    """Return the ops of a case; raise Outside if Keras has no layers for it."""
    is_float32 = case.x.dtype == case.expected.dtype == np.float32
    case.refuse("not float32", not is_float32)
    return TRANSLATORS[case.node.op_type](case)


@pytest.fixture(scope="module")
def by_type() -> dict[str, list[Case]]:
    """Return the cases of every node type."""
    found = defaultdict(list)
    for case in cases(set(TRANSLATORS)):
        found[case.node.op_type].append(case)
    return found


@pytest.mark.parametrize("op_type", sorted(TRANSLATORS))
def test_node(op_type: str, by_type: dict[str, list[Case]]) -> None:
    n_equal, outside = 0, Counter[str]()
    for case in by_type[op_type]:
        try:
            translation = translate(case)
        except Outside as reason:
            outside[str(reason)] += 1
            continue
        for y in (translation.by_reference(), translation.by_kernels()):
            np.testing.assert_allclose(
                y, case.expected, case.rtol, case.atol, err_msg=case.name, strict=True
            )
        n_equal += 1
    assert (n_equal, outside) == COUNTS[op_type]
