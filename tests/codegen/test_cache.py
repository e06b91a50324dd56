"""The kernel cache: what is on disk is right, private and current, or it is not used."""

import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

import cnnkern
from cnnkern.codegen import cache
from cnnkern.errors import CacheWarning
from support import run_python

PREDICT = """
import sys, hashlib
from cnnkern import kernels
from cnnkern.engine import Model
from support import images, small_cnn
y = Model(small_cnn())(images(2))
print(hashlib.sha256(y.tobytes()).hexdigest())
print(",".join(kernels.compiled()))
print("numba" in sys.modules)
"""

KILLED_WHILE_SAVING = """
import os, random, signal, time
from cnnkern.codegen import cache

codes = {f"f32_{n}": os.urandom(100_000 << n) for n in range(4)}
for symbol, code in codes.items():
    cache.store(symbol, code)
random.seed(0)
for _ in range(200):
    child = os.fork()
    if child == 0:
        while True:
            for symbol, code in codes.items():
                cache.store(symbol, code)
    time.sleep(random.uniform(0, 0.005))
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert all(cache.load(symbol) == code for symbol, code in codes.items())
print("done")
"""

# The children share one import of Numba; the names of their kernels show who compiled.
AT_ONCE = """
import hashlib, os, sys
import numpy as np
{imports}
from cnnkern import kernels
from cnnkern.ops.pool import MaxPool
from support import graph_of, run_kernels

graph = graph_of({{"x": (None, 9, 9, 5)}}, [("y", MaxPool(), ("x",))])
x = np.random.default_rng(0).standard_normal((2, 9, 9, 5), np.float32)
start, go = os.pipe()
children = []
for number in range(32):
    out, result = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(go)
        os.read(start, 1)  # ends when the parent closes the other end
        (y,) = run_kernels(graph, x)
        line = hashlib.sha256(y.tobytes()).hexdigest() + str(kernels.compiled())
        os.write(result, line.encode())
        os._exit(0)
    os.close(result)
    children.append((child, out))
os.close(go)
lines = []
for child, out in children:
    lines.append(os.read(out, 10_000).decode())
    assert os.waitpid(child, 0)[1] == 0
print(*sorted(set(lines)), sep="\\n")
print("numba" in sys.modules)
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A fresh cache folder, forgotten after the test."""
    monkeypatch.setenv("CNNKERN_CACHE_DIR", str(tmp_path / "kernels"))
    cache.folder.cache_clear()
    yield tmp_path / "kernels"
    cache.folder.cache_clear()


def only_file(root: Path) -> Path:
    (file,) = root.glob("*/*.o")
    return file


def test_what_is_stored_is_loaded(root: Path) -> None:
    assert cache.load("f32_a") is None
    cache.store("f32_a", b"code")
    assert cache.load("f32_a") == b"code"
    assert [file.name for file in root.glob("*/*")] == ["f32_a.o"]


@pytest.mark.parametrize("keep", [0, 1, 31, 32, 33, -1])
def test_a_truncated_file_is_not_loaded(root: Path, keep: int) -> None:
    cache.store("f32_a", b"code")
    file = only_file(root)
    file.write_bytes(file.read_bytes()[:keep])
    assert cache.load("f32_a") is None


@pytest.mark.parametrize("position", [0, 31, 32, 35])
def test_a_changed_byte_is_noticed(root: Path, position: int) -> None:
    cache.store("f32_a", b"code")
    file = only_file(root)
    content = bytearray(file.read_bytes())
    content[position] ^= 1
    file.write_bytes(content)
    assert cache.load("f32_a") is None
    cache.store("f32_a", b"code")
    assert cache.load("f32_a") == b"code"


def test_the_file_of_another_kernel_is_not_loaded(root: Path) -> None:
    cache.store("f32_a", b"code")
    file = only_file(root)
    shutil.copy(file, file.with_name("f32_b.o"))
    assert cache.load("f32_b") is None


def test_folders_are_private(root: Path) -> None:
    cache.store("f32_a", b"code")
    for folder in (root, only_file(root).parent):
        assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_folder_that_others_can_write_is_refused(root: Path, mode: int) -> None:
    root.mkdir()
    root.chmod(mode)
    with pytest.warns(CacheWarning, match="writable by others"):
        assert cache.load("f32_a") is None


def test_the_folder_of_this_version_is_checked_too(root: Path) -> None:
    inner = root / cache.fingerprint()
    inner.mkdir(parents=True, mode=0o700)
    root.chmod(0o700)
    inner.chmod(0o777)
    with pytest.warns(CacheWarning, match="writable by others"):
        assert cache.folder() is None


def test_a_folder_of_another_user_is_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: stranger)
    with pytest.warns(CacheWarning, match="belongs to"):
        assert cache.folder() is None


def test_one_warning_where_no_folder_can_be_made(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root.write_text("a file where the folder should be")
    monkeypatch.setenv("CNNKERN_CACHE_DIR", str(root / "below"))
    with pytest.warns(CacheWarning, match="compiled in memory"):
        assert cache.load("f32_a") is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cache.store("f32_a", b"code")
        assert cache.load("f32_a") is None


def test_a_full_or_read_only_disk_is_no_error(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise OSError("no space left on device")

    cache.store("f32_a", b"code")
    monkeypatch.setattr(os, "replace", refuse)
    cache.store("f32_b", b"code")
    monkeypatch.setattr(tempfile, "mkstemp", lambda **options: refuse())
    cache.store("f32_c", b"code")
    assert [file.name for file in root.glob("*/*")] == ["f32_a.o"]


def test_where_the_cache_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CNNKERN_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache._root() == tmp_path / "xdg" / "cnnkern"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache._root() == tmp_path / "home" / ".cache" / "cnnkern"


def test_no_home_is_one_warning(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("CNNKERN_CACHE_DIR")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.warns(CacheWarning, match="home directory"):
        assert cache.folder() is None


@pytest.mark.parametrize("source", ["codegen/ukernel.py", "kernels/functions.py"])
def test_an_edited_source_is_another_version(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "cnnkern"
    for name in ("codegen", "kernels"):
        shutil.copytree(Path(cnnkern.__file__).parent / name, package / name)
    monkeypatch.setattr(cache, "__file__", str(package / "codegen" / "cache.py"))
    fingerprint, edited = cache.fingerprint.__wrapped__, package / source
    before, text = fingerprint(), edited.read_text()
    edited.write_text(text + "\n")
    assert fingerprint() != before
    edited.write_text(text)
    assert fingerprint() == before


@pytest.mark.parametrize(
    ("what", "value"),
    [("cpu_name", "other"), ("cpu_features", frozenset({"mmx"})), ("version", "0.0")],
)
def test_another_cpu_or_compiler_is_another_version(
    what: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = cache.fingerprint.__wrapped__()
    monkeypatch.setattr(cache, what, lambda *args: value)
    assert cache.fingerprint.__wrapped__() != before


def test_processes_share_the_cache_and_repair_it(tmp_path: Path) -> None:
    """The second process compiles nothing; damaged files are compiled again."""

    def predict() -> tuple[str, list[str], bool]:
        digest, compiled, has_numba = run_python(
            PREDICT, timeout=300, CNNKERN_CACHE_DIR=str(tmp_path)
        ).split("\n")
        return digest, sorted(filter(None, compiled.split(","))), has_numba == "True"

    cold, compiled, _ = predict()
    files = {file.stem: file for file in tmp_path.glob("*/*.o")}
    assert compiled == sorted(files)
    assert predict() == (cold, [], False)

    truncated, randomised, one, other, *_ = compiled
    os.truncate(files[truncated], 100)
    files[randomised].write_bytes(os.urandom(5000))
    (content, files_other) = files[one].read_bytes(), files[other].read_bytes()
    files[one].write_bytes(files_other)
    files[other].write_bytes(content)
    assert predict()[:2] == (cold, sorted([truncated, randomised, one, other]))
    assert predict() == (cold, [], False)


def test_kill_while_saving_leaves_whole_files(tmp_path: Path) -> None:
    assert run_python(KILLED_WHILE_SAVING, CNNKERN_CACHE_DIR=str(tmp_path)) == "done"


@pytest.mark.slow
def test_32_processes_on_a_cold_cache(tmp_path: Path) -> None:
    """All compile, or find what another one has stored; the next round compiles nothing."""

    def predict(imports: str) -> tuple[set[str], list[str], str]:
        code = AT_ONCE.format(imports=imports)
        *lines, has_numba = run_python(
            code, timeout=300, CNNKERN_CACHE_DIR=str(tmp_path)
        ).split("\n")
        return {line[:64] for line in lines}, [line[64:] for line in lines], has_numba

    digests, compiled, _ = predict("import cnnkern.codegen.jit")
    assert len(digests) == 1
    assert any("f32_max_pool" in names for names in compiled)
    assert predict("") == (digests, ["()"], "False")
