"""The zip container of a `.keras` file, read in place: nothing is extracted."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections import Counter
from typing import Any

from ..errors import ModelFileError
from .jsontext import MAX_JSON_BYTES, parse_json

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"

MAX_WEIGHT_BYTES = 4 << 30  # three times the largest keras.applications model
MAX_RATIO = 100  # float weights and JSON text compress far less
SMALL_BYTES = 1 << 20  # below this size a high ratio is harmless
MAX_DIRECTORY_BYTES = 1 << 20  # about 10,000 members; zipfile reads it in one piece

_END = struct.Struct("<4s4H2LH")  # end of central directory (APPNOTE.TXT, 4.3.16)
_LOCAL_HEADER_BYTES = 30  # (APPNOTE.TXT, 4.3.7); name and extra lengths at 26 and 28


class Window(io.RawIOBase):
    """Bytes `[start, start + size)` of another file, as a read-only file."""

    def __init__(self, file: io.BufferedReader, start: int, size: int) -> None:
        self.start, self.size = start, size
        self._file, self._at = file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        self._at = max(origin + offset, 0)
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        count = max(min(len(view), self.size - self._at), 0)
        self._file.seek(self.start + self._at)
        n_read = self._file.readinto(view[:count])
        self._at += n_read
        return n_read


def read_archive(
    file: io.BufferedReader,
) -> tuple[dict[str, Any], dict[str, Any], io.BufferedIOBase]:
    """Return the configuration, the metadata and the weights inside a `.keras` archive.

    Parameters
    ----------
    file : binary file
        The archive, open for reading; it must stay open while the weights are read.

    Returns
    -------
    config : dict
        The content of ``config.json``.
    metadata : dict
        The content of ``metadata.json``.
    weights : binary file
        ``model.weights.h5``: a window into the archive, or decompressed in memory.

    Raises
    ------
    ModelFileError
        The archive is damaged, or breaks one of the rules of this module.
    """
    try:
        _check_directory(file)
        with zipfile.ZipFile(file) as archive:
            members = _members(archive)
            _check_ranges(archive, file)
            metadata = parse_json(_read(archive, members[METADATA], MAX_JSON_BYTES), METADATA)
            config = parse_json(_read(archive, members[CONFIG], MAX_JSON_BYTES), CONFIG)
            return config, metadata, _open_weights(archive, members[WEIGHTS], file)
    except (
        zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError,
        KeyError, NotImplementedError, RuntimeError,
    ) as error:  # fmt: skip
        raise ModelFileError(f"damaged zip archive: {str(error)[:200]}") from error


def _check_directory(file: io.BufferedReader) -> None:
    """Refuse a central directory that would take much memory to read."""
    size = file.seek(0, io.SEEK_END)
    tail_size = min(size, _END.size + 0xFFFF)
    file.seek(size - tail_size)
    tail = file.read(tail_size)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0:
        raise ModelFileError("truncated zip archive: it has no central directory")
    directory_size = _END.unpack_from(tail, at)[5]
    if directory_size > MAX_DIRECTORY_BYTES or b"PK\x06\x07" in tail[max(at - 20, 0) : at]:
        raise ModelFileError("the zip directory is too large for a Keras model")


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Return the three members of a Keras archive by name, each checked."""
    counts = Counter(info.filename for info in archive.infolist())
    repeated = [name for name, count in counts.items() if count > 1]
    if repeated:
        raise ModelFileError(f"zip member {repeated[0][:80]!r} occurs twice")
    for name in (CONFIG, METADATA, WEIGHTS):
        if name not in counts:
            raise ModelFileError(f"not a Keras archive: {name} is missing")
    members = {name: archive.getinfo(name) for name in (CONFIG, METADATA, WEIGHTS)}
    for name, info in members.items():
        _check_member(name, info)
    return members


def _check_member(name: str, info: zipfile.ZipInfo) -> None:
    if info.flag_bits & 0x1:
        raise ModelFileError(f"zip member {name} is encrypted")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ModelFileError(f"zip member {name} must be stored or deflated")
    if info.file_size > max(MAX_RATIO * info.compress_size, SMALL_BYTES):
        raise ModelFileError(
            f"zip member {name} claims {info.file_size} bytes in {info.compress_size}"
        )
    limit = MAX_WEIGHT_BYTES if name == WEIGHTS else MAX_JSON_BYTES
    if info.file_size > limit:
        raise ModelFileError(f"zip member {name} is larger than {limit} bytes")


def _check_ranges(archive: zipfile.ZipFile, file: io.BufferedReader) -> None:
    """Refuse members that share bytes: a small file could then expand without end."""
    end = 0
    for info in sorted(archive.infolist(), key=lambda info: info.header_offset):
        if info.header_offset < end:
            raise ModelFileError(f"zip member {info.filename[:80]!r} overlaps another one")
        end = _data_start(info, file) + info.compress_size
    if end > archive.start_dir:
        raise ModelFileError("a zip member overlaps the zip directory")


def _data_start(info: zipfile.ZipInfo, file: io.BufferedReader) -> int:
    file.seek(info.header_offset)
    header = file.read(_LOCAL_HEADER_BYTES)
    name_size, extra_size = struct.unpack_from("<2H", header, 26)
    return info.header_offset + _LOCAL_HEADER_BYTES + int(name_size) + int(extra_size)


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, limit: int) -> bytes:
    with archive.open(info) as member:
        return member.read(limit)


def _open_weights(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, file: io.BufferedReader
) -> io.BufferedIOBase:
    if info.compress_type == zipfile.ZIP_DEFLATED:
        return io.BytesIO(_read(archive, info, MAX_WEIGHT_BYTES))
    with archive.open(info) as member:  # reading to the end compares the checksum
        while member.read(1 << 20):
            pass
    return io.BufferedReader(Window(file, _data_start(info, file), info.file_size))
