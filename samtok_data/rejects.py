"""Rejects: records that could not become samples. Listed as JSON lines beside the shards, never lost."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from samtok_data.errors import Reason, RecordError


@dataclass(frozen=True, slots=True)
class Reject:
    """One record that could not become a sample.

    Attributes:
        key: what its sample would have been called.
        reason: from the closed list.
        message: one sentence: expected, got.
        record: what finds it in the source, as JSON values: the source record itself and its place in the file. Where
            an image could not be used, that stands under ``record`` beside ``image`` and ``bytes``, the image file's
            name and size (null where it is not there).
    """

    key: str
    reason: Reason
    message: str
    record: Any

    @classmethod
    def of(cls, error: RecordError, key: str, record: Any) -> Reject:
        """The reject that an error stands for."""
        return cls(key, error.reason, error.message, record)


def to_lines(rejects: Iterable[Reject]) -> bytes:
    """JSON lines, UTF-8, in the given order; keys of the objects sorted, so that equal rejects are equal bytes."""
    lines = (
        json.dumps(
            {"key": reject.key, "reason": reject.reason, "message": reject.message, "record": reject.record},
            ensure_ascii=False,
            sort_keys=True,
        )
        for reject in rejects
    )
    # Half a surrogate pair of a broken source text is no UTF-8; with a backslash it is JSON's own escape of it.
    return "".join(line + "\n" for line in lines).encode(errors="backslashreplace")


def from_lines(data: bytes) -> list[Reject]:
    """Reads ``to_lines`` back."""
    rows = (json.loads(line) for line in data.splitlines() if line.strip())
    return [Reject(row["key"], row["reason"], row["message"], row["record"]) for row in rows]


def count(rejects: Iterable[Reject]) -> dict[str, int]:
    """How many for each reason, the most frequent first, equal ones by name."""
    counts = Counter(reject.reason for reject in rejects)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
