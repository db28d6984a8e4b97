"""The figures of one output, added up image by image; what is held does not grow with their number. Pure numpy.

Letters: n masks of a view, L levels, C classes of size, B parts of a histogram.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.evaluation.measurement import HISTOGRAM_BINS, SIZE_CLASSES, size_classes
from pipelines.evaluation.words import WordStatistics, rounded

_DECADES = 6
_PARTS_OF_DECADE = 4
AREA_EDGES: NDArray[np.float64] = 10.0 ** (np.arange(-_DECADES * _PARTS_OF_DECADE, 1) / _PARTS_OF_DECADE)
"""Of the histogram of areas, as fractions of the image: from a millionth on, four parts a power of ten.

A part begins with its lower edge; smaller masks are in the first, a whole image in the last."""


@dataclass(frozen=True, slots=True)
class ViewMasks:
    """The masks of one view of an image, most often the image itself, or of a frame.

    Attributes:
        identities: equal for masks that are equal pixel by pixel; of n masks.
        codes_nL: int64, of each.
        areas_n: int64, foreground pixels.
        pixels_n: int64, of the view.
        ious_n: float64, with what its word decodes to; NaN where it was not measured.
    """

    identities: Sequence[Hashable]
    codes_nL: NDArray[np.int64]
    areas_n: NDArray[np.int64]
    pixels_n: NDArray[np.int64]
    ious_n: NDArray[np.float64]


class Figures:
    """Adds up the masks of one output.

    Args:
        codebook_size: codes of a level.
        depth: levels.

    Attributes:
        words: use of the codes, and collisions.
        classes_C: masks of each class of size.
        areas_B: masks between ``AREA_EDGES``.
        ious_B: measured masks in equal parts of 0..1.
        images_of: how many images have so many masks.
    """

    def __init__(self, codebook_size: int, depth: int) -> None:
        self.words = WordStatistics(codebook_size, depth)
        self.classes_C: NDArray[np.int64] = np.zeros(len(SIZE_CLASSES), np.int64)
        self.areas_B: NDArray[np.int64] = np.zeros(len(AREA_EDGES) - 1, np.int64)
        self.ious_B: NDArray[np.int64] = np.zeros(HISTOGRAM_BINS, np.int64)
        self.images_of: Counter[int] = Counter()
        self._iou_sum = 0.0

    def add(self, image: Sequence[ViewMasks]) -> None:
        """Counts one image or frame: the masks of all its views.

        Raises:
            ValueError: codes, areas or IoUs that no mask can have.
        """
        for view in image:
            self._add(view)
        self.images_of[sum(len(view.identities) for view in image)] += 1

    def _add(self, view: ViewMasks) -> None:
        if not ((view.areas_n > 0) & (view.areas_n <= view.pixels_n)).all():
            raise ValueError("a mask's area is not in 1 .. height times width")
        ious_n = view.ious_n[~np.isnan(view.ious_n)]
        if not ((ious_n >= 0) & (ious_n <= 1)).all():
            raise ValueError("a mask's IoU is not in 0..1")
        self.words.add(view.identities, view.codes_nL)
        self.classes_C += np.bincount(size_classes(view.areas_n, view.pixels_n), minlength=len(SIZE_CLASSES))
        parts_n = np.searchsorted(AREA_EDGES, view.areas_n / view.pixels_n, side="right") - 1
        self.areas_B += np.bincount(parts_n.clip(0, len(self.areas_B) - 1), minlength=len(self.areas_B))
        self.ious_B += np.histogram(ious_n, HISTOGRAM_BINS, (0.0, 1.0))[0]
        self._iou_sum += float(ious_n.sum())

    @property
    def masks(self) -> int:
        """Masks, each once for every view that it was tokenised in."""
        return int(self.classes_C.sum())

    @property
    def images(self) -> int:
        """Images and frames with a mask."""
        return self.images_of.total()

    @property
    def measured(self) -> int:
        """Masks whose IoU was measured."""
        return int(self.ious_B.sum())

    @property
    def mean_iou(self) -> float | None:
        """Plain mean over the measured masks; None: there is none."""
        return self._iou_sum / self.measured if self.measured else None

    @property
    def masks_per_image(self) -> float | None:
        """Mean over images with a mask; None: there is none."""
        return self.masks / self.images if self.images else None

    @property
    def median_per_image(self) -> int | None:
        """Half of the images with a mask have so many or fewer; None: there is none."""
        seen = 0
        for number in sorted(self.images_of):
            seen += self.images_of[number]
            if 2 * seen >= self.images:
                return number
        return None

    @property
    def image_classes(self) -> dict[str, int]:
        """Images by number of masks, in classes that end with powers of two: 1, 2, 3-4, 5-8 and so on."""
        if not self.images:
            return {}
        classes_n = Counter[int]()
        for number, images in self.images_of.items():
            classes_n[(number - 1).bit_length()] += images
        return {_class_name(place): classes_n[place] for place in range(max(classes_n) + 1)}

    @property
    def json(self) -> dict[str, Any]:
        """All of it as JSON values; figures are null where there is nothing to take them of."""
        words = self.words.json
        return {
            "codebook": words["levels"],
            "collisions": words["collisions"],
            "area": {
                "classes": {kind.key: int(self.classes_C[size]) for size, kind in enumerate(SIZE_CLASSES)},
                "edges": [_rounded_edge(edge) for edge in AREA_EDGES],
                "histogram": self.areas_B.tolist(),
            },
            "r_iou": {"masks": self.measured, "mean": rounded(self.mean_iou), "histogram": self.ious_B.tolist()},
            "masks_per_image": {
                "images": self.images,
                "mean": rounded(self.masks_per_image),
                "median": self.median_per_image,
                "largest": max(self.images_of, default=None),
                "histogram": self.image_classes,
            },
        }


def _rounded_edge(edge: float) -> float:
    return float(f"{edge:.6g}")


def _class_name(place: int) -> str:
    first, last = 2 ** (place - 1) + 1 if place else 1, 2**place
    return f"{first}" if first == last else f"{first}-{last}"
