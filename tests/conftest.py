"""Fixtures for all tests."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from cnnkern.engine import workspace
from cnnkern.engine.threads import get_num_threads, set_num_threads
from cnnkern.ops import winograd

# TensorFlow's own kernels, its default on a CPU without AVX-512, know neither channels_first
# nor dilated transposed convolutions, and lose NaN in MaxPooling3D.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

# No test is timed: a shared machine may stand still for longer than any deadline.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture
def restore_threads() -> Iterator[None]:
    """Leave the number of threads as it was before the test."""
    before = get_num_threads()
    yield
    set_num_threads(before)


@pytest.fixture
def always_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take Winograd's tiles wherever there are enough of them."""
    monkeypatch.setattr(winograd, "MIN_GAIN", 1e-9)


@pytest.fixture
def always_parallel(monkeypatch: pytest.MonkeyPatch, restore_threads: None) -> None:
    """Let every plan use the threads that are set, however small it is."""
    monkeypatch.setattr(workspace, "PARALLEL_FLOPS", -1)
    monkeypatch.setattr(workspace, "STEADY_FLOPS", -1)
