import pytest

from cnnkern.errors import ModelFileError
from cnnkern.reader.jsontext import MAX_JSON_BYTES, MAX_JSON_DEPTH, parse_json


def test_reads_an_object():
    assert parse_json(b'{"a": [1, 2.5, null, "\\u00e9"]}', "config") == {
        "a": [1, 2.5, None, "é"]
    }


def test_accepts_the_greatest_depth():
    text = '{"a":' * (MAX_JSON_DEPTH - 1) + "{}" + "}" * (MAX_JSON_DEPTH - 1)
    parse_json(text, "config")


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"[]", "not a JSON object"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "Infinity"),
        (b'{"a": 1e999}', "too large"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b'{"a": 1, "a": 2}', "repeats a key"),
        (b'{"b": {"a": 1, "a": 1}}', "repeats a key"),
        (b'{"a": "\xff"}', "not valid JSON"),
        (b'{"a":' * MAX_JSON_DEPTH + b"{}" + b"}" * MAX_JSON_DEPTH, "deeper"),
        (b'{"a":' * 200_000, "not valid JSON"),
        (b'{"a": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", "not valid JSON"),
        (b" " * (MAX_JSON_BYTES + 1), "larger than"),
    ],
    ids=[
        "empty", "truncated", "list", "nan", "infinity", "float", "int", "key", "inner key",
        "utf-8", "depth", "unclosed", "brackets", "size",
    ],
)  # fmt: skip
def test_refuses(text, fragment):
    with pytest.raises(ModelFileError, match=fragment):
        parse_json(text, "config")
