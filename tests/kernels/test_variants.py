"""The instruction sets of other CPUs: a child process that takes itself for one of them."""

import subprocess
import sys
from pathlib import Path

import pytest

from support import child_environment

PROBE = "from cnnkern.codegen import isa; print(isa.best().name)"
HERE = Path(__file__).parent


@pytest.mark.parametrize(("cpu", "widest"), [("haswell", "avx2"), ("generic", "generic")])
def test_a_subset_of_the_exact_cases(cpu: str, widest: str, tmp_path: Path) -> None:
    """A cold cache, code for another CPU: same bits, no illegal instruction."""
    environment = child_environment(NUMBA_CPU_NAME=cpu, CNNKERN_CACHE_DIR=str(tmp_path))
    names = [f"{HERE / 'test_exact.py'}::test_equal_to_integers[0]"]
    for arguments, expected in (
        (["-c", PROBE], widest),
        (["-m", "pytest", "-q", "-p", "no:cacheprovider"], "1 passed"),
    ):
        command = [sys.executable, *arguments, *(names if "pytest" in arguments else [])]
        child = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=600, check=False
        )
        assert child.returncode == 0, child.stdout + child.stderr
        assert expected in child.stdout
    kernels = [file.stem for file in tmp_path.glob("*/*.o")]
    assert any(name.endswith(f"__{widest}") for name in kernels)
    assert not any(name.endswith("__avx512f") for name in kernels)
