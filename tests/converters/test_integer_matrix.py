"""Matrices of whole numbers as JSON text: the same as a JSON parser reads, or a reject."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.files.integer_matrix import parse_matrix
from samtok_data.errors import RecordError

ROWS = st.integers(1, 6).flatmap(
    lambda width: st.lists(st.lists(st.integers(0, 999_999_999), min_size=width, max_size=width), min_size=1)
)
SEPARATORS = st.sampled_from([(",", ":"), (", ", ": "), (" ,\n\t", ": ")])


@given(ROWS, SEPARATORS, st.sampled_from([None, 1]))
def test_a_matrix_is_read_as_a_json_parser_reads_it(
    rows: list[list[int]], separators: tuple[str, str], indent: int | None
) -> None:
    text = json.dumps(rows, separators=separators, indent=indent)
    found = parse_matrix(f" {text}\r\n".encode(), "a.json")
    assert found.dtype == np.uint32
    assert np.array_equal(found, np.asarray(rows))


def test_rows_that_repeat_are_all_there() -> None:
    rows = [[1, 2], [1, 2], [12, 1], [1, 2], [1, 2]]
    assert parse_matrix(json.dumps(rows).encode(), "a.json").tolist() == rows


BROKEN = {
    "empty": (b"", "got rows in brackets"),
    "no rows": (b"[]", "got rows in brackets"),
    "an empty row": (b"[[]]", "got rows in brackets"),
    "empty rows": (b"[[1], []]", "got rows in brackets"),
    "one dimension": (b"[1, 2]", "got rows in brackets"),
    "three dimensions": (b"[[[1]], [[2]]]", "got brackets that are no row's"),
    "a number beside a row": (b"[[1], 2, [3]]", "got brackets that are no row's"),
    "rows without a comma": (b"[[1] [2]]", ""),
    "two matrices": (b"[[1]] [[2]]", ""),
    "cut": (b"[[1, 2], [3", "got rows in brackets"),
    "cut after a row": (b"[[1, 2]", "got rows in brackets"),
    "no commas": (b"[[1 2], [3 4]]", "got numbers without a comma between"),
    "a break in a number": (b"[[1, 2\n3], [3, 4]]", "got numbers without a comma between"),
    "a comma too many": (b"[[1,, 2]]", "got rows in brackets"),
    "a last comma": (b"[[1, 2,]]", "got rows in brackets"),
    "a first comma": (b"[[,1, 2]]", "got rows in brackets"),
    "a last row": (b"[[1], [2],]", "got rows in brackets"),
    "negative": (b"[[1, -2]]", "it holds b'-'"),
    "a fraction": (b"[[1, 2.5]]", "it holds b'.'"),
    "an exponent": (b"[[1, 2e5]]", "it holds b'e'"),
    "null": (b"[[1, null]]", "it holds b'null'"),
    "a text": (b'[["1"]]', "it holds b'\"\"'"),
    "an object": (b'{"a": [[1]]}', "it holds"),
    "ten digits": (b"[[1, 4294967296]]", "got a number of more than 9 digits"),
    "no text": (b"\x00\xff[[1]]", "it holds"),
    "unequal rows": (b"[[1, 2], [3, 4], [5], [6, 7]]", "row 2 has 1 numbers, the first one 2"),
    "a longer row": (b"[[1], [3, 4]]", "row 1 has 2 numbers, the first one 1"),
}


@pytest.mark.parametrize(("data", "message"), BROKEN.values(), ids=BROKEN)
def test_anything_else_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(RecordError) as caught:
        parse_matrix(data, "a.json")
    assert caught.value.reason == "annotation-unreadable"
    assert caught.value.message.startswith("a.json: expected a matrix of whole numbers, got ")
    assert message in caught.value.message


@given(ROWS, st.integers(0), st.binary(max_size=2), st.integers(0, 3))
def test_what_a_json_parser_refuses_is_refused(rows: list[list[int]], place: int, new: bytes, old: int) -> None:
    """Bytes put in anywhere: nothing is read that means another matrix, or none."""
    data = json.dumps(rows).encode()
    place %= len(data) + 1
    spoilt = data[:place] + new + data[place + old :]
    try:
        found = parse_matrix(spoilt, "a.json").tolist()
    except RecordError:
        return
    assert found == json.loads(re.sub(rb"(?<![0-9])0+(?=[0-9])", b"", spoilt))  # JSON has no numbers as 007
