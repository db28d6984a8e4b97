"""The figures of an evaluation, added up image by image: mean IoU by source and size of mask, words. Pure numpy.

Letters: n masks of an image, L levels, C classes of size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.evaluation.words import WordStatistics, rounded
from samtok_data import masks
from samtok_data.masks import RLE

PUBLISHED = "r_iou"
"""The published figure: the word's logits resized to the image, bilinear, cut at 0.5, against the true mask."""

VARIANTS = {
    PUBLISHED: "r-IoU",
    "r_iou_at_0": "r-IoU, logits cut at 0",
    "unquantised": "before quantisation",
    "unquantised_at_0": "before quantisation, cut at 0",
    "ceiling_256": "ceiling of 256x256 logits",
    "ceiling_own": "ceiling of the tokenizer's own logits",
    "baseline": "image-blind codebook",
}
"""What an IoU may be of, and what people call it. All are means over masks of the IoU at full resolution."""

HISTOGRAM_BINS = 20


@dataclass(frozen=True, slots=True)
class SizeClass:
    """Masks of like size, as a fraction of their image's pixels.

    Attributes:
        key: in JSON: lower bound (inclusive) and upper bound (exclusive).
        label: for people.
    """

    key: str
    label: str


SIZE_CLASSES = (
    SizeClass("0-0.001", "below 0.1 %"),
    SizeClass("0.001-0.01", "0.1 to 1 %"),
    SizeClass("0.01-0.1", "1 to 10 %"),
    SizeClass("0.1-1", "10 % and above"),
)
# One over the lower bounds of all classes but the first: whole numbers, so that the bounds are exact.
_INVERSE_BOUNDS = (1000, 100, 10)


def size_class(rle: RLE) -> int:
    """The number of a mask's class in ``SIZE_CLASSES``; a class begins with its lower bound."""
    return int(size_classes(np.array([masks.area(rle)]), np.array([rle.height * rle.width]))[0])


def size_classes(areas_n: NDArray[np.integer], pixels_n: NDArray[np.integer]) -> NDArray[np.int64]:
    """The numbers of masks' classes.

    Args:
        areas_n: foreground pixels.
        pixels_n: of each mask's image.
    """
    classes_n = np.zeros(len(areas_n), np.int64)
    for inverse in _INVERSE_BOUNDS:
        classes_n += areas_n * inverse >= pixels_n
    return classes_n


@dataclass(frozen=True, slots=True)
class MeasuredImage:
    """What was measured on one image.

    Attributes:
        source: name of the source that it is of.
        rles: its masks, not empty.
        codes_nL: int64, of each mask.
        ious: for some of ``VARIANTS`` float64, (n,), 0..1. The same ones for every image of a measurement.
    """

    source: str
    rles: tuple[RLE, ...]
    codes_nL: NDArray[np.int64]
    ious: Mapping[str, NDArray[np.float64]]


class _Table:
    """Counts and sums of one source."""

    def __init__(self, codebook_size: int, depth: int) -> None:
        self.images = 0
        self.counts_C: NDArray[np.int64] = np.zeros(len(SIZE_CLASSES), np.int64)
        self.sums: dict[str, NDArray[np.float64]] = {}
        self.histograms: dict[str, NDArray[np.int64]] = {}
        self.words = WordStatistics(codebook_size, depth)


class Measurement:
    """Adds up measured images. What it holds does not grow with their number.

    Args:
        codebook_size: codes of a level.
        depth: levels.
    """

    def __init__(self, codebook_size: int, depth: int) -> None:
        self._codebook_size, self._depth = codebook_size, depth
        self._tables: dict[str, _Table] = {}

    def add(self, image: MeasuredImage) -> None:
        """Counts one image. One without masks is counted as an image and changes no figure.

        Raises:
            ValueError: codes or IoUs are not one for each mask, or codes are out of range.
        """
        for variant, ious_n in image.ious.items():
            if variant not in VARIANTS or ious_n.shape != (len(image.rles),):
                raise ValueError(f"{variant}: expected {len(image.rles)} IoUs of a variant, got shape {ious_n.shape}")
        table = self._tables.setdefault(image.source, _Table(self._codebook_size, self._depth))
        table.words.add(image.rles, image.codes_nL)
        table.images += 1
        classes_n = np.array([size_class(rle) for rle in image.rles], np.int64)
        table.counts_C += np.bincount(classes_n, minlength=len(SIZE_CLASSES))
        for variant, ious_n in image.ious.items():
            sums_C = table.sums.setdefault(variant, np.zeros(len(SIZE_CLASSES)))
            np.add.at(sums_C, classes_n, ious_n)
            histogram = table.histograms.setdefault(variant, np.zeros(HISTOGRAM_BINS, np.int64))
            histogram += np.histogram(ious_n, HISTOGRAM_BINS, (0.0, 1.0))[0]

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the sources, in the order in which they came."""
        return tuple(self._tables)

    @property
    def variants(self) -> tuple[str, ...]:
        """Which of ``VARIANTS`` were measured, in their order there."""
        return tuple(name for name in VARIANTS if any(name in table.sums for table in self._tables.values()))

    def num_images(self, source: str | None = None) -> int:
        """Images of a source, or of all."""
        return sum(table.images for table in self._of(source))

    def num_masks(self, source: str | None = None, size: int | None = None) -> int:
        """Masks of a source (None: of all) and of a class of size (None: of all)."""
        return sum(int(table.counts_C[_classes(size)].sum()) for table in self._of(source))

    def mean(self, variant: str = PUBLISHED, *, source: str | None = None, size: int | None = None) -> float | None:
        """The plain mean over masks: every mask has weight 1, there is no epsilon, an empty prediction scores 0.

        Args:
            variant: one of ``VARIANTS``.
            source: None: all of them.
            size: number of the class in ``SIZE_CLASSES``; None: all of them.

        Returns:
            0..1; None where there is no mask, or where this was not measured.
        """
        measured = [table for table in self._of(source) if variant in table.sums]
        number = sum(int(table.counts_C[_classes(size)].sum()) for table in measured)
        return sum(float(table.sums[variant][_classes(size)].sum()) for table in measured) / number if number else None

    def words(self, source: str | None = None) -> WordStatistics:
        """Use of the codebook and collisions, in a source or in all."""
        total = WordStatistics(self._codebook_size, self._depth)
        for table in self._of(source):
            total += table.words
        return total

    def histogram(self, variant: str = PUBLISHED, *, source: str | None = None) -> NDArray[np.int64]:
        """How many masks have an IoU in each of ``HISTOGRAM_BINS`` equal parts of 0..1; 1 is in the last.

        Args:
            variant: one of ``VARIANTS``; zeros where it was not measured.
            source: None: all of them.
        """
        nothing = np.zeros(HISTOGRAM_BINS, np.int64)
        return sum((table.histograms.get(variant, nothing) for table in self._of(source)), nothing)

    @property
    def json(self) -> dict[str, Any]:
        """All figures as JSON values: of all sources together, and of each."""
        return {"all": self._figures(None), "by_source": {name: self._figures(name) for name in self.sources}}

    def _of(self, source: str | None) -> Iterator[_Table]:
        return iter(self._tables.values() if source is None else [self._tables[source]])

    def _figures(self, source: str | None) -> dict[str, Any]:
        words = self.words(source)
        return {
            "images": self.num_images(source),
            **self._cell(source, None),
            "by_size": {kind.key: self._cell(source, size) for size, kind in enumerate(SIZE_CLASSES)},
            "histograms": {variant: self.histogram(variant, source=source).tolist() for variant in self.variants},
            "codebook": words.json["levels"],
            "collisions": words.json["collisions"],
        }

    def _cell(self, source: str | None, size: int | None) -> dict[str, Any]:
        means = {variant: rounded(self.mean(variant, source=source, size=size)) for variant in self.variants}
        return {"masks": self.num_masks(source, size), **means}


def _classes(size: int | None) -> slice:
    return slice(None) if size is None else slice(size, size + 1)
