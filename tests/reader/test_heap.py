import io
import struct

import pytest

from cnnkern.reader.heap import GuardedFile, is_sound_heap


def heap(*objects, size=96):
    """A global heap collection: header, then (index, size) objects, each padded to 8."""
    data = struct.pack("<4sB3xQ", b"GCOL", 1, size)
    for index, n_bytes in objects:
        data += struct.pack("<2H4xQ", index, 1, n_bytes)
        data += bytes(-(-n_bytes // 8) * 8 if index else max(n_bytes - 16, 0))
    return memoryview(data.ljust(size, b"\0")[:size])


def test_objects_that_fill_the_collection_are_sound():
    # 16 header + (16 + 8) + (16 + 16) + 24 unused = 96
    assert is_sound_heap(heap((1, 5), (2, 9), (0, 24)))


@pytest.mark.parametrize(
    "objects",
    [[(1, 5), (0, 0)], [(0, 8)], [(1, 5), (0, 64)], [(1, 2**64 - 16)], [(1, 2**63)]],
    ids=["size 0", "too small", "too long", "wraps to 0", "huge"],
)
def test_objects_that_do_not_are_not(objects):
    data = struct.pack("<4sB3xQ", b"GCOL", 1, 96)
    for index, n_bytes in objects:
        data += struct.pack("<2H4xQ", index, 1, n_bytes)
    assert not is_sound_heap(memoryview(data.ljust(96, b"\0")))


def test_a_first_part_is_sound():
    assert is_sound_heap(heap((0, 0), size=96)[:40])


def test_a_damaged_heap_loses_its_signature():
    sound, damaged = bytes(heap((0, 80))), bytes(heap((0, 0)))
    file = GuardedFile(io.BytesIO(sound + damaged))
    assert file.read(96) == sound
    assert file.read(96) == b"\0\0\0\0" + damaged[4:]
