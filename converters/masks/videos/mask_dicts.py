"""Videos whose masks lie in one JSON file, by annotation and frame: MeViS and ReVOS.

    meta_expressions.json    {"videos": {vid: {"frames": [...], "expressions": {id: {"exp", "anno_id": [int, ...]}}}}}
    mask_dict.json           {annotation: [RLE or null, one a frame]}        hundreds of MB: a stream, into the index

The masks of an annotation go to the row of the video whose expressions name it. While the index is built, those names
are in memory (MeViS has 8,171 objects), and the masks of one annotation are: a made-up file of 4.7 GB took 62 s of CPU
time and a peak of 158 MiB, once. What is said of encodings is in ``converters/masks/videos/video_masks.py``.
"""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from converters.files.json_stream import chunks_of, fields_of, noted, sha256_of
from converters.files.unit_index import Entry, UnitIndex, UnitRecord, build_index, index_path, open_index
from converters.masks.indexed_source import Found, IndexedSource
from converters.masks.options import find_folder, first_file, folder_at
from converters.masks.videos.video_expressions import Choice, object_ids, read_expressions, read_video, video_entries
from converters.masks.videos.video_masks import FrameMasks, Size, frame_masks
from samtok_data.errors import RecordError, SetupError
from samtok_data.rejects import Reject
from samtok_data.storage import Folder

MASKS = "mask_dict.json"
IMAGES = "JPEGImages"
_PROBES = 16


def open_mask_dict(
    kind: str, root: Folder, index: str, *, name: str, json: str, masks: Any, images: Any, choice: Choice
) -> IndexedSource:
    """A source of one file of expressions and one of masks; one unit is one video.

    Args:
        kind: of the source.
        root: folder of the source.
        index: local folder of the indexes.
        name: of the source.
        json: the file of expressions.
        masks: option: the file of masks; None: ``mask_dict.json`` beside the expressions.
        images: option: the folder of the videos' folders; None: ``JPEGImages`` beside the expressions, packed or not,
            or, where the videos are not in it, the expressions' own folder.
        choice: what is taken of a video.

    Raises:
        SetupError: a file or folder is not there or of another kind; no video's folder is there.
    """
    base = posixpath.dirname(json)
    dictionary = first_file(root, "masks", masks, (posixpath.join(base, MASKS),))
    found = None if images is None else find_folder(root, "images", images)
    hashes = {"expressions": sha256_of(root, json, f"{root}: {json}")}
    hashes["masks"] = sha256_of(root, dictionary, f"{root}: {dictionary}", "masks")
    path = index_path(index, {"kind": kind, **hashes})
    units = open_index(path) or build_index(path, _entries(root, json, dictionary, hashes))
    folder = found or _folder_of_videos(root, base, units)
    settings = {"kind": kind, **choice.settings, **hashes}
    return IndexedSource(name=name, settings=settings, index=units, reader=MaskDictReader(images=folder, choice=choice))


def _entries(root: Folder, json: str, dictionary: str, hashes: Mapping[str, str]) -> Iterator[Entry]:
    digest = hashlib.sha256()
    videos: dict[str, list[str]] = {}  # that name an annotation
    for entry in video_entries(root, json, f"{root}: {json}", "anno_id", digest.update):
        if entry.table == "images" and isinstance(entry.key, str):
            for annotation in _annotations_of(entry.record):
                videos.setdefault(annotation, []).append(entry.key)
        yield entry
    _require_unchanged(digest.hexdigest(), hashes["expressions"], f"{root}: {json}")
    digest, label, held, used = hashlib.sha256(), f"{root}: {dictionary}", 0, 0
    for annotation, value in fields_of(noted(chunks_of(root, dictionary, label, "masks"), digest.update), label, ""):
        held += 1
        for video in videos.get(annotation, ()):
            used += 1
            yield Entry("annotations", video, {"annotation": annotation, "masks": value})
    if not used:
        raise SetupError(
            f"{label}: it holds {held:,} annotations and none of the {len(videos):,} that {json} names; "
            "name the split's own file with the option masks"
        )
    _require_unchanged(digest.hexdigest(), hashes["masks"], label)


def _annotations_of(record: Mapping[str, Any]) -> set[str]:
    found: set[str] = set()
    for value in record.get("expressions", {}).values():
        try:
            found.update(map(str, object_ids(value)))
        except RecordError:
            continue  # a reject, as soon as the video is read
    return found


def _require_unchanged(found: str, wanted: str, label: str) -> None:
    if found != wanted:
        raise SetupError(f"{label}: it changed while it was read; start again")


def _folder_of_videos(root: Folder, base: str, units: UnitIndex) -> Folder:
    """The first place where one of a few videos lies: some copies have them without the folder of images."""
    step = max(1, units.num_units // _PROBES)
    videos = [key for unit in range(0, units.num_units, step) if isinstance(key := units.read(unit).key, str)]
    places = (posixpath.join(base, IMAGES), base or ".")
    for place in places:
        folder = root if place == "." else folder_at(root, place)
        if folder is not None and any(_has_video(folder, video) for video in videos):
            return folder
    raise SetupError(
        f"{root}: no folder of frames, such as {videos[0] if videos else 'a video'}, under {' or '.join(places)}; name "
        "the folder that holds them with the option images"
    )


def _has_video(folder: Folder, video: str) -> bool:
    try:
        return folder.exists(video)
    except (ValueError, OSError):  # no name of a folder; it is a reject when it is read
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskDictReader:
    """Reads one video.

    Attributes:
        images: folder of the videos' folders.
        choice: what is taken of it.
    """

    images: Folder
    choice: Choice

    def name_of(self, record: UnitRecord) -> str:
        """The video's id."""
        return str(record.key or "a video without a name")

    def read(self, record: UnitRecord) -> Found:
        """Frames of the video with the masks of its expressions."""
        try:
            video = read_video(record)
        except RecordError as error:
            yield Reject.of(error, str(record.key), {"videos": [one for one in record.annotations if "video" in one]})
            return
        held: dict[str, Any] = {}
        for annotation in record.annotations[1:]:
            held.setdefault(annotation["annotation"], annotation["masks"])
        yield from read_expressions(video, _MaskDict(held, video.size), self.images, self.choice)


@dataclass(frozen=True, slots=True)
class _MaskDict:
    """``ObjectMasks`` of annotations that list a mask a frame; a list that ends early has no masks behind its end."""

    held: Mapping[str, Any]
    size: Size | None

    def fault_of(self, one: int) -> RecordError | None:
        if str(one) not in self.held:
            return RecordError("annotation-missing", f"the annotation {one} is not in the file of masks")
        if not isinstance(self.held[str(one)], list):
            return RecordError("record-invalid", f"the annotation {one}: expected a list of masks, one a frame")
        return None

    def num_frames(self, objects: Sequence[int]) -> int:
        return max((len(self.held[str(one)]) for one in objects), default=0)

    def at(self, place: int, frame: str, objects: Sequence[int]) -> FrameMasks:
        listed = ((one, self.held[str(one)]) for one in objects)
        return frame_masks(((one, values[place]) for one, values in listed if place < len(values)), self.size)
