"""The bench of whole models: what it measures, what it refuses to measure, how it reports."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from bench_models import prepare
from cnnkern.demo.digits import MODEL_FILE, held_out
from peers import OURS
from report import cell, merge, ratio
from turns import Case, Row, failure, measure


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """The shipped model with two images, as conversions.py leaves a model."""
    target = tmp_path / "model"
    shutil.copy(MODEL_FILE, target.with_suffix(".keras"))
    np.save(target.with_suffix(".x.npy"), held_out().x[:2])
    np.save(target.with_suffix(".y.npy"), held_out().predictions[:2])
    return target


def test_a_turn_of_each_round_is_timed_call_by_call(target: Path) -> None:
    (row,) = measure(Case("digits", 1, 2), target, [OURS], rounds=2)
    facts = row.summary()
    assert not row.problem
    assert 0 < facts["minimum"] <= facts["median"] < 1
    assert len(row.seconds) % 2 == 0
    assert facts["peak_bytes"] > 1 << 20


def test_a_wrong_result_is_not_timed(target: Path) -> None:
    np.save(target.with_suffix(".y.npy"), 1 - held_out().predictions[:2])
    (row,) = measure(Case("digits", 1, 2), target, [OURS], rounds=1)
    assert row.problem.startswith("wrong result")
    assert "median" not in row.summary()


def test_a_file_that_does_not_load_leaves_its_message(target: Path) -> None:
    target.with_suffix(".keras").write_bytes(b"")
    (row,) = measure(Case("digits", 1, 1), target, [OURS], rounds=1)
    assert "ModelFileError" in row.problem


def test_what_could_not_be_converted_says_why(target: Path) -> None:
    target.with_suffix(".b1.onnx.error").write_text("no such op")
    (row,) = measure(Case("digits", 1, 1), target, ["ONNX Runtime"], rounds=1)
    assert row.problem in ("not converted: no such op", "not installed")


def test_what_a_format_is_made_of_is_converted_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    monkeypatch.setattr("bench_models.convert", lambda _, format, *rest: made.append(format))
    prepare("digits", 1, [OURS, "ncnn", "ONNX Runtime", "MNN"], tmp_path)
    assert made == ["keras", "onnx", "ncnn", "tflite", "mnn"]


def test_failures() -> None:
    assert failure(-9, "text\n") == "died by SIGKILL"
    assert failure(1, "Traceback\nValueError: no\n\n") == "ValueError: no"
    assert failure(1, "") == "no message"


def test_a_case_replaces_its_earlier_rows(tmp_path: Path) -> None:
    path = tmp_path / "models.json"
    merge(path, [Row("a", 1, 1, OURS, "1").summary(), Row("b", 1, 1, OURS, "1").summary()])
    rows = merge(path, [Row("a", 1, 1, OURS, "2").summary()])
    assert [(row["model"], row["version"]) for row in rows] == [("b", "1"), ("a", "2")]
    assert json.loads(path.read_text())["rows"] == rows


def test_ratios_and_cells() -> None:
    rows = [{"runtime": OURS, "median": 2.0}, {"runtime": "x", "median": 3.0}, {"runtime": "y"}]
    assert [ratio(row, rows) for row in rows] == [1.0, 1.5, None]
    assert [cell(v, 1e3) for v in (0.0123456, 1.5, None)] == ["12.3", "1,500", "-"]
