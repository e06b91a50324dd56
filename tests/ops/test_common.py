"""Checks that several op families share."""

from __future__ import annotations

import pytest

from cnnkern.errors import ModelFileError, ShapeError, UnsupportedLayerError
from cnnkern.ops.common import (
    by_rank,
    expect_channels,
    from_end,
    known,
    same_shape,
    spatial_rank,
    take_array,
    take_axes,
    take_pairs,
)
from cnnkern.ops.config import LayerConfig


def config(**options: object) -> LayerConfig:
    return LayerConfig("norm1", "Norm", options)


def test_axes_are_counted_from_the_end() -> None:
    assert from_end(config(), "axis", 3, 4) == -1
    assert from_end(config(), "axis", -2, 4) == -2
    assert take_axes(config(axis=[3, 1]), 4) == (-3, -1)
    assert take_axes(config(axis=None), 4, least=0) == ()


@pytest.mark.parametrize("axis", [4, -5, 1.0, True, "1", None])
def test_what_is_no_axis_is_malformed(axis: object) -> None:
    with pytest.raises(ModelFileError, match=r"Norm 'norm1': axis=.* of 4 axes"):
        from_end(config(), "axis", axis, 4)


@pytest.mark.parametrize("axis", [None, [], [1, -3], [[1]], {}])
def test_what_is_no_list_of_axes_is_malformed(axis: object) -> None:
    with pytest.raises(ModelFileError, match="Norm 'norm1': axis="):
        take_axes(config(axis=axis), 4)


@pytest.mark.parametrize("axis", [0, -4])
def test_the_batch_axis_is_unsupported(axis: int) -> None:
    with pytest.raises(UnsupportedLayerError, match="Norm 'norm1': axis="):
        from_end(config(), "axis", axis, 4)


def test_pairs() -> None:
    assert take_pairs(config(p=1), "p", 2) == ((1, 1), (1, 1))
    assert take_pairs(config(p=[1, 2]), "p", 2) == ((1, 1), (2, 2))
    assert take_pairs(config(p=[[0, 1], [2, 3]]), "p", 2) == ((0, 1), (2, 3))
    assert take_pairs(config(p=[1, 2]), "p", 1) == ((1, 2),)


def test_arrays() -> None:
    assert take_array(config(a=2), "a").shape == ()
    assert take_array(config(a=[[1, 2.5]]), "a").tolist() == [[1, 2.5]]
    numpy = {"class_name": "__numpy__", "config": {"value": [1, 2], "dtype": "float64"}}
    assert take_array(config(a=numpy), "a").tolist() == [1, 2]


def test_shapes() -> None:
    assert known((1, 2)) == (1, 2)
    with pytest.raises(ShapeError, match=r"without unknown axes, got \(None, 2\)"):
        known((None, 2))
    assert same_shape((None, 2), (1, None))
    assert not same_shape((1, 2), (1, 2, 3))
    with pytest.raises(ShapeError, match=r"Conv: expected \[N, W, 8\], got \(1, 2, 3\)"):
        expect_channels("Conv", (1, 2, 3), 1, 8)


def test_names_of_classes() -> None:
    assert spatial_rank("Conv2DTranspose") == 2
    assert by_rank("Conv{}D", ranks=(1, 2)) == ("keras.layers>Conv1D", "keras.layers>Conv2D")
