"""Expressions about objects of videos, as MeViS, ReVOS and Ref-YouTube-VOS list them, and which masks are taken.

    meta_expressions.json    {"videos": {vid: {"frames": [name, ...], "expressions": {id: {"exp", ids of objects}}}}}

The published training draws 5 frames of a video and 5 expressions, with replacement, and pairs the masks of the
expressions, one expression after the other, with the names of the 5 frames: the pairs end with the first expression. So
of each video it has one expression, drawn at random, in 5 frames. The same is the default here: ``expressions`` 1 and
``frames`` 5, both without replacement; the published seed is not known. Frames are drawn before empty masks are left
out, so a video gives 5 masks or fewer, and none where the expression speaks of nothing (ReVOS has such).

A mask is the union of the objects that an expression speaks of; its region is called after them (``12+15``), so that
two expressions of the same objects have one region. Where one of the objects cannot be read, the union is a reject.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from converters.files.coco_files import is_side
from converters.files.json_stream import chunks_of, fields_of, noted
from converters.files.unit_index import Entry, UnitRecord, is_key
from converters.masks.indexed_source import Found, RegionList
from converters.masks.options import checked_count, checked_limit
from converters.masks.sampling import drawn
from converters.masks.videos.video_frames import MAX_PIXELS, has_frame
from converters.masks.videos.video_masks import FrameMasks, Size, given
from samtok_data import masks
from samtok_data.errors import RecordError, SetupError
from samtok_data.masks import RLE
from samtok_data.pictures import read_picture
from samtok_data.rejects import Reject
from samtok_data.storage import Folder, is_contained

Objects = tuple[int, ...]
"""Ids, ascending, none twice."""
_VIDEO_FIELDS = ("frames", "height", "width")
_MAX_DIGITS = 18


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What is taken of a video.

    Attributes:
        frames: at most so many, drawn at random; None: all.
        expressions: at most so many, drawn at random; None: all.
        min_area: smaller masks, in pixels, are left out.
        seed: of both draws.
    """

    frames: int | None
    expressions: int | None
    min_area: int
    seed: int

    @property
    def settings(self) -> dict[str, int | None]:
        """As JSON values."""
        return {
            "frames": self.frames,
            "expressions": self.expressions,
            "min_area": self.min_area,
            "seed": self.seed,
        }


def checked_choice_of(frames: Any, expressions: Any, min_area: Any, seed: Any) -> Choice:
    """The options of a source of expressions.

    Raises:
        SetupError: one of them is wrong.
    """
    return Choice(
        frames=checked_limit("frames", frames),
        expressions=checked_limit("expressions", expressions),
        min_area=checked_count("min_area", min_area, 1),
        seed=checked_count("seed", seed, 0),
    )


def video_entries(root: Folder, name: str, label: str, field: str, note: Any) -> Iterator[Entry]:
    """The videos of a file of expressions on their way into an index; the key is the video's id.

    Args:
        root: folder of the source.
        name: of the file under it.
        label: what messages call it.
        field: of an expression that holds its objects' ids.
        note: is shown the file's bytes, piece by piece.

    Raises:
        SetupError: the file is not there, is no JSON, or holds no expression with such ids.
    """
    videos = with_objects = 0
    for video, value in fields_of(noted(chunks_of(root, name, label), note), label, "videos"):
        videos += 1
        key = video if is_key(video) else None
        # So that a video without masks has a row as well.
        yield Entry("annotations", key, {"video": video})
        kept = {one: value[one] for one in _VIDEO_FIELDS if one in value} if isinstance(value, Mapping) else {}
        said = value.get("expressions") if isinstance(value, Mapping) else None
        if isinstance(said, Mapping):
            kept["expressions"] = {
                one: text.get(field) if isinstance(text, Mapping) else None for one, text in said.items()
            }
            with_objects += any(kept["expressions"].values())
        yield Entry("images", key, kept)
    if not with_objects:
        raise SetupError(
            f"{label}: expected 'videos' with 'expressions' that have '{field}', found none among {videos:,} videos; "
            "is it the expressions' file, of a split whose masks are public?"
        )


def object_ids(value: Any) -> Objects:
    """The ids that an expression has: a list of numbers, or one; as numbers or, in Ref-YouTube-VOS, as text.

    Raises:
        RecordError: ``record-invalid``.
    """
    listed = value if isinstance(value, list) else [value]
    numbers: set[int] = set()
    for one in listed:
        is_number = isinstance(one, str) and one.isascii() and one.isdigit() and len(one) <= _MAX_DIGITS
        number = int(one) if is_number else one
        if type(number) is not int or not is_key(number):
            raise RecordError("record-invalid", f"expected ids of objects, got {value!r:.100}")
        numbers.add(number)
    return tuple(sorted(numbers))


@dataclass(frozen=True, slots=True)
class Video:
    """A video of a file of expressions.

    Attributes:
        id: its folder's name, which may be one of several folders deep.
        frames: names without ending, in the order of time.
        size: of the frames, where the file says it.
        expressions: by id: the objects that each speaks of; none where it speaks of nothing.
        rejects: expressions that cannot be used.
    """

    id: str
    frames: tuple[str, ...]
    size: Size | None
    expressions: dict[str, Objects]
    rejects: tuple[Reject, ...]


def read_video(record: UnitRecord) -> Video:
    """The video of a row.

    Raises:
        RecordError: ``record-invalid``, ``record-duplicate``; ``frame-missing`` where the list of frames is empty.
    """
    video = record.key
    if not isinstance(video, str) or not is_contained(video) or not record.images:
        raise RecordError("record-invalid", f"video: expected a relative name, got {record.annotations!r:.100}")
    if len(record.images) > 1:
        raise RecordError("record-duplicate", f"{video}: listed {len(record.images)} times")
    fields = record.images[0]
    frames, said = fields.get("frames"), fields.get("expressions")
    if not isinstance(frames, list) or not isinstance(said, Mapping):
        raise RecordError("record-invalid", f"{video}: expected a list of frames, and expressions")
    if not frames:
        raise RecordError("frame-missing", f"{video}: its list of frames is empty")
    for frame in frames:
        if not isinstance(frame, str) or not frame.isprintable() or not is_contained(frame) or "/" in frame:
            raise RecordError("record-invalid", f"{video}: expected the name of a frame, got {frame!r:.100}")
    if len(set(frames)) < len(frames):
        raise RecordError("record-duplicate", f"{video}: a frame is listed twice")
    expressions: dict[str, Objects] = {}
    rejects: list[Reject] = []
    for one in sorted(said, key=lambda one: (len(one), one)):
        try:
            expressions[one] = object_ids(said[one])
        except RecordError as error:
            rejects.append(Reject.of(error, f"{video}/expression-{one}", {"video": video, "expression": one}))
    # Sorted, as the published readers do before they pair frames with masks.
    return Video(video, tuple(sorted(frames)), _size_of(fields), expressions, tuple(rejects))


def _size_of(fields: Mapping[str, Any]) -> Size | None:
    height, width = fields.get("height"), fields.get("width")
    return (height, width) if is_side(height) and is_side(width) and height * width <= MAX_PIXELS else None


class ObjectMasks(Protocol):
    """The masks of the objects of one video."""

    def fault_of(self, one: int) -> RecordError | None:
        """Why an object has no masks in the whole video; None where it may have some."""
        ...

    def num_frames(self, objects: Sequence[int]) -> int:
        """How many frames the masks of some objects speak of; 0 where frames are told by name."""
        ...

    def at(self, place: int, frame: str, objects: Sequence[int]) -> FrameMasks:
        """The masks of some objects in a frame, and maybe of others.

        Raises:
            RecordError: those of this frame cannot be read.
        """
        ...


def read_expressions(video: Video, source: ObjectMasks, images: Folder, choice: Choice) -> Found:
    """Frames of a video with the masks of its expressions, and what could not be read.

    A frame that has a mask and is not there is one ``frame-missing``.

    Args:
        video: of a file of expressions.
        source: of its masks.
        images: the folder of the videos' folders.
        choice: what is taken.
    """
    yield from video.rejects
    chosen = drawn(list(video.expressions), choice.expressions, seed=choice.seed, key=f"{video.id}/expressions")
    wanted: dict[Objects, list[str]] = {}
    for expression in chosen:
        if video.expressions[expression]:
            wanted.setdefault(video.expressions[expression], []).append(expression)
    for objects in list(wanted):
        faults = [fault for one in objects if (fault := source.fault_of(one)) is not None]
        if faults:
            where = {"video": video.id, "expressions": wanted.pop(objects), "objects": list(objects)}
            yield Reject.of(faults[0], f"{video.id}/{_region(objects)}", where)
    if not wanted:
        return
    num_frames = max(len(video.frames), source.num_frames(_all(wanted)))
    for place in drawn(range(num_frames), choice.frames, seed=choice.seed, key=f"{video.id}/frames"):
        yield from _read_frame(video, source, images, place, list(wanted), choice.min_area)


def _read_frame(
    video: Video, source: ObjectMasks, images: Folder, place: int, wanted: Sequence[Objects], min_area: int
) -> Found:
    is_listed = place < len(video.frames)
    frame = video.frames[place] if is_listed else f"frame-{place}"
    found = RegionList(f"{video.id}/{frame}", min_area)
    where = {"video": video.id, "frame": frame}
    try:
        drawn_on = source.at(place, frame, _all(wanted))
    except RecordError as error:
        yield Reject.of(error, found.scene, where)
        return
    by_object = dict(drawn_on.masks)
    for objects in wanted:
        parts = [by_object[one] for one in objects if one in by_object]
        if parts:
            found.add(_region(objects), {**where, "objects": list(objects)}, partial(_union, parts))
    image = f"{video.id}/{frame}.jpg"
    if found.regions and not (is_listed and has_frame(images, image)):
        error = RecordError("frame-missing", f"{image}: {len(found.regions)} masks, but no such frame under {images}")
        if not is_listed:
            error = RecordError("frame-missing", f"{video.id}: masks of frame {place}, but {len(video.frames)} frames")
        yield Reject.of(error, found.scene, where)
        return
    if drawn_on.size is None:
        yield from found.rejects
    else:
        yield from found.image(image, *drawn_on.size, partial(read_picture, images, image, *drawn_on.size))


def _all(wanted: Iterable[Objects]) -> list[int]:
    return sorted({one for objects in wanted for one in objects})


def _region(objects: Objects) -> str:
    return "+".join(map(str, objects))


def _union(parts: Sequence[RLE | RecordError]) -> RLE:
    return masks.union([given(part) for part in parts])
