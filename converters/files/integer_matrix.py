"""A matrix of whole numbers as JSON text, ``[[1, 1, 2], [1, 3, 2]]``, without a Python object for each number."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from samtok_data.errors import RecordError

_SPACE = b" \t\r\n"
_KNOWN = b"0123456789[]," + _SPACE
_MAX_DIGITS = 9  # what 32 bits hold without a look at the number
_SHAPES = bytes(ord("0") if ord("0") <= byte <= ord("9") else ord(" ") for byte in range(256))
_NO_NUMBER = (b",,", b"[,", b",]", b"[]")


def parse_matrix(data: bytes, name: str) -> NDArray[np.uint32]:
    """The numbers of a matrix.

    A web page's rows repeat: one that equals the row above is not parsed again. For 1,080 rows of 1,920 numbers (10 MB)
    that takes at most 0.2 s and 40 MiB beside the text, for 8,000 of 1,280 (42 MB) 0.9 s and 110 MiB
    (``json.loads`` and numpy: 0.3 s and 75 MiB, 1.5 s and 220 MiB).

    Args:
        data: the text. Digits, brackets, commas and white space only; numbers of 9 digits at most.
        name: for messages.

    Returns:
        Shape (rows, columns), at least one of each.

    Raises:
        RecordError: ``annotation-unreadable`` where it is anything else, or its rows are of unequal length.
    """
    rows = _rows(data, name)
    width = rows[0].count(b",") + 1
    matrix_RC = np.empty((len(rows), width), np.uint32)
    above = b""
    for place, row in enumerate(rows):
        if row == above:
            matrix_RC[place] = matrix_RC[place - 1]
            continue
        if row.count(b",") + 1 != width:
            raise _unreadable(name, f"row {place} has {row.count(b',') + 1:,} numbers, the first one {width:,}")
        matrix_RC[place] = np.fromstring(row.decode("ascii"), dtype=np.uint32, sep=",")
        above = row
    return matrix_RC


def _rows(data: bytes, name: str) -> list[bytes]:
    """The rows, each of numbers with single commas between them."""
    if foreign := data.translate(None, _KNOWN):
        raise _unreadable(name, f"it holds {foreign[:20]!r}")
    text = data.translate(None, _SPACE)
    if not (text.startswith(b"[[") and text.endswith(b"]]")) or any(gap in text for gap in _NO_NUMBER):
        raise _unreadable(name, "rows in brackets, with commas between")
    shapes = data.translate(_SHAPES)
    if b"0" * (_MAX_DIGITS + 1) in shapes:
        raise _unreadable(name, f"a number of more than {_MAX_DIGITS} digits")
    if shapes.count(b"0 ") != text.count(b",") + 1:  # "1 2" is 12 without its space
        raise _unreadable(name, "numbers without a comma between")
    del shapes
    rows = text[2:-2].split(b"],[")
    if text.count(b"[") != len(rows) + 1 or text.count(b"]") != len(rows) + 1:
        raise _unreadable(name, "brackets that are no row's")
    return rows


def _unreadable(name: str, what: str) -> RecordError:
    return RecordError("annotation-unreadable", f"{name}: expected a matrix of whole numbers, got {what}")
