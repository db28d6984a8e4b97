"""Pickles of plain data are read; whatever could run code is refused and does not run."""

from __future__ import annotations

import collections
import os
import pickle
import re
from pathlib import Path
from typing import Any

import pytest

from converters.dialogues import safe_pickle
from samtok_data.errors import SetupError

REFS = [{"ref_id": 904700010881, "sentences": [{"sent": "café ☕", "raw": None}], "box": (1.5, -2, 2**80), "ok": True}]


@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_of_every_protocol_is_read(protocol: int) -> None:
    assert safe_pickle.loads(pickle.dumps(REFS, protocol), "x.p") == REFS


# What Python 2's cPickle wrote for [{'sent': 'caf\xc3\xa9', 'n': 3L}] (protocol 0) and for '\xe9' (protocol 2).
PYTHON_2 = {
    "protocol-0": (b"(lp1\n(dp2\nS'sent'\np3\nS'caf\\xc3\\xa9'\np4\nsS'n'\np5\nL3L\nsa.", [{"sent": "café", "n": 3}]),
    "protocol-2-latin-1": (b"\x80\x02U\x01\xe9q\x01.", "é"),
}


@pytest.mark.parametrize(("data", "value"), PYTHON_2.values(), ids=PYTHON_2)
def test_byte_strings_of_python_2_become_text(data: bytes, value: Any) -> None:
    assert safe_pickle.loads(data, "x.p") == value


class _Runs:
    """A pickle that makes a folder when it is read in the ordinary way."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_runs_a_command_is_refused_and_does_not_run(tmp_path: Path, protocol: int) -> None:
    data = pickle.dumps([_Runs(tmp_path / "ran")], protocol)
    with pytest.raises(SetupError, match=r"^refs\.p: the pickle names (posix|nt)\.mkdir, which is refused"):
        safe_pickle.loads(data, "refs.p")
    assert not (tmp_path / "ran").exists()
    pickle.loads(data)
    assert (tmp_path / "ran").exists()  # it was loaded


REFUSED = {
    "system": (b"cos\nsystem\n(S'echo'\ntR.", "names os.system"),
    "python-2-builtin": (b"c__builtin__\neval\n(S'1'\ntR.", "names __builtin__.eval"),
    "inst": (b"(S'1'\nios\nsystem\n.", "names os.system"),
    "stack-global": (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "names os.system"),
    "container-class": (pickle.dumps(collections.OrderedDict(a=1)), "names collections.OrderedDict"),
    "persistent-id": (b"P1\n.", "refers to an object outside itself"),
}


@pytest.mark.parametrize(("data", "message"), REFUSED.values(), ids=REFUSED)
def test_every_name_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(SetupError, match=re.escape(message)):
        safe_pickle.loads(data, "refs.p")


BROKEN = {
    "empty": b"",
    "json": b'[{"ref_id": 1}]',
    "text": b"hello",
    "zip": b"PK\x03\x04 and so on",
    "html": b"<!DOCTYPE html><html></html>",
    "reduce-of-data": b"(S'f'\n(tR.",
    "build-of-dict": b"}}b(dS'a'\nS'b'\nsb.",
    "stack-empty": b"0.",
    "unknown-extension": b"\x80\x02\x82\x01.",
    "no-utf-8": b"\x80\x02X\x01\x00\x00\x00\xff.",
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_what_is_no_pickle_says_so(data: bytes) -> None:
    with pytest.raises(SetupError, match=r"^refs\.p: no complete pickle \(.*\); the file of [\d,]+ bytes is cut or of"):
        safe_pickle.loads(data, "refs.p")


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_cut_at_any_byte_is_refused(protocol: int) -> None:
    data = pickle.dumps(REFS, protocol)
    for end in range(len(data)):
        with pytest.raises(SetupError, match="no complete pickle"):
            safe_pickle.loads(data[:end], "refs.p")
