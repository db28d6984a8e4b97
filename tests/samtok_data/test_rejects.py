"""Rejects: listed as JSON lines, counted by reason, and the errors that they come from."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samtok_data.errors import REASONS, RecordError
from samtok_data.rejects import Reject, count, from_lines, to_lines

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
some_rejects = st.builds(Reject, st.text(), st.sampled_from(REASONS), st.text(), json_values)


def test_lines_of_known_bytes() -> None:
    rejects = [
        Reject("ref-1", "mask-empty", "no foreground", {"ref_id": 1, "ann_id": [2]}),
        Reject("ref-2", "record-invalid", "猫\nand \"quotes\"", None),
    ]  # fmt: skip
    assert to_lines(rejects).decode().splitlines() == [
        '{"key": "ref-1", "message": "no foreground", "reason": "mask-empty", "record": {"ann_id": [2], "ref_id": 1}}',
        '{"key": "ref-2", "message": "猫\\nand \\"quotes\\"", "reason": "record-invalid", "record": null}',
    ]
    assert to_lines([]) == b""
    assert from_lines(b"") == from_lines(b"\n\n") == []


@given(st.lists(some_rejects, max_size=4))
def test_rejects_and_their_lines_are_inverse(rejects: list[Reject]) -> None:
    """Half surrogate pairs included, which Hypothesis draws: a broken source text is just what a reject holds."""
    lines = to_lines(rejects)
    assert lines.count(b"\n") == len(rejects)
    assert from_lines(lines) == rejects


@pytest.mark.parametrize(
    "text", ["a\nb", "a\r\nb\r", "\u2028\u2029\x85\x0b\x0c", "\ud83d half", "\udc00", "\U0001f431", "\x00", '"\\n'],
)  # fmt: skip
def test_a_text_that_breaks_lines_stays_on_one(text: str) -> None:
    rejects = [Reject(text, "record-invalid", text, {text: [text]})] * 2
    assert to_lines(rejects).count(b"\n") == 2
    assert from_lines(to_lines(rejects)) == rejects


def test_equal_rejects_are_equal_bytes() -> None:
    one, same = ({"a": 1, "b": 2}, {"b": 2, "a": 1})
    assert to_lines([Reject("k", "mask-size", "m", one)]) == to_lines([Reject("k", "mask-size", "m", same)])


def test_counts_are_ordered_by_number_and_then_by_name() -> None:
    reasons: list[Any] = ["mask-size", "image-missing", "mask-empty", "mask-size", "mask-empty", "crowd-skipped"]
    counts = count(Reject(str(place), reason, "", None) for place, reason in enumerate(reasons))
    assert list(counts.items()) == [("mask-empty", 2), ("mask-size", 2), ("crowd-skipped", 1), ("image-missing", 1)]
    assert count([]) == {}


@pytest.mark.parametrize("reason", REASONS)
def test_an_error_becomes_a_reject_and_survives_pickling(reason: Any) -> None:
    error = pickle.loads(pickle.dumps(RecordError(reason, "mask: expected pixels, got none")))
    assert (error.reason, error.message, str(error)) == (
        reason,
        "mask: expected pixels, got none",
        f"mask: expected pixels, got none [{reason}]",
    )
    assert Reject.of(error, "ref-1", {"ref": 1}) == Reject("ref-1", reason, error.message, {"ref": 1})


def test_the_reasons_are_different_and_lower_case() -> None:
    assert len(set(REASONS)) == len(REASONS) > 10
    assert all(reason == reason.lower() and " " not in reason for reason in REASONS)
