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

LISTING = "listing"
"""The setting that is a hash of a source's files, where these may be added to."""


@dataclass(frozen=True, slots=True)
class MaskedImage:
    """One image, or one frame of a video, with its masks.

    Attributes:
        scene: regions and no dialogues; the masks are not empty and have the image's size. Its ``image`` is the file's
            name in the source's folder of images, whether that lies on a disk, in a store or in a zip.
        open: reads and decodes the picture: RGB, of the scene's size, EXIF orientation not applied. Raises RecordError
            with one of ``IMAGE_REASONS``. A picture that nobody opens is not decoded, but for frames of a video file,
            which are decoded one after the other as the source is read.
        archive: the tar that the source is published as and ``scene.image`` begins with (SA-1B's); None: there is none.
        frame: number of the frame in the video file that ``scene.image`` names, from 0 on; None: it is no video file.
    """

    scene: Scene
    open: Callable[[], Image.Image]
    archive: str | None = None
    frame: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedFile:
    """A file or folder that a source wants under its root.

    Attributes:
        place: relative to the root, as the source is published; a shell pattern where there are many.
        content: what it is, in a few words.
        elsewhere: other places in which it is found.
        is_optional: whether the source can be read without it.
    """

    place: str
    content: str
    elsewhere: tuple[str, ...] = ()
    is_optional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskSourceInfo:
    """What a user wants to know of a mask source before a run.

    Attributes:
        kind: as ``--dataset`` and ``kind`` take it.
        title: as the authors write it.
        files: what lies where under the root.
        licence: terms of masks and images, in one sentence.
        home: where it is published.
        images: as published, with the usual options; of a source of videos, videos. None where no table gives it.
        masks: with the usual options, that the published tokenizer was trained on; None where no table gives it.
        is_video: whether its units are videos.
    """

    kind: str
    title: str
    files: tuple[WantedFile, ...]
    licence: str
    home: str
    images: int | None = None
    masks: int | None = None
    is_video: bool = False


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


class PortableSource(MaskSource, Protocol):
    """A mask source whose units can be read where the index is not: on another machine, from what the driver sends."""

    @property
    def listing(self) -> tuple[str, ...] | None:
        """The file of each unit with its size, where more may be added to them later; None: the units are fixed.

        What a unit gives then depends on its file and the options; ``settings`` holds a hash of all under ``LISTING``.
        """
        ...

    def records(self, units: range) -> list[Any]:
        """What each of some units that follow each other is read from, as JSON values.

        Raises:
            SetupError: the index cannot be read.
        """
        ...

    def read_record(self, record: Any) -> Iterator[MaskedImage | Reject]:
        """As ``read``, by one of ``records``."""
        ...
