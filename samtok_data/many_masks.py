"""Many masks at once: what ``samtok_data.masks`` says of one mask, without a Python call for each.

Letters: n masks; c characters and r runs of all of them, one after the other.
Format facts: pycocotools (cocoapi/common/maskApi.c).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

# pycocotools keeps the number of masks in 8 bits for a moment, and numpy 2 refuses the 256th.
_MASKS_PER_CALL = 255
# Pixels of a run, and the difference of two; more than any picture has, and sums of 100 million of them fit in 64 bits.
_MAX_RUN = 2**36
_CHARACTERS_AT_ONCE = 1 << 14  # some ten arrays of so many numbers are made: a processor's cache should hold them
_MAX_CHARACTERS = 12  # of a number: they hold any run; without a bound the sums would overflow


@dataclass(frozen=True, slots=True)
class Runs:
    """What strings of n masks hold.

    Attributes:
        runs_r: run lengths of all masks, some negative where a string is damaged.
        ends_n: the end of each mask's runs in it.
        is_whole_n: whether the string is neither cut nor holds a foreign character.
        is_bounded_n: whether no number of it is beyond all pictures.
        is_shortest_n: whether its numbers have no character too many, as pycocotools writes them.
    """

    runs_r: NDArray[np.int64]
    ends_n: NDArray[np.int64]
    is_whole_n: NDArray[np.bool_]
    is_bounded_n: NDArray[np.bool_]
    is_shortest_n: NDArray[np.bool_]

    @property
    def starts_n(self) -> NDArray[np.int64]:
        """The start of each mask's runs in ``runs_r``."""
        return np.concatenate(([0], self.ends_n[:-1]))

    @property
    def pixels(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Pixels of background and of foreground of each mask."""
        # Every second run of all, whosever it is: a mask's background is among the one half or the other.
        sums = [np.concatenate(([0], np.cumsum(self.runs_r[half::2]))) for half in (0, 1)]
        halves = [
            one[(self.ends_n - half + 1) // 2] - one[(self.starts_n - half + 1) // 2] for half, one in enumerate(sums)
        ]
        is_even_n = self.starts_n % 2 == 0
        return np.where(is_even_n, *halves), np.where(is_even_n, *reversed(halves))

    def number(self, is_one_r: NDArray[np.bool_]) -> NDArray[np.int64]:
        """How many runs of each mask are of some kind."""
        places = np.concatenate(([0], np.cumsum(is_one_r)))
        return places[self.ends_n] - places[self.starts_n]


def unpack(strings: Sequence[bytes]) -> Runs:
    """Run lengths of COCO's compressed strings: 5 bits a character, offset 48, from the fourth run of a mask on as the
    difference to the run before the last.

    Args:
        strings: of n masks, n at least 1; foreign bytes are allowed.
    """
    sizes_n = np.fromiter((len(string) for string in strings), np.int64, len(strings))
    string_ends_n = np.cumsum(sizes_n)
    filled_n = np.flatnonzero(sizes_n)
    flags = [np.ones(len(strings), np.bool_) for _ in range(3)]
    is_whole_n, is_bounded_n, is_shortest_n = flags
    if not filled_n.size:
        return Runs(np.zeros(0, np.int64), np.zeros(len(strings), np.int64), *flags)
    bits_c = np.frombuffer(b"".join(strings), np.uint8) - np.uint8(48)  # a foreign character is 64 or more
    is_end_c = bits_c & 0x20 == 0
    lasts = string_ends_n[filled_n] - 1
    is_whole_n[filled_n] = is_end_c[lasts]
    is_end_c[lasts] = True  # a cut string must not go on into the next one
    ends_r = np.flatnonzero(is_end_c)
    firsts_r = np.concatenate(([0], ends_r[:-1] + 1))
    lengths_r = ends_r - firsts_r + 1
    run_ends_n = np.searchsorted(ends_r, string_ends_n)
    runs_n = np.diff(run_ends_n, prepend=0)
    last_r = bits_c[ends_r]
    runs_r = _numbers(bits_c, firsts_r, last_r, lengths_r)

    is_foreign_r = lengths_r > _MAX_CHARACTERS
    if bits_c.max() > 63:
        is_foreign_r |= np.logical_or.reduceat(bits_c > 63, firsts_r)
    is_large_r = np.abs(runs_r) > _MAX_RUN
    is_spare_r = np.zeros(len(runs_r), np.bool_)
    # The last character says nothing where its bits all repeat the highest one of the character before.
    longer = np.flatnonzero(lengths_r > 1)
    is_spare_r[longer] = last_r[longer] & 0x1F == np.where(bits_c[ends_r[longer] - 1] & 0x10, 0x1F, 0)
    for is_n, is_wrong_r in ((is_whole_n, is_foreign_r), (is_bounded_n, is_large_r), (is_shortest_n, is_spare_r)):
        is_n[np.searchsorted(run_ends_n, np.flatnonzero(is_wrong_r), side="right")] = False
    runs_r[is_foreign_r | is_large_r] = 0
    return Runs(_summed(runs_r, run_ends_n - runs_n, runs_n), run_ends_n, *flags)


def _numbers(
    bits_c: NDArray[np.uint8], firsts_r: NDArray[np.int64], last_r: NDArray[np.uint8], lengths_r: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The numbers that characters spell, from a first to a last one, which has the sign. Most have one or two."""
    numbers_r = (last_r & 0x1F ^ 0x10).astype(np.int64) - 0x10
    longer = np.flatnonzero(lengths_r > 1)
    numbers_r[longer] <<= 5 * (np.minimum(lengths_r[longer], _MAX_CHARACTERS) - 1)
    for place in range(_MAX_CHARACTERS - 1):
        if not longer.size:
            break
        numbers_r[longer] |= (bits_c[firsts_r[longer] + place] & 0x1F).astype(np.int64) << 5 * place
        longer = longer[lengths_r[longer] > place + 2]
    return numbers_r


def _summed(
    differences_r: NDArray[np.int64], starts_n: NDArray[np.int64], runs_n: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Runs of their differences: of each mask, the second, fourth, ... and the third, fifth, ... are sums."""
    starts_n, runs_n = starts_n[runs_n > 0], runs_n[runs_n > 0]
    runs_r = differences_r.copy()
    runs_r[starts_n] = 0  # the first is of neither sum
    for parity in (0, 1):  # of the place among all runs, so that every second number is taken, whosever it is
        sums = np.cumsum(runs_r[parity::2])
        before_n = np.where((starts_n + parity) % 2 == 0, starts_n, starts_n - 1) // 2  # the last that is not its own
        base_n = np.where(before_n >= 0, sums[before_n] if sums.size else 0, 0)
        runs_r[parity::2] = sums - np.repeat(base_n, runs_n)[parity::2]
    runs_r[starts_n] = differences_r[starts_n]
    return runs_r


def unpack_runs(strings: Sequence[bytes]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """As ``unpack``, for strings that ought to be sound.

    Args:
        strings: of n masks; foreign bytes are allowed.

    Returns:
        The runs of all masks, (r,), some negative where a string is damaged; the end of each mask's runs in it, (n,);
        whether its string can be read: not cut, and without a foreign character, (n,).
    """
    found = [unpack(strings[part]) for part in _parts(strings)]
    if not found:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.bool_)
    before = np.cumsum([0, *(len(one.runs_r) for one in found)])
    ends = [one.ends_n + start for one, start in zip(found, before[:-1], strict=True)]
    sound_n = np.concatenate([one.is_whole_n & one.is_bounded_n for one in found])
    return np.concatenate([one.runs_r for one in found]), np.concatenate(ends), sound_n


def sound(strings: Sequence[bytes], pixels_n: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether strings are masks of some sizes, which pycocotools may be given.

    Args:
        strings: of n masks; foreign bytes are allowed.
        pixels_n: height times width of each.

    Returns:
        (n,).
    """
    sound_n = pixels_n > 0
    for part in _parts(strings):
        found = unpack(strings[part])
        sound_n[part] &= found.is_whole_n & found.is_bounded_n & (sum(found.pixels) == pixels_n[part])
        sound_n[part] &= found.number(found.runs_r < 0) == 0
    return sound_n


def plain(strings: Sequence[bytes], pixels: int) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Finds the strings that need no second look: pycocotools would write the same for their masks.

    Args:
        strings: of n masks; foreign bytes are allowed.
        pixels: height times width of all of them.

    Returns:
        Whether a string is a mask of that many pixels with foreground, in the one spelling: (n,), False where it is a
        sound mask in another one, too. And the foreground pixels of those masks, (n,); of the others, anything.
    """
    plain_n, areas_n = np.zeros(len(strings), np.bool_), np.zeros(len(strings), np.int64)
    for part in _parts(strings):
        found = unpack(strings[part])
        background_n, areas_n[part] = found.pixels
        firsts_n = np.append(found.runs_r, 0)[found.starts_n]  # 0 where a mask begins with foreground
        is_whole_n = found.is_whole_n & found.is_bounded_n & (background_n + areas_n[part] == pixels)
        no_void_n = found.number(found.runs_r <= 0) == (firsts_n == 0)
        plain_n[part] = is_whole_n & no_void_n & found.is_shortest_n & (areas_n[part] > 0)
    return plain_n, areas_n


def _parts(strings: Sequence[bytes]) -> Iterator[slice]:
    """Neighbours, as many as ``_CHARACTERS_AT_ONCE`` allows, at least one."""
    ends_n = np.cumsum([len(string) for string in strings], dtype=np.int64)
    start = 0
    while start < len(strings):
        before = ends_n[start - 1] if start else 0
        end = max(start + 1, int(np.searchsorted(ends_n, before + _CHARACTERS_AT_ONCE, side="right")))
        yield slice(start, end)
        start = end


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
