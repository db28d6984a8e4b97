"""JSON files of one image."""

from __future__ import annotations

from pathlib import Path

import pytest

from converters.files.json_files import read_json
from samtok_data.errors import RecordError
from samtok_data.storage import Folder

SOUND = {
    "utf-8": '{"name": "café"}'.encode(),
    "with a mark": b"\xef\xbb\xbf" + '{"name": "café"}'.encode(),
    "latin 1": '{"name": "café"}'.encode("latin-1"),
}


@pytest.mark.parametrize("data", SOUND.values(), ids=SOUND)
def test_the_encoding_is_found(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.json").write_bytes(data)
    assert read_json(Folder(tmp_path), "a.json") == {"name": "café"}


FAULTS = {
    "cut": (b'{"name": ', "annotation-unreadable", "a.json: no JSON that can be read: "),
    "empty": (b"", "annotation-unreadable", "a.json: no JSON that can be read: "),
    "deep": (b"[" * 100_000, "annotation-unreadable", "a.json: no JSON that can be read: "),
    "large": (b" " * 200_000, "annotation-unreadable", "a.json: more bytes than the 100,000 that are read"),
    "missing": (None, "annotation-missing", "a.json: no such JSON file under "),
}


@pytest.mark.parametrize(("data", "reason", "message"), FAULTS.values(), ids=FAULTS)
def test_a_file_that_cannot_be_read_is_a_fault_of_its_record(
    tmp_path: Path, data: bytes | None, reason: str, message: str
) -> None:
    if data is not None:
        (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(RecordError) as caught:
        read_json(Folder(tmp_path), "a.json", most=100_000)
    assert caught.value.reason == reason
    assert message in caught.value.message
