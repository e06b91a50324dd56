"""Object files on disk: one folder per code version and CPU, one file per kernel.

A file is the SHA-256 digest of the kernel's name and object, followed by the object. It
is written under a temporary name and renamed, so a reader sees a whole file or none; a
file whose digest does not match is compiled again and replaced.
"""

import contextlib
import hashlib
import os
import stat
import tempfile
import warnings
from functools import cache
from importlib.metadata import version
from pathlib import Path

from ..errors import CacheWarning
from .isa import cpu_features, cpu_name

_DIGEST_NBYTES = 32
_SOURCES = ("codegen", "kernels")  # all that decides the code of a kernel


@cache
def fingerprint() -> str:
    """Return a digest of all that decides a kernel's code: sources, compilers, CPU."""
    digest = hashlib.sha256()
    package = Path(__file__).parent.parent
    for folder in _SOURCES:
        for source in sorted((package / folder).glob("*.py")):
            digest.update(source.name.encode() + b"\0" + source.read_bytes())
    for name in ("numba", "llvmlite"):
        digest.update(f"{name}={version(name)}\0".encode())
    digest.update(" ".join((cpu_name(), *sorted(cpu_features()))).encode())
    return digest.hexdigest()[:24]


@cache
def folder() -> Path | None:
    """Return the folder of this version's kernels, or None where none can be used.

    ``CNNKERN_CACHE_DIR``, else ``$XDG_CACHE_HOME/cnnkern``, else ``~/.cache/cnnkern``.
    The folder holds machine code, so it must be ours and not writable by others.
    """
    try:
        root = _root()
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        _require_private(root)
        path = root / fingerprint()
        path.mkdir(mode=0o700, exist_ok=True)
        _require_private(path)
    except (OSError, RuntimeError) as error:
        warnings.warn(
            f"kernels are compiled in memory, the cache cannot be used: {error}",
            CacheWarning,
            stacklevel=2,
        )
        return None
    return path


def load(symbol: str) -> bytes | None:
    """Return the cached object of kernel `symbol`, or None."""
    directory = folder()
    if directory is None:
        return None
    try:
        content = (directory / f"{symbol}.o").read_bytes()
    except OSError:
        return None
    digest, code = content[:_DIGEST_NBYTES], content[_DIGEST_NBYTES:]
    return code if _digest(symbol, code) == digest else None


def store(symbol: str, code: bytes) -> None:
    """Write the object of kernel `symbol`; a full or read-only disk is not an error."""
    directory = folder()
    if directory is None:
        return
    with contextlib.suppress(OSError):
        handle, temporary = tempfile.mkstemp(prefix=symbol, dir=directory)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_digest(symbol, code) + code)
            os.replace(temporary, directory / f"{symbol}.o")
        except OSError:
            os.unlink(temporary)
            raise


def _digest(symbol: str, code: bytes) -> bytes:
    return hashlib.sha256(symbol.encode() + b"\0" + code).digest()


def _root() -> Path:
    if chosen := os.environ.get("CNNKERN_CACHE_DIR"):
        return Path(chosen)
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return Path(xdg) / "cnnkern"
    return Path.home() / ".cache" / "cnnkern"


def _require_private(path: Path) -> None:
    status = path.stat()
    if status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(f"{path} belongs to or is writable by others")
