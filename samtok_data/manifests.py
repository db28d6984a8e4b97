"""Bookkeeping as JSON; manifests of any number of units, without holding them all as values."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from typing import Any


def json_bytes(value: Any) -> bytes:
    """A value as the bookkeeping writes it: indented, UTF-8, with a last line feed."""
    return f"{_text(value)}\n".encode()


def manifest_bytes(head: Mapping[str, Any], units: Iterable[Any]) -> bytes:
    """The bytes that ``json_bytes({**head, "units": [*units]})`` gives.

    Args:
        head: its other fields.
        units: JSON values, read once; one at a time is held.
    """
    whole = io.BytesIO()
    whole.write(_text({**head, "units": []}).encode().removesuffix(b"]\n}"))
    mark = b"\n  "
    for unit in units:
        whole.write(mark + _text(unit).replace("\n", "\n  ").encode())  # a line feed in a text is written as \n
        mark = b",\n  "
    whole.write(b"]\n}\n" if mark == b"\n  " else b"\n ]\n}\n")
    return whole.getvalue()


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1)
