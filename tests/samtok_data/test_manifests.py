"""Manifests that are written unit by unit."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from samtok_data.manifests import json_bytes, manifest_bytes

texts = st.text(st.characters(exclude_categories=["Cs"]))  # half a surrogate pair has no bytes
values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(texts, below, max_size=3),
)
objects = st.dictionaries(texts, values, max_size=4)


@given(objects, st.lists(objects, max_size=4))
def test_the_bytes_are_those_of_the_whole(head: dict[str, Any], units: list[dict[str, Any]]) -> None:
    head.pop("units", None)
    whole = json.dumps({**head, "units": units}, ensure_ascii=False, indent=1)
    assert manifest_bytes(head, iter(units)) == json_bytes({**head, "units": units}) == f"{whole}\n".encode()
