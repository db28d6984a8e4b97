"""The reconstructions that a report shows: of each source the best, the worst, and some drawn by lot."""

from __future__ import annotations

import heapq
import io
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.drawing import (
    DECODED_COLOUR,
    TRUE_COLOUR,
    Colour,
    cropped,
    letterboxed,
    letterboxed_mask,
    outlined,
    tinted,
    window_around,
)
from pipelines.evaluation.measure import Reconstruction
from pipelines.evaluation.measurement import PUBLISHED, SIZE_CLASSES, size_class
from pipelines.evaluation.resizing import Grid
from samtok_data import masks
from samtok_data.masks import Mask
from samtok_data.words import MaskVocabulary

Kind = Literal["best", "worst", "random"]
KINDS: tuple[Kind, ...] = ("best", "worst", "random")
EACH = 6

# Width and height that a picture fits into, in pixels; nearly twice what a page shows, for fine screens.
_CELL = (400, 300)
_JPEG_QUALITY = 80
_TINT = 0.35
_LINE = 3

Cut = Callable[[Grid, tuple[int, int]], NDArray[np.bool_]]
"""Logits (n, P, P) and (height, width) of the image to masks (n, H, W), as ``MaskTokenizer.cut``."""


@dataclass(frozen=True, slots=True)
class Example:
    """One mask and its reconstruction, drawn.

    Attributes:
        image: id of the image in its source.
        region: id of the mask in its image.
        iou: the published r-IoU.
        size: label of its class of size.
        word: the mask word.
        true_jpeg: the photo, from near by where the mask is small, with the true mask's outline.
        decoded_jpeg: the same part of the photo with what was decoded.
        width: of both, in pixels.
        height: of both.
    """

    image: str
    region: str
    iou: float
    size: str
    word: str
    true_jpeg: bytes
    decoded_jpeg: bytes
    width: int
    height: int


# Best, worst and random are all "the highest ranks"; the lot breaks ties, the counter those of equal lots.
_Ranked = tuple[float, float, int, Example]


class Examples:
    """Keeps a few reconstructions of each source and kind. Memory does not grow with the number of images.

    Which ones depends on the IoUs and on the seed, not on the order of the images, but for exact ties. An image gives
    one of the best and one of the worst at most, so that a row does not show one photo only.

    Args:
        vocabulary: spells the words.
        cut: makes masks of logits.
        seed: of the lots.
        each: examples of a source and kind.
    """

    def __init__(self, vocabulary: MaskVocabulary, cut: Cut, *, seed: int, each: int = EACH) -> None:
        self._vocabulary, self._cut, self._seed, self._each = vocabulary, cut, seed, each
        self._kept: dict[tuple[str, Kind], list[_Ranked]] = {}
        self._counter = itertools.count()

    def add(self, found: Reconstruction) -> None:
        """Looks at one image; pictures are drawn only of what is kept for now."""
        image = found.image
        if not image.regions:
            return
        ious = found.measured.ious[PUBLISHED].tolist()
        lots = [self._lot(image.source, image.id, region) for region, _ in image.regions]
        places = range(len(ious))
        best = max(places, key=lambda place: (ious[place], lots[place]))
        worst = min(places, key=lambda place: (ious[place], -lots[place]))
        self._offer("best", ious[best], lots[best], found, best)
        self._offer("worst", -ious[worst], lots[worst], found, worst)
        for place in places:
            self._offer("random", lots[place], 0.0, found, place)

    def of(self, source: str, kind: Kind) -> list[Example]:
        """What was kept, the highest rank first."""
        ranked = sorted(self._kept.get((source, kind), []), key=lambda entry: (-entry[0], -entry[1], entry[2]))
        return [example for *_, example in ranked]

    def _lot(self, *names: str) -> float:
        # As bytes: a foreign name may hold half a surrogate pair, which is no UTF-8.
        return random.Random("/".join([str(self._seed), *names]).encode(errors="surrogatepass")).random()

    def _offer(self, kind: Kind, rank: float, lot: float, found: Reconstruction, place: int) -> None:
        kept = self._kept.setdefault((found.image.source, kind), [])
        if len(kept) == self._each and (rank, lot) <= kept[0][:2]:
            return
        entry = (rank, lot, next(self._counter), self._example(found, place))
        if len(kept) == self._each:
            heapq.heapreplace(kept, entry)
        else:
            heapq.heappush(kept, entry)

    def _example(self, found: Reconstruction, place: int) -> Example:
        region, rle = found.image.regions[place]
        mask_HW = masks.decode(rle)
        decoded_HW = self._cut(found.logits_nPP[place : place + 1], mask_HW.shape)[0]
        window = window_around(mask_HW)
        near = found.image.picture.crop(window)
        scale = min(_CELL[0] / near.width, _CELL[1] / near.height)
        size = (max(1, round(near.width * scale)), max(1, round(near.height * scale)))
        cell = letterboxed(near, size)
        return Example(
            image=found.image.id,
            region=region,
            iou=float(found.measured.ious[PUBLISHED][place]),
            size=SIZE_CLASSES[size_class(rle)].label,
            word=self._vocabulary.format(found.measured.codes_nL[place].tolist()),
            true_jpeg=_jpeg(_drawn(cell, cropped(mask_HW, window), TRUE_COLOUR, opacity=0.0)),
            decoded_jpeg=_jpeg(_drawn(cell, cropped(decoded_HW, window), DECODED_COLOUR, opacity=_TINT)),
            width=size[0],
            height=size[1],
        )


def _drawn(cell: Image.Image, mask_HW: Mask, colour: Colour, *, opacity: float) -> Image.Image:
    mask_of_cell_HW = letterboxed_mask(mask_HW, cell.size)
    return outlined(tinted(cell, mask_of_cell_HW, colour, opacity=opacity), mask_of_cell_HW, colour, width=_LINE)


def _jpeg(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    # Colours at full resolution: halved, as is usual, thin lines lose theirs.
    picture.save(buffer, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()
