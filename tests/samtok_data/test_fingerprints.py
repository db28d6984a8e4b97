"""Fingerprints: same settings, same digest; what changed is named."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samtok_data.errors import SetupError
from samtok_data.fingerprints import Fingerprint

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "ä"]), inner, max_size=3),
    max_leaves=6,
)
all_parts = st.dictionaries(st.sampled_from(["seed", "split", "tokenizer"]), json_values, max_size=3)

PARTS = {"format": 1, "split": "val", "tokenizer": {"spec": "small", "config": {"depth": 2, "size": 256}}, "seed": None}


def test_a_digest_of_known_value() -> None:
    """Whoever changes this makes every run that was begun impossible to resume."""
    assert Fingerprint(PARTS).digest == "e8cae07347e59ed0e8d1090aac187e93d0c94cacf7e7f64c30f7c033044e45e4"


def test_the_digest_does_not_depend_on_the_order_of_names() -> None:
    again = json.loads(json.dumps(PARTS, sort_keys=True))
    assert list(again) != list(PARTS)
    assert Fingerprint(again).digest == Fingerprint(PARTS).digest


@given(all_parts)
def test_a_fingerprint_survives_json(parts: dict[str, Any]) -> None:
    fingerprint = Fingerprint(parts)
    copy = Fingerprint(json.loads(json.dumps(parts)))
    assert copy.digest == fingerprint.digest
    assert fingerprint.differences(copy) == []
    fingerprint.require_same(copy, "out")


@given(all_parts, all_parts)
def test_digests_differ_exactly_where_something_is_named(before: dict[str, Any], now: dict[str, Any]) -> None:
    earlier, later = Fingerprint(before), Fingerprint(now)
    changes = later.differences(earlier)
    assert (earlier.digest == later.digest) == (changes == [])
    assert len(earlier.differences(later)) == len(changes)


LONG = "x" * 200


@pytest.mark.parametrize(
    ("before", "now", "changes"),
    [
        pytest.param({"seed": 1}, {"seed": 1}, [], id="none"),
        pytest.param({"seed": 1}, {"seed": 2}, ["seed was 1, is 2"], id="a-value"),
        pytest.param({"a": 1}, {"a": "1"}, ['a was 1, is "1"'], id="a-type"),
        pytest.param({"a": None}, {}, ["a was null, is nothing"], id="a-value-less"),
        pytest.param({}, {"a": "猫"}, ['a was nothing, is "猫"'], id="a-value-more"),
        pytest.param({"a": {"b": {"c": 1}}}, {"a": {"b": {"c": 2}}}, ["a.b.c was 1, is 2"], id="nested"),
        pytest.param({"a": {"b": 1}}, {"a": 1}, ["a was nothing, is 1", "a.b was 1, is nothing"], id="nesting"),
        pytest.param({"a": {}}, {}, ["a was {}, is nothing"], id="an-empty-mapping"),
        pytest.param({"a": [1, 2]}, {"a": [2, 1]}, ["a was [1, 2], is [2, 1]"], id="a-list"),
        pytest.param({"b": 1, "a": 1}, {"b": 2, "a": 2}, ["a was 1, is 2", "b was 1, is 2"], id="sorted"),
        pytest.param(
            {"a": LONG + "1"},
            {"a": LONG + "2"},
            [f'a was "{LONG[:76]}..., is "{LONG[:76]}...'],
            id="long-values-that-differ-at-their-end",
        ),
    ],
)
def test_what_changed_is_named(before: dict[str, Any], now: dict[str, Any], changes: list[str]) -> None:
    assert Fingerprint(now).differences(Fingerprint(before)) == changes


def test_another_run_is_refused_with_everything_that_differs_and_the_ways_out() -> None:
    now = Fingerprint({**PARTS, "split": "train", "seed": 7})
    with pytest.raises(SetupError) as caught:
        now.require_same(Fingerprint(PARTS), "s3://bucket/gres/val")
    assert str(caught.value) == (
        's3://bucket/gres/val holds a run with other settings: seed was null, is 7; split was "val", is "train". '
        "Give the earlier settings to resume it, choose another --out, or --overwrite to delete it"
    )
