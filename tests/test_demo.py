"""The demonstrations keep what they promise."""

import io

import numpy as np
import pytest
from rich.console import Console

from cnnkern import functional, naive
from cnnkern.demo import digits, seed, seed_keras


@pytest.fixture(scope="module")
def measured() -> digits.Findings:
    return digits.measure(digits.held_out())[1]


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=100)


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_shipped_digits_are_what_the_script_wrote() -> None:
    held_out = digits.held_out()
    assert held_out.images.shape == (360, 8, 8)
    assert held_out.images.max() == digits.PIXEL_MAX
    assert np.bincount(held_out.labels).min() >= 30
    assert held_out.x.shape == (360, 8, 8, 1)
    assert held_out.x.dtype == np.float32


def test_at_least_97_percent_of_the_digits_are_right(measured: digits.Findings) -> None:
    assert measured.accuracy >= 0.97


def test_predictions_match_those_that_keras_stored(measured: digits.Findings) -> None:
    expected = digits.held_out().predictions
    assert measured.difference <= 1e-5 * np.abs(expected).max()
    assert np.abs(measured.y - expected).max() == measured.difference


def test_predictions_match_the_plain_loops(measured: digits.Findings) -> None:
    assert measured.naive_difference <= 1e-5


def test_compiled_is_faster_than_the_loops(measured: digits.Findings) -> None:
    assert measured.naive > 100 * measured.single


def test_digits_demo_prints_summary_accuracy_and_speed(console: Console) -> None:
    digits.main(console)
    text = printed(console)
    for fragment in ("conv_1 (Conv2D)", "6,138", "99.17%", "max|d|", "µs", "Speed-up"):
        assert fragment in text


@pytest.mark.parametrize("functions", [naive, functional], ids=["naive", "compiled"])
def test_seed_network_answers_as_published(functions: object) -> None:
    steps = seed.walk(functions, seed.SAMPLES[:1])
    expected = [[0.00021136, -0.01243627], [0.00040491, -0.0604292]]
    np.testing.assert_allclose(steps["feature map"][0, ..., 0], expected, atol=5e-8)
    np.testing.assert_array_equal(steps["ReLU"], np.maximum(steps["feature map"], 0))
    assert steps["max pooling"].item() == steps["ReLU"].max()
    assert abs(steps["sigmoid"].item() - 0.42994316) <= 1e-7


def test_exact_answer_of_the_seed_network() -> None:
    assert f"{seed.exact_answer(seed.SAMPLES[:1]):.8f}" == "0.42994316"


def test_seed_demo_without_keras_says_how_to_get_it(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seed, "find_spec", lambda name: None)
    seed.main(console)
    text = printed(console)
    assert "0.1111 * 0.1985 + 0.2222 * 0.2760" in text
    assert "exact 0.42994316" in text
    assert "pip install 'cnnkern[keras]'" in text


def test_seed_demo_trains_in_keras_and_all_three_ways_agree(console: Console) -> None:
    model = seed_keras.trained_model()
    by_loops, compiled, expected = seed_keras.predictions(model).values()
    assert expected[0] > 0.5 > expected[1]
    np.testing.assert_allclose(by_loops, expected, atol=1e-6)
    np.testing.assert_allclose(compiled, expected, atol=1e-6)


def test_seed_demo_prints_the_comparison(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    ways = dict.fromkeys(("Naive loops", "Compiled kernels", "model.predict"), seed.LABELS)
    monkeypatch.setattr(seed_keras, "trained_model", lambda: None)
    monkeypatch.setattr(seed_keras, "predictions", lambda model: ways)
    seed_keras.print_comparison(console)
    assert "Largest difference from model.predict: 0.0e+00" in printed(console)
