import io
import json
import struct
import zipfile

import pytest

from cnnkern.errors import ModelFileError
from cnnkern.reader.archive import CONFIG, METADATA, WEIGHTS, Window, read_archive

MEMBERS = {METADATA: b"{}", CONFIG: b'{"class_name": "Sequential"}', WEIGHTS: b"weights"}


def archive(members=MEMBERS, compression=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as target:
        for name, data in members.items():
            target.writestr(name, data)
    return file.getvalue()


def read(data):
    config, metadata, weights = read_archive(io.BufferedReader(io.BytesIO(data)))
    assert metadata == json.loads(MEMBERS[METADATA])
    return config, weights.read()


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_reads_config_and_weights(compression):
    assert read(archive(compression=compression)) == ({"class_name": "Sequential"}, b"weights")


def test_other_members_are_ignored():
    read(archive({**MEMBERS, "assets/words.txt": b"a\nb"}))


def test_window_is_a_file_of_its_own():
    window = Window(io.BufferedReader(io.BytesIO(b"0123456789")), 2, 5)
    assert (window.read(), window.read()) == (b"23456", b"")
    assert window.seek(-2, io.SEEK_END) == 3
    assert (window.read(1), window.tell()) == (b"5", 4)
    window.seek(100)
    assert window.read(1) == b""


@pytest.mark.parametrize("name", [CONFIG, METADATA, WEIGHTS])
def test_refuses_a_missing_member(name):
    members = {key: data for key, data in MEMBERS.items() if key != name}
    with pytest.raises(ModelFileError, match=f"{name} is missing"):
        read(archive(members))


@pytest.mark.parametrize("name", [CONFIG, METADATA, WEIGHTS, "assets/a"])
@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_refuses_a_repeated_member(name):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as target:
        for key in (*MEMBERS, name, name):
            target.writestr(key, MEMBERS.get(key, b""))
    with pytest.raises(ModelFileError, match="occurs twice"):
        read(file.getvalue())


def test_refuses_npz_weights():
    with pytest.raises(ModelFileError, match=f"{WEIGHTS} is missing"):
        read(archive({METADATA: b"{}", CONFIG: b"{}", "model.weights.npz": b""}))


def test_refuses_other_compression():
    with pytest.raises(ModelFileError, match="stored or deflated"):
        read(archive(compression=zipfile.ZIP_BZIP2))


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_refuses_a_bomb(name):
    members = {**MEMBERS, name: bytes(4 << 20)}
    with pytest.raises(ModelFileError, match="claims"):
        read(archive(members, zipfile.ZIP_DEFLATED))


def test_refuses_a_long_config():
    config = json.dumps({str(n): n for n in range(800_000)}).encode()
    with pytest.raises(ModelFileError, match="larger than"):
        read(archive({**MEMBERS, CONFIG: config}))


def patch(data, signature, offset, layout, value, occurrence=0):
    """Return `data` with one header field replaced."""
    at = -1
    for _ in range(occurrence + 1):
        at = data.index(signature, at + 1)
    at += offset
    packed = struct.pack(layout, value)
    return data[:at] + packed + data[at + len(packed) :]


def test_refuses_encryption():
    data = patch(archive(), b"PK\x01\x02", 8, "<H", 1)
    with pytest.raises(ModelFileError, match="encrypted"):
        read(data)


def test_refuses_members_that_share_bytes():
    data = patch(archive(), b"PK\x01\x02", 42, "<L", 0, occurrence=1)
    with pytest.raises(ModelFileError, match="overlaps"):
        read(data)


def test_refuses_a_wrong_checksum():
    with pytest.raises(ModelFileError, match="CRC"):
        read(archive().replace(b"weights", b"wEights", 2).replace(b"wEights.h5", b"weights.h5"))


@pytest.mark.parametrize(
    ("offset", "value"),
    [(12, 1 << 30), (16, 1 << 30), (8, 60_000)],
    ids=["size", "at", "count"],
)
def test_refuses_a_wrong_directory(offset, value):
    layout = "<H" if offset == 8 else "<L"
    data = patch(archive(), b"PK\x05\x06", offset, layout, value)
    try:
        assert read(data)[1] == b"weights"  # the count alone is not used
        assert offset == 8
    except ModelFileError:
        assert offset != 8


@pytest.mark.parametrize("part", range(1, 64))
def test_refuses_truncations(part):
    data = archive()
    with pytest.raises(ModelFileError):
        read(data[: len(data) * part // 64])
