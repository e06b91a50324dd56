"""NumpyOp: what it infers from a function, what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from cnnkern.errors import ShapeError, UnsupportedLayerError
from cnnkern.ops.config import LayerConfig
from cnnkern.ops.custom import NumpyOp


def test_by_hand() -> None:
    op = NumpyOp(lambda x: x.sum(axis=(1, 2)))
    x = np.arange(8, dtype=np.float32).reshape(1, 2, 2, 2)
    assert op.reference(x).tolist() == [[12, 16]]
    assert op.infer_shape((None, 2, 2, 2)) == (None, 2)
    assert op.infer_shape((7, 2, 2, 2)) == (7, 2)


def test_a_shape_function_takes_unknown_lengths() -> None:
    op = NumpyOp(lambda x: x[..., ::-1], lambda shape: shape)
    assert op.infer_shape((None, None, None, 3)) == (None, None, None, 3)


def test_without_one_the_lengths_must_be_known() -> None:
    op = NumpyOp(lambda x: x)
    with pytest.raises(ShapeError, match="give NumpyOp a shape function"):
        op.infer_shape((None, None, 3))


@pytest.mark.parametrize("function", [np.sum, lambda x: np.concatenate([x, x])])
def test_the_batch_axis_must_stay(function: object) -> None:
    with pytest.raises(ShapeError, match="returned for a batch of 1"):
        NumpyOp(function).infer_shape((None, 4))  # type: ignore[arg-type]


def test_a_result_for_another_batch_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"returned \(1, 4\), expected \(3, 4\)"):
        NumpyOp(lambda x: x[:1]).reference(np.ones((3, 4), np.float32))


def test_inputs_are_read_only_and_stay_as_they_are() -> None:
    def overwrite(x: np.ndarray) -> np.ndarray:
        x[:] = 0
        return x

    x = np.ones((3, 4), np.float32)
    with pytest.raises(ValueError, match="read-only"):
        NumpyOp(overwrite).reference(x)
    assert x.flags.writeable


def test_no_file_makes_one() -> None:
    config = LayerConfig("layer", "NumpyOp", {})
    with pytest.raises(UnsupportedLayerError, match="only register_layer"):
        NumpyOp.from_keras(config, None, ())  # type: ignore[arg-type]
