"""Large JSON files, field by field."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from converters.files.json_stream import fields_of
from samtok_data.errors import SetupError

TEXT = b'{"info": {"a": 1}, "videos": {"x": {"frames": ["0"]}, "y": [1, 2.5, null], "x": "again"}, "more": {"z": 3}}'


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    yield from (data[start : start + size] for start in range(0, len(data), size))


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_fields_of_an_object_come_in_their_order(size: int) -> None:
    found = list(fields_of(pieces(TEXT, size), "a.json", "videos"))
    assert found == [("x", {"frames": ["0"]}), ("y", [1, 2.5, None]), ("x", "again")]
    assert [name for name, _ in fields_of(pieces(TEXT, size), "a.json", "")] == ["info", "videos", "more"]
    assert list(fields_of(pieces(TEXT, size), "a.json", "nothing")) == []


def test_fields_come_as_soon_as_they_are_read() -> None:
    def chunks() -> Iterator[bytes]:
        yield TEXT[:60]
        raise AssertionError("more was read than is needed")

    assert next(fields_of(chunks(), "a.json", "videos"))[0] == "x"


@pytest.mark.parametrize("data", [TEXT[:-3], b"", b"<html>", b'{"videos": }'])
def test_a_file_that_is_no_json_is_named(data: bytes) -> None:
    with pytest.raises(SetupError, match=r"a\.json: no complete JSON: .*fetch it again"):
        list(fields_of(pieces(data, 7), "a.json", "videos"))
