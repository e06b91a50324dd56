"""The profile of a small network."""

from __future__ import annotations

import numpy as np
import pytest

from cnnkern import ShapeError
from cnnkern.engine import Model
from support import images, small_cnn


def test_every_step_is_timed_once_and_in_order() -> None:
    model = Model(small_cnn())
    profile = model.profile(images(2), repeats=3)
    planned = model.plan((2, 12, 12, 3)).steps
    assert [step.node for step in profile.steps] == [step.node for step in planned]
    assert [step.flops for step in profile.steps] == [step.flops for step in planned]
    assert all(step.seconds > 0 for step in profile.steps)
    assert profile.seconds == pytest.approx(sum(profile.by_kernel().values()))
    assert profile.peak_gflops > 0


def test_multiply_adds_count_twice() -> None:
    profile = Model(small_cnn()).profile(images(1), repeats=1)
    flops = {step.node: step.flops for step in profile.steps if step.flops}
    assert flops["relu1"] == 2 * 12 * 12 * 20 * (3 * 3 * 3)
    assert flops["y"] == 2 * 6 * 6 * 20 * 10  # the dense layer, with its activation


def test_bytes_are_those_of_tensors_and_filters() -> None:
    profile = Model(small_cnn()).profile(images(1), repeats=1)
    nbytes = {step.node: step.nbytes for step in profile.steps}
    x, y, filters = 14 * 14 * 3, 12 * 12 * 20, 20 * 3 * 3 * 3  # x with zeros around it
    assert 4 * (x + y + filters) <= nbytes["relu1"] <= 1.5 * 4 * (x + y + filters)
    assert all(step.nbytes > 0 for step in profile.steps)


def test_printed_profile_names_steps_and_kernels() -> None:
    text = str(Model(small_cnn()).profile(images(1), repeats=1))
    assert "relu1" in text and "f32_conv" in text and "% of peak" in text


def test_input_is_checked() -> None:
    with pytest.raises(ShapeError, match="expected"):
        Model(small_cnn()).profile(np.zeros((1, 5, 5, 3), np.float32))
