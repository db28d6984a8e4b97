"""What a mask source is: images with their masks, in units, without dialogues.

    driver:  open_source(...) -> MaskSource      finds the files; indexes an annotation file once, where it has one
    worker:  MaskSource.read(unit) -> MaskedImages and Rejects       one after the other, as a stream

A unit is what is read in one go: a tar, or one image of a source that is indexed. Nothing holds a whole source in
memory: units are numbers, an index lies on disk, a tar is read from front to back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image

from samtok_data.rejects import Reject
from samtok_data.scenes import Scene


@dataclass(frozen=True, slots=True)
class MaskedImage:
    """One image, or one frame of a video, with its masks.

    Attributes:
        scene: regions and no dialogues; the masks are not empty and have the image's size.
        open: reads and decodes the picture: RGB, of the scene's size, EXIF orientation not applied. Raises RecordError
            with one of ``IMAGE_REASONS``. A picture that nobody opens is not decoded.
    """

    scene: Scene
    open: Callable[[], Image.Image]


class MaskSource(Protocol):
    """One source under given options. Small, immutable, can be pickled; files are opened where they are read."""

    @property
    def name(self) -> str:
        """Shown in reports; lower-case ASCII letters, digits, hyphens."""
        ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """What decides which masks it yields, as JSON values: kind, options, hashes of its files. No addresses."""
        ...

    @property
    def num_units(self) -> int:
        """How many units there are; at least 1."""
        ...

    def unit_name(self, unit: int) -> str:
        """What messages call a unit, e.g. the tar's name."""
        ...

    def read(self, unit: int) -> Iterator[MaskedImage | Reject]:
        """The images of a unit, in the order in which they lie there, and what could not be read.

        A damaged part becomes a Reject and reading goes on where it can.

        Args:
            unit: in ``0 .. num_units - 1``.

        Raises:
            SetupError: the file system itself fails, or the files are no longer those that were indexed.
        """
        ...
