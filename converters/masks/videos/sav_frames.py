"""SA-V's val and test: frames as pictures, and a binary PNG file for each object of every 4th frame.

    JPEGImages_24fps/<vid>/00000.jpg          every frame
    Annotations_6fps/<vid>/000/00000.png      object 000 in the frames 00000, 00004, 00008, ...; every pixel not 0

A frame's own size is read when it is opened; its masks have the size that most of its PNG files have. An object whose
file is missing or black in a frame is not in it. Format: sav_dataset/README.md of facebookresearch/sam2.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from converters.files.listings import PICTURE_SUFFIXES, index_listing, list_tree, named_entry, stem_of
from converters.files.unit_index import Entry, UnitRecord
from converters.masks.indexed_source import Found, IndexedSource, RegionList
from converters.masks.options import folder_at
from converters.masks.sampling import drawn
from converters.masks.source import MaskedImage
from converters.masks.videos.video_masks import decode_object_pngs, given
from samtok_data.errors import RecordError, SetupError
from samtok_data.pictures import read_picture
from samtok_data.rejects import Reject
from samtok_data.scenes import Region, Scene
from samtok_data.storage import Folder

IMAGES, ANNOTATIONS = "JPEGImages_24fps", "Annotations_6fps"
FRAMES_PER_ANNOTATION = 4
_MAX_DIGITS = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What is taken of a video.

    Attributes:
        step: every so many annotated frames, from the first one on.
        min_area: smaller masks, in pixels, are left out.
        masks_per_image: at most so many of a frame, drawn at random; None: all.
        seed: of the draw.
    """

    step: int
    min_area: int
    masks_per_image: int | None
    seed: int

    @property
    def settings(self) -> dict[str, int | None]:
        """As JSON values."""
        return {
            "step": self.step,
            "min_area": self.min_area,
            "masks_per_image": self.masks_per_image,
            "seed": self.seed,
        }

    def regions(self, found: RegionList) -> tuple[Region, ...]:
        """Those of a frame's regions that are taken."""
        return tuple(drawn(found.regions, self.masks_per_image, seed=self.seed, key=found.scene))


def open_sav_frames(kind: str, folder: Folder, index: str, *, name: str, taken: Taken) -> IndexedSource | None:
    """A source of val or test; one unit is one video. None where the folder has another layout.

    Args:
        kind: of the source.
        folder: of the two folders.
        index: local folder of the indexes.
        name: of the source.
        taken: what is taken of a video.

    Raises:
        SetupError: one of the two folders holds nothing.
    """
    images, pngs = folder_at(folder, IMAGES), folder_at(folder, ANNOTATIONS)
    if images is None or pngs is None:
        return None
    digest, units = index_listing(kind, index, partial(_entries, folder, images, pngs))
    settings = {"kind": kind, "layout": "frames", **taken.settings, "names": digest}
    reader = SavFramesReader(images=images, masks=pngs, taken=taken)
    return IndexedSource(name=name, settings=settings, index=units, reader=reader)


def _entries(folder: Folder, images: Folder, pngs: Folder) -> Iterator[Entry]:
    videos: set[str] = set()
    annotated = 0
    for name in list_tree(images, 1):
        video = posixpath.dirname(name)
        if video and stem_of(name, PICTURE_SUFFIXES) is not None:
            if video not in videos:
                videos.add(video)
                yield named_entry("annotations", video, video)  # so that a video without PNG files has a row as well
            yield named_entry("images", video, name)
    for name in list_tree(pngs, 2):
        if name.count("/") == 2 and stem_of(name, (".png",)) is not None:
            annotated += 1
            yield named_entry("annotations", name.split("/")[0], name)
    if not videos or not annotated:
        raise SetupError(
            f"{folder}: expected {IMAGES}/<video>/00000.jpg and {ANNOTATIONS}/<video>/000/00000.png, found "
            f"{len(videos):,} videos and {annotated:,} PNG files"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SavFramesReader:
    """Reads one video.

    Attributes:
        images: folder of the videos' frames.
        masks: folder of the videos' PNG files.
        taken: what is taken of it.
    """

    images: Folder
    masks: Folder
    taken: Taken

    def name_of(self, record: UnitRecord) -> str:
        """The video's id."""
        return str(record.key)

    def read(self, record: UnitRecord) -> Found:
        """Frames of the video with the masks of its objects; a frame that has masks and is not there is one reject."""
        video = str(record.key)
        pngs = sorted(name for name in record.annotations if "/" in name)
        if not pngs:
            error = RecordError("annotation-missing", f"{video}: no PNG file under {self.masks}")
            yield Reject.of(error, video, {"video": video})
            return
        if not record.images:
            error = RecordError("frame-missing", f"{video}: no frame under {self.images}")
            yield Reject.of(error, video, {"video": video})
            return
        frames: dict[int, list[str]] = {}
        for name in pngs:
            number = _number_of(name)
            if number is None:
                error = RecordError("record-invalid", f"{name}: expected the number of a frame as name")
                yield Reject.of(error, posixpath.splitext(name)[0], {"mask": name})
            elif number % (FRAMES_PER_ANNOTATION * self.taken.step) == 0:
                frames.setdefault(number, []).append(name)
        images = {_number_of(name): name for name in record.images}
        for number in sorted(frames):
            yield from self._frame(f"{video}/{number:05d}", frames[number], images.get(number))

    def _frame(self, scene: str, files: list[str], image: str | None) -> Found:
        found = RegionList(scene, self.taken.min_area)
        drawn_on = decode_object_pngs(self.masks, [(name.split("/")[1], name) for name in files])
        for one, mask in drawn_on.masks:
            found.add(one, {"object": one, "masks": files}, partial(given, mask))
        regions = self.taken.regions(found)
        if regions and image is None:
            error = RecordError("frame-missing", f"{scene}: {len(regions)} masks, but no such frame")
            yield Reject.of(error, scene, {"masks": files})
            return
        yield from found.rejects
        if regions and image is not None and drawn_on.size is not None:
            opened = partial(read_picture, self.images, image, *drawn_on.size)
            yield MaskedImage(Scene(scene, image, *drawn_on.size, regions, ()), opened)


def _number_of(name: str) -> int | None:
    stem = posixpath.splitext(posixpath.basename(name))[0]
    return int(stem) if stem.isascii() and stem.isdigit() and len(stem) <= _MAX_DIGITS else None
