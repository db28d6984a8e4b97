"""Many masks at once: the same as one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from samtok_data import many_masks, masks
from samtok_data.errors import RecordError
from samtok_data.many_masks import areas, coco_boxes, sound, unpack_runs
from samtok_data.masks import RLE


@pytest.mark.parametrize("number", [0, 1, 255, 256, 1000])
def test_areas_and_boxes_are_those_of_each_mask(number: int) -> None:
    drawn = np.random.default_rng(number)
    rles = [masks.encode(drawn.random((drawn.integers(1, 9), drawn.integers(1, 9))) < 0.3) for _ in range(number)]
    encoded = [rle.coco for rle in rles]
    assert areas(encoded).tolist() == [masks.area(rle) for rle in rles]
    assert coco_boxes(encoded).tolist() == [list(masks.coco_box(rle)) for rle in rles]
    assert (areas(encoded).dtype, coco_boxes(encoded).shape) == (np.int64, (number, 4))


def counts_of(rles: list[RLE]) -> list[bytes]:
    return [rle.counts.encode() for rle in rles]


_MASKS = arrays(np.bool_, st.tuples(st.integers(1, 40), st.integers(1, 40))).map(masks.encode)
# Characters that strings are made of, and some that they are not; the high ones go on with the number.
_STRINGS = st.binary(max_size=30) | st.text("0123456789:;<=>?@ABCLMNOPQ_`abckmno", max_size=30).map(str.encode)


@settings(max_examples=100, deadline=None)
@given(rles=st.lists(_MASKS, max_size=6))
def test_runs_are_those_of_each_mask(rles: list[RLE]) -> None:
    runs, ends, sound_n = unpack_runs(counts_of(rles))
    assert sound_n.all()
    starts = [0, *ends.tolist()]
    expected = [masks._unpack_runs(rle.counts) for rle in rles]
    assert [runs[start:end].tolist() for start, end in zip(starts, ends.tolist(), strict=False)] == expected
    assert sound(counts_of(rles), np.array([rle.height * rle.width for rle in rles], np.int64)).all()


@settings(max_examples=300, deadline=None)
@given(strings=st.lists(_STRINGS, max_size=6), rle=_MASKS)
def test_what_is_refused_is_what_is_refused_one_by_one(strings: list[bytes], rle: RLE) -> None:
    """A damaged string between sound ones changes nothing for those."""
    strings = [one for string in strings for one in (string, rle.counts.encode())]

    def read(string: bytes) -> bool:
        try:
            masks._read_rle({"size": [rle.height, rle.width], "counts": string}, rle.height, rle.width)
        except RecordError:
            return False
        return True

    found = sound(strings, np.full(len(strings), rle.height * rle.width))
    assert found.tolist() == [read(string) for string in strings]


@pytest.mark.parametrize(
    ("string", "is_sound"),
    [
        (b"0T1", False),  # 0 and 36, of 35
        (b"0S1", True),
        (b"S1", True),  # background only
        (b"", False),
        (b"0S", False),  # cut in a number
        (b"0S1\x00", False),
        (b"0S1p", False),
        (b"S1" + b"P" * 40, False),
        (b"V1M", False),  # 38 and -3
        (b"0" + b"o" * 11 + b"0", False),
    ],
)
def test_strings_of_a_mask_of_35_pixels(string: bytes, is_sound: bool) -> None:
    assert sound([string], np.array([35])).tolist() == [is_sound]
    assert sound([b"S1", string, b"S1"], np.array([35, 35, 35])).tolist() == [True, is_sound, True]


def test_a_mask_needs_pixels() -> None:
    assert sound([b"0", b"", b"0"], np.array([0, 0, -1])).tolist() == [False, False, False]
    assert sound([], np.zeros(0, np.int64)).shape == (0,)


def test_long_strings_are_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many_masks, "_CHARACTERS_AT_ONCE", 7)
    strings = [b"S1"] * 10 + [b"0S1"] * 5 + [b"S1" * 30] + [b"S"] + [b"", b"S1"]
    expected = [True] * 15 + [False, False, False, True]
    assert sound(strings, np.full(len(strings), 35)).tolist() == expected
