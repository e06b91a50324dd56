"""Options of a Keras layer, read strictly."""

from __future__ import annotations

import pytest

from cnnkern.errors import ModelFileError, UnsupportedLayerError
from cnnkern.ops.config import TENSOR, LayerConfig


def config(**options: object) -> LayerConfig:
    return LayerConfig("conv1", "Conv2D", options)


def test_options_by_hand() -> None:
    c = config(strides=2, size=[3, 4], mode="same", rate=1, flag=False, note=None)
    assert c.ints("strides", 2) == (2, 2)
    assert c.ints("size", 2) == (3, 4)
    assert c.choice("mode", ("valid", "same")) == "same"
    assert c.number("rate") == 1.0
    assert c.flag("flag") is False
    assert c.take("missing", 7) == 7
    c.finish()


def test_training_options_are_dropped() -> None:
    c = config(
        kernel_initializer={}, kernel_regularizer={}, kernel_constraint={},
        activity_regularizer={"class_name": "L2"},
    )  # fmt: skip
    c.ignore_training("kernel")
    c.finish()
    assert c.options == {}


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda c: c.take("x"), "option 'x' is missing"),
        (lambda c: c.ints("a", 2), "a='text' must be an int of at least 1, or 2 of them"),
        (lambda c: c.ints("b", 2), r"b=\[1, 2, 3\] must be"),
        (lambda c: c.ints("c", 2), "c=True must be"),
        (lambda c: c.ints("d", 1), "d=0 must be"),
        (lambda c: c.integer("b"), r"b=\[1, 2, 3\] must be an int of at least 1"),
        (lambda c: c.integer("d"), "d=0 must be an int of at least 1"),
        (lambda c: c.number("f"), "f=1000.* must be a finite number"),
        (lambda c: c.number("a"), "a='text' must be a finite number"),
        (lambda c: c.number("e"), "e=inf must be a finite number"),
        (lambda c: c.number("c"), "c=True must be a finite number"),
        (lambda c: c.flag("d"), "d=0 must be true or false"),
    ],
)
def test_malformed_options_name_the_layer(read, message: str) -> None:
    c = config(a="text", b=[1, 2, 3], c=True, d=0, e=float("inf"), f=10**400)
    with pytest.raises(ModelFileError, match=f"Conv2D 'conv1': {message}"):
        read(c)


def test_unsupported_options_name_the_layer() -> None:
    with pytest.raises(UnsupportedLayerError, match="mode='x' is not supported; accepted: 'a'"):
        config(mode="x").choice("mode", ("a", "b"))
    with pytest.raises(UnsupportedLayerError, match="flag=1 is not supported; accepted: False"):
        config(flag=1).choice("flag", (False,))
    with pytest.raises(UnsupportedLayerError, match="extra=3 is not supported; accepted: un"):
        config(extra=3, unset=None, off=False).finish()


def test_long_values_are_cut() -> None:
    with pytest.raises(ModelFileError) as error:
        LayerConfig("x" * 500, "Dense", {"units": "y" * 500}).ints("units", 1)
    assert len(str(error.value)) < 300


def test_tensors_in_messages() -> None:
    assert repr(TENSOR) == "a tensor"
