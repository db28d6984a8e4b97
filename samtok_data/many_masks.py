"""Many masks at once: what ``samtok_data.masks`` says of one mask, without a Python call for each.

Letters: n masks; c characters and r runs of all of them, one after the other.
Format facts: pycocotools (cocoapi/common/maskApi.c).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

# pycocotools keeps the number of masks in 8 bits for a moment, and numpy 2 refuses the 256th.
_MASKS_PER_CALL = 255
# Pixels of a run, and the difference of two; more than any picture has, and sums of 100 million of them fit in 64 bits.
_MAX_RUN = 2**36
_CHARACTERS_AT_ONCE = 1 << 18  # some ten arrays of so many numbers are made
_MAX_CHARACTERS = 12  # of a number: they hold any run; without a bound the sums would overflow


def unpack_runs(strings: Sequence[bytes]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Run lengths of COCO's compressed strings: 5 bits a character, offset 48, from the fourth run of a mask on as the
    difference to the run before the last.

    Args:
        strings: of n masks; foreign bytes are allowed.

    Returns:
        The runs of all masks, (r,), some negative where a string is damaged; the end of each mask's runs in it, (n,);
        whether its string can be read: not cut, and without a foreign character, (n,).
    """
    sizes_n = np.fromiter((len(string) for string in strings), np.int64, len(strings))
    string_ends_n = np.cumsum(sizes_n)
    filled_n = np.flatnonzero(sizes_n)
    sound_n = np.ones(len(strings), np.bool_)
    if not filled_n.size:
        return np.zeros(0, np.int64), np.zeros(len(strings), np.int64), sound_n
    bits_c = np.frombuffer(b"".join(strings), np.uint8).astype(np.int64) - 48
    is_end_c = bits_c & 0x20 == 0
    lasts = string_ends_n[filled_n] - 1
    sound_n[filled_n] = is_end_c[lasts]
    is_end_c[lasts] = True  # a cut string must not go on into the next one
    ends_r = np.flatnonzero(is_end_c)
    firsts_r = np.concatenate(([0], ends_r[:-1] + 1))
    lengths_r = ends_r - firsts_r + 1
    run_ends_n = np.searchsorted(ends_r, string_ends_n)
    runs_n = np.diff(run_ends_n, prepend=0)
    owners_r = np.repeat(np.arange(len(strings)), runs_n)
    places_c = np.minimum(np.arange(len(bits_c)) - np.repeat(firsts_r, lengths_r), _MAX_CHARACTERS - 1)
    runs_r = np.add.reduceat((bits_c & 0x1F) << 5 * places_c, firsts_r)
    runs_r -= np.where(bits_c[ends_r] & 0x10, 1 << 5 * np.minimum(lengths_r, _MAX_CHARACTERS), 0)
    foreign_r = np.logical_or.reduceat((bits_c < 0) | (bits_c > 63), firsts_r)
    wrong_r = foreign_r | (lengths_r > _MAX_CHARACTERS) | (np.abs(runs_r) > _MAX_RUN)
    sound_n[owners_r[wrong_r]] = False
    runs_r[wrong_r] = 0
    return _summed(runs_r, run_ends_n - runs_n, runs_n), run_ends_n, sound_n


def _summed(differences_r: NDArray[np.int64], starts_n: NDArray[np.int64], runs_n: NDArray[np.int64]) -> Any:
    """Runs of their differences: of each mask, the second, fourth, ... and the third, fifth, ... are sums."""
    places_r = np.arange(len(differences_r)) - np.repeat(starts_n, runs_n)
    runs_r = differences_r
    for is_summed_r in (places_r % 2 == 1, (places_r % 2 == 0) & (places_r > 0)):
        sums = np.concatenate(([0], np.cumsum(np.where(is_summed_r, differences_r, 0))))
        since_start_r = sums[1:] - np.repeat(sums[starts_n], runs_n)
        runs_r = np.where(is_summed_r, since_start_r, runs_r)
    return runs_r


def sound(strings: Sequence[bytes], pixels_n: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether strings are masks of some sizes, which pycocotools may be given.

    Args:
        strings: of n masks; foreign bytes are allowed.
        pixels_n: height times width of each.

    Returns:
        (n,).
    """
    sound_n = pixels_n > 0
    ends_n = np.cumsum([len(string) for string in strings], dtype=np.int64)
    start = 0
    while start < len(strings):
        before = ends_n[start - 1] if start else 0
        end = max(start + 1, int(np.searchsorted(ends_n, before + _CHARACTERS_AT_ONCE, side="right")))
        sound_n[start:end] &= _sound(strings[start:end], pixels_n[start:end])
        start = end
    return sound_n


def _sound(strings: Sequence[bytes], pixels_n: NDArray[np.int64]) -> NDArray[np.bool_]:
    runs_r, ends_n, sound_n = unpack_runs(strings)
    starts_n = np.concatenate(([0], ends_n[:-1]))
    negatives = np.concatenate(([0], np.cumsum(runs_r < 0)))
    sums = np.concatenate(([0], np.cumsum(runs_r)))
    return sound_n & (negatives[ends_n] == negatives[starts_n]) & (sums[ends_n] - sums[starts_n] == pixels_n)


def areas(encoded: Sequence[Any]) -> NDArray[np.int64]:
    """Foreground pixels.

    Args:
        encoded: as ``RLE.coco`` gives them. Strings from a file go through ``sound`` first: pycocotools reads beyond
            the end of some that are damaged.

    Returns:
        (n,).
    """
    masks: Any = list(encoded)
    parts = [coco.area(masks[at : at + _MASKS_PER_CALL]) for at in range(0, len(masks), _MASKS_PER_CALL)]
    return np.concatenate(parts).astype(np.int64) if parts else np.zeros(0, np.int64)


def coco_boxes(encoded: Sequence[Any]) -> NDArray[np.int32]:
    """Boxes as ``masks.coco_box``: x, y, width, height in pixels; zeros for an empty mask.

    Args:
        encoded: as for ``areas``.

    Returns:
        (n, 4).
    """
    masks: Any = list(encoded)
    return np.asarray(coco.toBbox(masks)).astype(np.int32).reshape(-1, 4)
