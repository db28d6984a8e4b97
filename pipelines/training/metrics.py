"""Logged values as rows, and their text: ``metrics.csv``.

One line a logged step; the first column is ``step``, the others stand in the order in which they first had a
value. A cell is empty where a step did not log the column. Numbers are written so that reading them gives the
same number again.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from numbers import Integral
from typing import SupportsFloat

STEP = "step"

Rows = dict[int, dict[str, float]]


def number_of(value: SupportsFloat) -> float:
    """A Python int or float, whatever kind of number (numpy's, a tensor of one element) it came as."""
    return int(value) if isinstance(value, Integral) else float(value)


def columns_of(rows: Iterable[Mapping[str, float]]) -> list[str]:
    """Every column that has a value, in order of first appearance, without ``step``."""
    return list(dict.fromkeys(name for row in rows for name in row))


def format_rows(rows: Mapping[int, Mapping[str, float]]) -> bytes:
    """The CSV file of rows.

    Args:
        rows: values by step, in the order of the steps.
    """
    columns = columns_of(rows.values())
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([STEP, *columns])
    for step, row in rows.items():
        writer.writerow([step, *(repr(number_of(row[name])) if name in row else "" for name in columns)])
    return text.getvalue().encode()


def parse_rows(data: bytes) -> Rows:
    """The rows of a CSV file that ``format_rows`` wrote.

    Raises:
        ValueError: it is cut or was changed; the message names the line.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is no text") from error
    if not text.endswith("\n"):  # a number cut short would still be a number
        raise ValueError("the last line has no end")
    try:
        header, *lines = csv.reader(io.StringIO(text, newline=""))
    except csv.Error as error:
        raise ValueError(str(error)) from error
    if header[:1] != [STEP] or len(set(header)) != len(header):
        raise ValueError(f"line 1: expected columns of different names, {STEP} first, got {','.join(header)[:80]!r}")
    rows: Rows = {}
    last = -1
    for place, cells in enumerate(lines, 2):
        try:
            if len(cells) != len(header):
                raise ValueError(f"expected {len(header)} cells, got {len(cells)}")
            step = int(cells[0])
            if step <= last:
                raise ValueError(f"expected a step after {last}, got {step}")
            rows[step] = {name: _number(cell) for name, cell in zip(header[1:], cells[1:], strict=True) if cell}
        except ValueError as error:
            raise ValueError(f"line {place}: {error}") from error
        last = step
    return rows


def _number(cell: str) -> float:
    return int(cell) if cell.lstrip("-").isdigit() else float(cell)
