"""How many pixels of decoded masks there are at full size, and how many of them lie in the masks; none is ever drawn.

A logit at full size lies between four logits of the square. Down one column, from one row of the square to the next, it
goes in a straight line: where it is above the threshold is one interval, whose end is reckoned and not searched for.
What an interval has in common with a piece of a mask is a difference.

Letters: n masks of an image, P side of the logits, H and W of the image.
"""

# Triton compiles the kernels; Python's types do not fit what stands in them.
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false, reportIndexIssue=false
from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from tokenizer_model.fast.kernels import ANYWHERE, DevicePieces
from tokenizer_model.fast.launches import launch

_PIECES = 4  # fetched at once: a column of most masks has fewer, one of noise has hundreds
_WARPS = 4


def count_overlaps(
    pieces: DevicePieces,
    columns_nPP: Tensor,
    size: tuple[int, int],
    threshold: float,
    counts_n2: Tensor,
) -> None:
    """Counts pixels of decoded masks, as ``F.interpolate`` (bilinear, corners not aligned) and a cut would give them.

    Args:
        pieces: of the masks.
        columns_nPP: float32, the logits transposed: column by column. P is a power of two.
        size: (H, W).
        threshold: a pixel is foreground where its logit is above this.
        counts_n2: int64, zeros: foreground pixels of each decoded mask, and those of them that lie in the mask.
    """
    (masks, side), (height, width) = columns_nPP.shape[:2], size
    launch(
        _count, (side, masks),
        *pieces, columns_nPP, counts_n2,
        height, width, side / height, side / width, threshold, side, _PIECES, num_warps=_WARPS,
    )  # fmt: skip


@triton.jit(do_not_specialize=["height", "width"], do_not_specialize_on_alignment=ANYWHERE)
def _count(
    tops, afters, column_starts, mask_starts, lefts, logits, counts,
    height, width, row_scale, column_scale, threshold, SIDE: tl.constexpr, PIECES: tl.constexpr,
):  # fmt: skip
    # A program has the columns of the image that lie between two columns of the square, a lane what lies between two
    # rows of it.
    column = tl.program_id(0)
    mask = tl.program_id(1)
    row = tl.arange(0, SIDE)
    next_row = tl.minimum(row + 1, SIDE - 1)
    left = logits + (mask.to(tl.int64) * SIDE + column) * SIDE
    right = left + tl.where(column < SIDE - 1, SIDE, 0)
    left_above = tl.load(left + row)
    right_above = tl.load(right + row)
    if tl.max(tl.maximum(left_above, right_above)) > threshold:
        left_below = tl.load(left + next_row)
        right_below = tl.load(right + next_row)
        top = _first_place(row, row_scale, height, SIDE)
        after = _first_place(row + 1, row_scale, height, SIDE)
        columns = tl.load(mask_starts + mask)
        num_columns = tl.load(mask_starts + mask + 1) - columns
        leftmost = tl.load(lefts + mask)
        decoded = tl.zeros((SIDE,), tl.int32)
        common = tl.zeros((SIDE,), tl.int32)
        first_x = _first_place(column, column_scale, width, SIDE)
        for x in range(first_x, _first_place(column + 1, column_scale, width, SIDE)):
            share = _source(x, column_scale) - column
            above = (1.0 - share) * left_above + share * right_above
            below = (1.0 - share) * left_below + share * right_below
            start, end = _foreground(above, below, row, top, after, row_scale, height, threshold, SIDE)
            decoded += end - start
            place = x - leftmost
            if (place >= 0) & (place < num_columns):
                last = tl.load(column_starts + columns + place + 1)
                for piece in range(tl.load(column_starts + columns + place), last, PIECES):
                    for step in tl.static_range(PIECES):
                        is_there = piece + step < last
                        piece_top = tl.load(tops + piece + step, mask=is_there, other=0)
                        piece_after = tl.load(afters + piece + step, mask=is_there, other=0)
                        inside = tl.minimum(end, piece_after) - tl.maximum(start, piece_top)
                        common += tl.maximum(inside, 0)
        # Whole numbers: their sum does not depend on which program comes first.
        tl.atomic_add(counts + mask * 2, tl.sum(decoded).to(tl.int64), sem="relaxed")
        tl.atomic_add(counts + mask * 2 + 1, tl.sum(common).to(tl.int64), sem="relaxed")


@triton.jit
def _source(place, scale):
    """Where in the square a row or column of the image lies: torch's own formula."""
    return tl.maximum((place + 0.5) * scale - 0.5, 0.0)


@triton.jit
def _first_place(source, scale, size, SIDE: tl.constexpr):
    """The first row or column of the image that lies at a whole number in the square, or behind it."""
    # The nearest one, of which only the formula tells on which side it lies.
    place = ((source + 0.5) * (size * (1.0 / SIDE))).to(tl.int32)
    place += (_source(place, scale) < source).to(tl.int32)
    return tl.where(source > 0, tl.minimum(place, size), 0)


@triton.jit
def _foreground(above, below, row, top, after, scale, height, threshold, SIDE: tl.constexpr):
    """Of the image's rows ``top`` to ``after``, which lie between two rows of the square, those above the threshold."""
    is_above = above > threshold
    is_below = below > threshold
    share = (threshold - above) / tl.where(is_above != is_below, below - above, 1.0)
    # The row that is nearest to where the line meets the threshold: only its own logit tells on which side it lies.
    near = (row + share + 0.5) * (height * (1.0 / SIDE))
    place = tl.maximum(tl.minimum(near, after - 1.0), top.to(tl.float32)).to(tl.int32)
    share = _source(place, scale) - row
    logit = (1.0 - share) * above + share * below
    # Where there is no row at all, none comes of it.
    split = tl.minimum(place + ((logit > threshold) == is_above).to(tl.int32), after)
    start = tl.where(is_above, top, tl.where(is_below, split, after))
    end = tl.where(is_above & ~is_below, split, after)
    return start, end
