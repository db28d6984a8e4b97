"""The masks of an image as pieces: runs of foreground, cut at the columns of the image.

Small (a mask of a photograph has some hundreds), the same for any height and width, and enough for all that is asked of
a mask on its way through the network: its prompt, its box, its area, and how much of another mask lies in it.

Letters: n masks; k columns that masks reach, one mask after the other; r pieces; H, W of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from samtok_data.many_masks import unpack_runs
from samtok_data.masks import RLE

Integers = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class MaskPieces:
    """All masks of an image.

    Attributes:
        tops: int32, (r,): first row of each piece; ordered by mask, column, row.
        afters: int32, (r,): the row behind its last.
        column_starts: int32, (k + 1,): where the pieces of each column begin in them.
        mask_starts: int32, (n + 1,): where the columns of each mask begin in ``column_starts``.
        lefts: int32, (n,): the first column of the image that each mask reaches.
        boxes: float32, (n, 4): ``masks.prompt_box`` of each.
        areas: int64, (n,): foreground pixels of each.
    """

    tops: Integers
    afters: Integers
    column_starts: Integers
    mask_starts: Integers
    lefts: Integers
    boxes: NDArray[np.float32]
    areas: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.lefts)

    @classmethod
    def of(cls, regions: Sequence[RLE]) -> MaskPieces:
        """Cuts the runs of the masks of an image.

        Args:
            regions: of one size, with sound runs that end at the last pixel, none of them empty.

        Raises:
            ValueError: a mask without foreground.
        """
        if not regions:
            none, starts = np.zeros(0, np.int32), np.zeros(1, np.int32)
            return cls(none, none, starts, starts, none, np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
        height, width = regions[0].height, regions[0].width
        firsts, lengths, owners = _foreground(regions)
        areas_n = np.bincount(owners, lengths, len(regions)).astype(np.int64)
        if not areas_n.all():
            raise ValueError(
                f"region {int(areas_n.argmin())}: expected a mask with foreground pixels, got an empty one"
            )
        columns_r, tops_r, afters_r, owners_r = _cut(firsts, lengths, owners, height)
        starts_n = np.searchsorted(owners_r, np.arange(len(regions)))
        ends_n = np.append(starts_n[1:], len(owners_r))
        lefts_n, rights_n = columns_r[starts_n], columns_r[ends_n - 1]
        mask_starts = np.concatenate(([0], np.cumsum(rights_n - lefts_n + 1)))
        places_r = mask_starts[owners_r] + columns_r - lefts_n[owners_r]
        column_starts = np.searchsorted(places_r, np.arange(mask_starts[-1] + 1))
        last_row_n = np.maximum.reduceat(afters_r, starts_n) - 1
        corners_n4 = np.stack([lefts_n, np.minimum.reduceat(tops_r, starts_n), rights_n, last_row_n], axis=1)
        return cls(
            tops=tops_r.astype(np.int32),
            afters=afters_r.astype(np.int32),
            column_starts=column_starts.astype(np.int32),
            mask_starts=mask_starts.astype(np.int32),
            lefts=lefts_n.astype(np.int32),
            boxes=(corners_n4 / np.array([width, height, width, height])).astype(np.float32),
            areas=areas_n,
        )


Runs = NDArray[np.int64]


def _foreground(regions: Sequence[RLE]) -> tuple[Runs, Runs, Runs]:
    """Of each run of foreground, by mask: its first pixel, column by column, its pixels, and its mask."""
    runs, ends_n, _ = unpack_runs([rle.counts.encode("ascii") for rle in regions])
    counts_n = np.diff(ends_n, prepend=0)
    owners = np.repeat(np.arange(len(regions)), counts_n)
    starts_n = ends_n - counts_n
    afters = np.cumsum(runs)
    afters -= np.concatenate(([0], afters))[starts_n][owners]
    is_foreground = (np.arange(len(runs)) - starts_n[owners]) % 2 == 1
    chosen = np.flatnonzero(is_foreground & (runs > 0))
    lengths = runs[chosen]
    return afters[chosen] - lengths, lengths, owners[chosen]


def _cut(firsts: Runs, lengths: Runs, owners: Runs, height: int) -> tuple[Runs, Runs, Runs, Runs]:
    """Column, first row, row behind the last, and mask of every piece."""
    lefts, tops = np.divmod(firsts, height)
    rights = (firsts + lengths - 1) // height
    counts = rights - lefts + 1
    sources_r = np.repeat(np.arange(len(firsts)), counts)
    steps_r = np.arange(len(sources_r)) - np.repeat(np.cumsum(counts) - counts, counts)
    columns_r = lefts[sources_r] + steps_r
    tops_r = np.where(steps_r == 0, tops[sources_r], 0)
    afters_r = np.minimum((firsts + lengths)[sources_r] - columns_r * height, height)
    return columns_r, tops_r, afters_r, owners[sources_r]
