"""The command line: what it prints, where, and its exit status."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import cnnkern
from cnnkern.cli import app
from cnnkern.demo.digits import MODEL_FILE, held_out
from support import run_python


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture
def digits_npy(tmp_path: Path) -> Path:
    path = tmp_path / "digits.npy"
    np.save(path, held_out().x[:5])
    return path


@pytest.fixture
def digit_png(tmp_path: Path) -> Path:
    path = tmp_path / "digit.png"
    Image.fromarray(held_out().images[0] * 15).save(path)
    return path


@pytest.fixture
def odd_model(tmp_path: Path) -> Path:
    """The digit classifier with the class of one layer and an option of another changed."""
    path = tmp_path / "odd.keras"
    with zipfile.ZipFile(MODEL_FILE) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name == "config.json":
                config = json.loads(content)
                for layer in config["config"]["layers"]:
                    if layer["config"]["name"] == "relu":
                        layer.update(module="mine", registered_name="mine>ReLU")
                    if layer["config"]["name"] == "conv_2":
                        layer["config"]["activation"] = "wiggle"
                content = json.dumps(config).encode()
            target.writestr(name, content)
    return path


def test_version_and_help() -> None:
    assert run("--version").stdout == f"cnnkern {cnnkern.__version__}\n"
    text = run("--help").stdout
    assert "cnnkern predict model.keras images.npy -o probabilities.npy" in text
    for command in ("demo", "summary", "check", "predict", "warmup"):
        assert f" {command} " in text


def test_module_runs_in_a_process_and_imports_little() -> None:
    child = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "cnnkern", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert child.stdout == f"cnnkern {cnnkern.__version__}\n"
    imported = {line.rsplit("|", 1)[-1].strip() for line in child.stderr.splitlines()}
    assert not imported & {"numba", "llvmlite", "h5py", "tensorflow", "keras"}


def test_prediction_imports_neither_numba_nor_tensorflow(digits_npy: Path) -> None:
    run("predict", MODEL_FILE, digits_npy)  # fills the cache
    code = f"""
import sys
from typer.testing import CliRunner
from cnnkern.cli import app
result = CliRunner().invoke(app, ["predict", {str(MODEL_FILE)!r}, {str(digits_npy)!r}])
print(result.exit_code, sorted({{"numba", "tensorflow", "keras"}} & set(sys.modules)))
"""
    assert run_python(code) == "0 []"


def test_summary_lists_layers_and_parameters() -> None:
    result = run("summary", MODEL_FILE)
    assert result.exit_code == 0
    assert "conv_2 (Conv2D)" in result.stdout
    assert "Total params: 6,138 (24.0 KB)" in result.stdout


def test_predict_prints_or_writes_the_result(digits_npy: Path, tmp_path: Path) -> None:
    expected = held_out().predictions[:5]
    assert run("predict", MODEL_FILE, digits_npy).stdout.startswith("float32[5, 10]\n[[")
    output = tmp_path / "y"  # written under exactly this name
    result = run("predict", MODEL_FILE, digits_npy, "-o", output, "--batch-size", 2, "--strict")
    assert (result.exit_code, result.stdout) == (0, "")
    np.testing.assert_allclose(np.load(output), expected, atol=1e-5)


def test_predict_takes_images_as_one_batch(digit_png: Path, tmp_path: Path) -> None:
    output = tmp_path / "y.npy"
    result = run("predict", MODEL_FILE, digit_png, digit_png, "--divide", 240, "-o", output)
    assert result.exit_code == 0
    expected = held_out().predictions[0]
    np.testing.assert_allclose(np.load(output), [expected, expected], atol=1e-5)


def test_predict_resizes_images_only_when_asked(digit_png: Path, tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    with Image.open(digit_png) as image:
        image.convert("RGB").resize((40, 24)).save(large)
    refused = run("predict", MODEL_FILE, large)
    assert refused.exit_code == 2
    assert "large.png: the image is 24x40, the model expects 8x8; --resize" in refused.stderr
    assert run("predict", MODEL_FILE, large, "--resize").exit_code == 0


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("text.png", b"no image", "cannot identify image file"),
        ("short.npy", b"\x93NUMPY\x01", "short.npy: "),
        ("none.npy", None, "none.npy: No such file or directory"),
    ],
)
def test_unreadable_input_is_one_line_on_stderr(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    result = run("predict", MODEL_FILE, tmp_path / name)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_python_objects_in_an_array_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([object()]), allow_pickle=True)
    result = run("predict", MODEL_FILE, tmp_path / "x.npy")
    assert result.exit_code == 2
    assert "allow_pickle=False" in result.stderr


def test_wrong_shape_and_unwritable_output(digits_npy: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "flat.npy", np.zeros((2, 64)))
    result = run("predict", MODEL_FILE, tmp_path / "flat.npy")
    assert result.exit_code == 2
    assert "(2, 64), expected (None, 8, 8, 1)" in result.stderr
    assert run("predict", MODEL_FILE, digits_npy, "-o", tmp_path / "no" / "y").exit_code == 2


def test_check_says_by_its_status_whether_a_model_runs(odd_model: Path, tmp_path: Path) -> None:
    supported = run("check", MODEL_FILE)
    assert (supported.exit_code, supported.stdout.count("supported")) == (0, 1)
    result = run("check", odd_model)
    assert result.exit_code == 1
    for fragment in ("relu", "ReLU", "conv_2", "wiggle", "2 problems"):
        assert fragment in result.stdout
    missing = run("check", tmp_path / "missing.keras")
    assert missing.exit_code == 2
    assert "missing.keras" in missing.stderr


def test_commands_refuse_an_unsupported_model(odd_model: Path) -> None:
    result = run("summary", odd_model)
    assert result.exit_code == 2
    assert "ReLU 'relu'" in result.stderr


def test_warmup_counts_kernels() -> None:
    result = run("warmup")
    assert result.exit_code == 0
    assert "kernels are ready in" in result.stdout


def test_demo_commands() -> None:
    result = run("demo", "digits")
    assert result.exit_code == 0
    assert "99.17%" in result.stdout
    assert run("demo", "other").exit_code == 2
