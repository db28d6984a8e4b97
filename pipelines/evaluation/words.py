"""What words are used, and whether two masks of one image share one. Pure numpy.

Letters: n masks of an image, L levels, K codes of a level.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


class WordStatistics:
    """Counts codes and collisions, image by image.

    A collision: two different masks of one image with the same word. Whichever of them a text means, a reader gets
    the same one back, so the supervision is wrong. Masks that are equal pixel by pixel count as one.

    Args:
        codebook_size: K.
        depth: L.

    Attributes:
        counts: int64, (L, K): how many masks have each code.
        images: images with at least two different masks; only these can have a collision.
        images_with_collision: those of them where two share a word.
        masks: different masks of ``images``.
        masks_in_collision: those of them that share their word with another one.
    """

    def __init__(self, codebook_size: int, depth: int) -> None:
        self.counts: NDArray[np.int64] = np.zeros((depth, codebook_size), np.int64)
        self.images = self.images_with_collision = self.masks = self.masks_in_collision = 0

    def add(self, rles: Sequence[Hashable], codes_nL: NDArray[np.integer]) -> None:
        """Counts one image.

        Args:
            rles: its masks, as RLEs, or only as their strings of runs: they are compared and not read.
            codes_nL: of each mask, in ``0 .. K - 1``.

        Raises:
            ValueError: another number of masks or levels, or a code out of range.
        """
        depth, codebook_size = self.counts.shape
        if codes_nL.shape != (len(rles), depth):
            raise ValueError(f"expected codes of shape ({len(rles)}, {depth}), got {codes_nL.shape}")
        if codes_nL.size and not (codes_nL.min() >= 0 and codes_nL.max() < codebook_size):
            raise ValueError(
                f"expected codes in 0..{codebook_size - 1}, got some in {codes_nL.min()}..{codes_nL.max()}"
            )
        for level in range(depth):
            self.counts[level] += np.bincount(codes_nL[:, level], minlength=codebook_size)
        # Equal masks have equal run lengths: an RLE has one spelling.
        words = {rle: tuple(row) for rle, row in zip(rles, codes_nL.tolist(), strict=True)}
        if len(words) < 2:
            return
        sharing = sum(number for number in Counter(words.values()).values() if number > 1)
        self.images += 1
        self.images_with_collision += sharing > 0
        self.masks += len(words)
        self.masks_in_collision += sharing

    def __iadd__(self, other: WordStatistics) -> WordStatistics:
        """Adds what other images came to."""
        self.counts += other.counts
        self.images += other.images
        self.images_with_collision += other.images_with_collision
        self.masks += other.masks
        self.masks_in_collision += other.masks_in_collision
        return self

    @property
    def perplexities(self) -> list[float | None]:
        """Of each level e to the entropy of its codes: K if all are used alike, 1 if one is; None without masks."""
        return [_perplexity(counts_K) for counts_K in self.counts]

    @property
    def json(self) -> dict[str, Any]:
        """All of it as JSON values; shares are null where there is nothing to divide by."""
        levels = [
            {
                "used": int((counts_K > 0).sum()),
                "of": len(counts_K),
                "share": rounded((counts_K > 0).mean()) if counts_K.any() else None,
                "perplexity": rounded(perplexity),
            }
            for counts_K, perplexity in zip(self.counts, self.perplexities, strict=True)
        ]
        collisions = {
            "images": self.images,
            "images_with_collision": self.images_with_collision,
            "share_of_images": _share(self.images_with_collision, self.images),
            "masks": self.masks,
            "masks_in_collision": self.masks_in_collision,
            "share_of_masks": _share(self.masks_in_collision, self.masks),
        }
        return {"levels": levels, "collisions": collisions}


def rounded(number: float | None) -> float | None:
    """A figure as a report holds it: without noise of the last digits."""
    return None if number is None else round(float(number), 6)


def _perplexity(counts_K: NDArray[np.int64]) -> float | None:
    used = counts_K[counts_K > 0]
    if not used.size:
        return None
    shares = used / used.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def _share(part: int, whole: int) -> float | None:
    return rounded(part / whole) if whole else None
