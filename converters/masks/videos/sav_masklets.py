"""SA-V's train: a video file with its masklets. Layout and facts: ``converters/masks/videos/sav.py``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

from PIL import Image

from converters.files.json_files import read_json
from converters.files.listings import listed_name
from converters.files.unit_index import UnitRecord, is_key
from converters.masks.indexed_source import Found, RegionList
from converters.masks.source import MaskedImage
from converters.masks.videos.sav_frames import FRAMES_PER_ANNOTATION, Taken
from converters.masks.videos.video_frames import open_video
from converters.masks.videos.video_masks import frame_masks, given
from samtok_data.errors import RecordError
from samtok_data.rejects import Reject
from samtok_data.scenes import Scene
from samtok_data.storage import Folder

Kind = Literal["auto", "manual"]
Masklets = Literal["auto", "manual", "both"]
VIDEO = ".mp4"
MAX_JSON_BYTES = 1 << 27
# Frames beyond those that an annotation covers: one second more is a difference of counting, not another frame rate.
_SLACK = 24


def ending_of(kind: Kind) -> str:
    """How the names of annotation files end."""
    return f"_{kind}.json"


@dataclass(frozen=True, slots=True)
class _Annotation:
    """An annotation file of a video.

    Attributes:
        kind: of its masklets.
        file: its name.
        ids: of the masklets.
        frames: by annotated frame: an RLE for each masklet.
    """

    kind: Kind
    file: str
    ids: list[Any]
    frames: list[Any]

    def masks_at(self, place: int) -> list[tuple[str, Any]]:
        """Regions of an annotated frame, and what the annotation has for each.

        Raises:
            RecordError: ``record-invalid``: it is no list of one mask for each masklet.
        """
        if place >= len(self.frames):
            return []
        frame = self.frames[place]
        if not isinstance(frame, list) or len(frame) != len(self.ids):
            got = f"{len(frame)} of them" if isinstance(frame, list) else f"{frame!r:.100}"
            raise RecordError("record-invalid", f"{self.file}: expected {len(self.ids)} masks in a frame, got {got}")
        return [(f"{self.kind}-{one}", mask) for one, mask in zip(self.ids, frame, strict=True)]


def _read_annotation(folder: Folder, file: str, kind: Kind) -> _Annotation:
    value = read_json(folder, file, most=MAX_JSON_BYTES)
    ids = value.get("masklet_id") if isinstance(value, Mapping) else None
    frames = value.get("masklet") if isinstance(value, Mapping) else None
    if not isinstance(ids, list) or not isinstance(frames, list):
        raise RecordError("annotation-unreadable", f"{file}: expected the lists 'masklet' and 'masklet_id', as SA-V's")
    for one in ids:
        if not is_key(one):
            raise RecordError("record-invalid", f"{file}: masklet_id: expected whole numbers, got {one!r:.100}")
    return _Annotation(kind, file, ids, frames)


@dataclass(frozen=True, slots=True, kw_only=True)
class SavReader:
    """Reads one video.

    Attributes:
        folder: of videos and JSON files, or above them.
        masklets: which.
        taken: what is taken of a video.
    """

    folder: Folder
    masklets: Masklets
    taken: Taken

    def name_of(self, record: UnitRecord) -> str:
        """The video's name, or what its JSON files call it where it is missing."""
        return record.images[0] if record.images else str(record.key)

    def read(self, record: UnitRecord) -> Found:
        """Frames of the video with the masks of its masklets, and what could not be read.

        Each frame that has masks and lies behind the video's end is one ``frame-missing``. Where the file is damaged,
        each one behind that place is ``video-unreadable``; the video is, once, where no frame stands before it.
        """
        key = str(record.key)
        where = {"videos": record.images, "files": record.annotations}
        try:
            video = listed_name(self.folder, record, "video")
            files = self._files(key, record.annotations)
        except RecordError as error:
            yield Reject.of(error, key, where)
            return
        annotations: list[_Annotation] = []
        for kind, file in files:
            try:
                annotations.append(_read_annotation(self.folder, file, kind))
            except RecordError as error:
                yield Reject.of(error, f"{key}/{kind}", {"file": file})
        scenes: dict[int, Scene] = {}
        annotated = max((len(one.frames) for one in annotations), default=0)
        for place in range(0, annotated, self.taken.step):
            scene, rejects = self._scene(key, video, place, annotations)
            yield from rejects
            if scene is not None:
                scenes[place * FRAMES_PER_ANNOTATION] = scene
        if scenes:
            yield from self._frames(key, video, scenes, annotated * FRAMES_PER_ANNOTATION)

    def _files(self, key: str, names: Sequence[str]) -> list[tuple[Kind, str]]:
        """The wanted annotation files. A video may have manual masklets only; then there are no ``auto`` ones."""
        found = [(kind, name) for kind in get_args(Kind) for name in sorted(names) if name.endswith(ending_of(kind))]
        kinds = [kind for kind, _ in found]
        wanted = [(kind, name) for kind, name in found if self.masklets in (kind, "both")]
        if not found or (self.masklets == "manual" and not wanted):
            kind = "manual" if found else "auto"
            raise RecordError("annotation-missing", f"{key}: no {key}{ending_of(kind)} under {self.folder}")
        if len(set(kinds)) < len(kinds):
            raise RecordError("record-duplicate", f"{key}: several files: {', '.join(name for _, name in found)}")
        return wanted

    def _scene(
        self, key: str, video: str, place: int, annotations: Sequence[_Annotation]
    ) -> tuple[Scene | None, list[Reject]]:
        """The scene of an annotated frame, unless it has no mask, and what is no mask."""
        number = place * FRAMES_PER_ANNOTATION
        found = RegionList(f"{key}-{number:05d}", self.taken.min_area)
        where = {"video": video, "frame": number}
        encoded: list[tuple[str, Any]] = []
        for annotation in annotations:
            try:
                encoded += annotation.masks_at(place)
            except RecordError as error:
                found.reject(annotation.kind, {**where, "file": annotation.file}, error)
        drawn_on = frame_masks(encoded)
        for region, mask in drawn_on.masks:
            found.add(region, {**where, "masklet": region}, partial(given, mask))
        regions = self.taken.regions(found)
        scene = Scene(found.scene, video, *drawn_on.size, regions, ()) if regions and drawn_on.size else None
        return scene, found.rejects

    def _frames(self, key: str, video: str, scenes: Mapping[int, Scene], covered: int) -> Found:
        numbers = sorted(scenes)
        done = 0
        try:
            with open_video(self.folder, video) as opened:
                if opened.num_frames is not None and opened.num_frames > covered + _SLACK:
                    raise RecordError(
                        "record-invalid",
                        f"{video}: it has {opened.num_frames} frames, and its annotation covers {covered}; was the "
                        "frame rate changed?",
                    )
                for number, picture in opened.frames(numbers):
                    done += 1
                    yield _masked(scenes[number], picture, number)
        except RecordError as error:
            if not done:
                yield Reject.of(error, key, {"video": video})
                return
            for number in numbers[done:]:
                yield Reject.of(error, scenes[number].id, {"video": video, "frame": number})
            return
        for number in numbers[done:]:
            error = RecordError("frame-missing", f"{video}: masks of frame {number}, but the video ends before it")
            yield Reject.of(error, scenes[number].id, {"video": video, "frame": number})


def _masked(scene: Scene, picture: Image.Image, number: int) -> MaskedImage | Reject:
    if picture.size != (scene.width, scene.height):
        drawn_on, got = f"{scene.width}x{scene.height}", f"{picture.width}x{picture.height}"
        error = RecordError(
            "image-size", f"{scene.image}: frame {number}: its masks are drawn on {drawn_on}, it is {got}"
        )
        return Reject.of(error, scene.id, {"video": scene.image, "frame": number})
    return MaskedImage(scene, picture.copy, frame=number)
