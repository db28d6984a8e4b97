"""Many masks at once: the same as one by one."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from samtok_data import many_masks, masks
from samtok_data.errors import RecordError
from samtok_data.many_masks import areas, coco_boxes, plain, sound, unpack, unpack_runs
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


def runs_of(mask_HW: NDArray[np.bool_]) -> list[int]:
    """Of the pixels, column by column, background first."""
    pixels = mask_HW.T.ravel().tolist()
    found = [len(list(group)) for _, group in itertools.groupby(pixels)]
    return [0, *found] if pixels[0] else found


def spelt(numbers: list[int], spare: int = 0) -> bytes:
    """A string of numbers, which may have some characters too many each."""
    characters = []
    for number in numbers:
        left, least = number, 1
        while not -16 <= left < 16:
            left, least = left >> 5, least + 1
        groups = [number >> 5 * place & 0x1F for place in range(least + spare)]
        characters += [48 + (group | 0x20) for group in groups[:-1]] + [48 + groups[-1]]
    return bytes(characters)


def differences(runs: list[int]) -> list[int]:
    return [run - runs[place - 2] if place > 2 else run for place, run in enumerate(runs)]


@settings(max_examples=100, deadline=None)
@given(rles=st.lists(_MASKS, max_size=6))
def test_runs_are_those_of_each_mask(rles: list[RLE]) -> None:
    runs, ends, sound_n = unpack_runs(counts_of(rles))
    assert sound_n.all()
    starts = [0, *ends.tolist()]
    expected = [runs_of(masks.decode(rle)) for rle in rles]
    assert [runs[start:end].tolist() for start, end in zip(starts, ends.tolist(), strict=False)] == expected
    assert sound(counts_of(rles), np.array([rle.height * rle.width for rle in rles], np.int64)).all()


def test_runs_are_the_same_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    strings = [b"0T1", b"", b"0S", b"S1" * 30, b"", b"0S1"]
    runs, ends, sound_n = unpack_runs(strings)
    monkeypatch.setattr(many_masks, "_CHARACTERS_AT_ONCE", 4)
    parts = unpack_runs(strings)
    assert [one.tolist() for one in parts] == [runs.tolist(), ends.tolist(), sound_n.tolist()]
    assert [one.dtype for one in parts] == [np.int64, np.int64, np.bool_]
    assert [one.shape for one in unpack_runs([])] == [(0,), (0,), (0,)]


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


@settings(max_examples=200, deadline=None)
@given(
    rles=st.lists(_MASKS, min_size=1, max_size=6),
    numbers=st.lists(st.integers(-(2**40), 2**40), max_size=5),
    spare=st.integers(0, 3),
)
def test_numbers_are_read_at_any_length(rles: list[RLE], numbers: list[int], spare: int) -> None:
    """Strings of another spelling between those of masks."""
    strings = [one for rle in rles for one in (rle.counts.encode(), spelt(numbers, spare))]
    found = unpack(strings)
    assert found.is_shortest_n.tolist() == [True, not numbers or spare == 0] * len(rles)
    is_bounded = all(abs(number) <= 2**36 for number in numbers)
    assert found.is_bounded_n.tolist() == [True, is_bounded] * len(rles)
    assert found.is_whole_n.all()
    if is_bounded:
        starts, ends = found.starts_n.tolist()[1::2], found.ends_n.tolist()[1::2]
        read = {tuple(differences(found.runs_r[start:end].tolist())) for start, end in zip(starts, ends, strict=True)}
        assert read == {tuple(numbers)}


@st.composite
def _segmentations(draw: st.DrawFn) -> tuple[list[Any], int, int]:
    """What files may hold of an image's masks: sound RLEs, damaged ones, other spellings and other kinds."""
    rle = draw(_MASKS)
    size = [rle.height, rle.width]
    pixels = rle.height * rle.width
    cuts = sorted(draw(st.lists(st.integers(0, pixels), max_size=8)))
    runs = [after - before for before, after in itertools.pairwise([0, *cuts, pixels])]  # some of no pixel
    strings = [
        spelt(differences(runs), draw(st.integers(0, 2))),
        rle.counts.encode(),
        rle.counts,
        draw(_STRINGS),
        "\u00e9",
        7,
    ]
    objects = [{"size": size, "counts": string} for string in strings]
    others = [
        {"size": tuple(size), "counts": rle.counts},
        {"size": [rle.height + 1, rle.width], "counts": rle.counts},
        {"size": size, "counts": runs},
        {"size": size},
        {"counts": rle.counts},
        [[0, 0, rle.width, 0, rle.width, rle.height]],
        [rle.json, rle.json],
        [],
        None,
        "S1",
    ]
    return draw(st.lists(st.sampled_from(objects + others), max_size=8)), rle.height, rle.width


@settings(max_examples=300, deadline=None)
@given(found=_segmentations())
def test_segmentations_are_read_as_one_by_one(found: tuple[list[Any], int, int]) -> None:
    segmentations, height, width = found

    def read(segmentation: Any) -> Any:
        try:
            rle = masks.read_segmentation(segmentation, height, width)
        except RecordError as error:
            return error.args
        return rle, masks.decode(rle).sum()

    before = copy.deepcopy(segmentations)
    read_together = masks.read_segmentations(segmentations, height, width)
    together = [one.args if isinstance(one, RecordError) else one for one in read_together]
    assert together == [read(one) for one in segmentations]
    assert segmentations == before


def test_only_the_spelling_of_pycocotools_is_plain() -> None:
    """Of 5 x 7 pixels, the first and the eighth are foreground in most."""
    strings = [spelt(differences(runs)) for runs in ([0, 1, 6, 1, 27], [0, 1, 6, 1, 27, 0], [1, 0, 34], [34, 1], [35])]
    strings += [spelt([34, 1], 1), b"", b"0S1p", spelt([34, 2])]
    is_plain_n, areas_n = plain(strings, 35)
    assert is_plain_n.tolist() == [True, False, False, True, False, False, False, False, False]
    assert areas_n[[0, 3]].tolist() == [2, 1]


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
        (spelt([35], spare=10), True),  # of twelve characters
        (spelt([35], spare=11), False),
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
    is_plain_n, areas_n = plain([spelt([0, 35]), *strings, spelt([30, 5])], 35)
    assert (is_plain_n.nonzero()[0].tolist(), areas_n[is_plain_n].tolist()) == ([0, *range(11, 16), 20], [35] * 6 + [5])
