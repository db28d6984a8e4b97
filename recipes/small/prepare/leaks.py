"""No test image may be among the training images: by name, and by a small thumbnail, also mirrored.

The thumbnail is 16x16, grey, of zero mean and length 1, so that the product of two is their correlation. It finds a
copy that was made smaller, coded anew or mirrored; it does not see a strong crop.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from samtok_data.errors import SetupError

SIDE = 16
LEAK = 0.97  # different pictures of the data reach 0.904
COPY = 0.985  # within one source: near-equal frames

Thumbnail = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Seen:
    """One image that was built.

    Attributes:
        name: where it lies under the output folder.
        is_test: measured on, not trained on.
        thumbnail: see ``thumbnail_of``.
    """

    name: str
    is_test: bool
    thumbnail: Thumbnail

    @property
    def stem(self) -> str:
        """The file's name without folders and ending, by which data sets know an image."""
        return posixpath.splitext(posixpath.basename(self.name))[0]


def thumbnail_of(image: Image.Image) -> Thumbnail:
    """Shape (SIDE, SIDE), zero mean, length 1; zeros for an image of one grey."""
    grey = np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX), np.float64)
    grey = grey - grey.mean()
    return grey / (np.linalg.norm(grey) + 1e-6)


def likeness(one: Thumbnail, others_N: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correlation with each of N thumbnails (N, SIDE, SIDE), as it is or mirrored, whichever is higher: (N,)."""
    flat = others_N.reshape(len(others_N), -1)
    return np.maximum(flat @ one.ravel(), flat @ one[:, ::-1].ravel())


def check_leaks(images: Iterable[Seen]) -> float:
    """Compares every training image with every test image.

    Returns:
        The highest correlation.

    Raises:
        SetupError: some are the same, by name or by thumbnail; the sentence names them.
    """
    listed = list(images)
    training = [image for image in listed if not image.is_test]
    test = [image for image in listed if image.is_test]
    if not training or not test:
        return 0.0
    stems = {image.stem: image for image in test}
    faults = [f"{image.name} has the name of {stems[image.stem].name}" for image in training if image.stem in stems]
    thumbnails = np.stack([image.thumbnail for image in test])
    highest = 0.0
    for image in training:
        alike = likeness(image.thumbnail, thumbnails)
        best = int(alike.argmax())
        highest = max(highest, float(alike[best]))
        if alike[best] > LEAK:
            faults.append(f"{image.name} looks like {test[best].name} ({alike[best]:.3f})")
    if faults:
        raise SetupError("test images among the training images, nothing was written: " + "; ".join(faults))
    return highest
