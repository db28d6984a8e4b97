"""Ref-YouTube-VOS: expressions about single objects in YouTube-VOS's videos.

    meta_expressions/train/meta_expressions.json    videos, their frames' names and expressions: obj_id: "1"
    train/JPEGImages/<vid>/00000.jpg                names step by 5
    train/Annotations/<vid>/00000.png               a palette: the pixel is the object's id, 0 is background

Only train has public masks. The published training reads them from a pickle of others' making, by a running number of
the expression; here they are read from the PNG files, which have the objects' own ids. Which masks are taken:
``converters/masks/videos/video_expressions.py``. Format: data.md of wjn922/ReferFormer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from converters.files.json_stream import sha256_of
from converters.files.unit_index import Entry, UnitRecord, build_index, index_path, open_index
from converters.masks.indexed_source import Found, IndexedSource
from converters.masks.options import first_file, first_folder
from converters.masks.source import MaskSourceInfo, WantedFile
from converters.masks.videos.video_expressions import (
    Choice,
    checked_choice_of,
    read_expressions,
    read_video,
    video_entries,
)
from converters.masks.videos.video_masks import FrameMasks, decode_object_map
from samtok_data.errors import RecordError, SetupError
from samtok_data.pictures import read_file
from samtok_data.rejects import Reject
from samtok_data.storage import Folder

KIND = "ref-youtube-vos"
_JSON = "meta_expressions/train/meta_expressions.json"
_FOLDERS = ("", "ref-youtube-vos/", "rvos/")

INFO = MaskSourceInfo(
    kind=KIND,
    title="Ref-YouTube-VOS",
    files=(
        WantedFile(
            place=_JSON,
            content="videos and expressions",
            elsewhere=("train/meta_expressions.json", "meta_expressions.json"),
        ),
        WantedFile(place="train/JPEGImages/*/*.jpg", content="frames", elsewhere=("train.zip", "JPEGImages")),
        WantedFile(place="train/Annotations/*/*.png", content="masks", elsewhere=("train.zip", "Annotations")),
    ),
    licence="YouTube-VOS's terms; read them where the set is published.",
    home="https://youtube-vos.org/dataset/rvos",
    images=3_471,
    masks=16_000,
    is_video=True,
)


def open_ref_youtube_vos(
    root: Folder,
    index: str,
    *,
    name: str = KIND,
    json: str | None = None,
    images: str | None = None,
    masks: str | None = None,
    frames: int | None = 5,
    expressions: int | None = 1,
    min_area: int = 1,
    seed: int = 0,
) -> IndexedSource:
    """A source of Ref-YouTube-VOS; one unit is one video.

    Args:
        root: folder of the source.
        index: local folder of the indexes.
        name: of the source.
        json: the file of expressions under the root; None: train's.
        images: the folder of the videos' frames under the root; None: ``train/JPEGImages``.
        masks: the folder of the videos' PNG files under the root; None: ``train/Annotations``.
        frames: at most so many of a video, drawn at random: 5, as published; None: all.
        expressions: at most so many of a video, drawn at random: 1, which is what the published draw of 5 comes down
            to; None: all.
        min_area: smaller masks, in pixels, are left out.
        seed: of both draws.

    Raises:
        SetupError: an option is wrong, a file or folder is not there or of another kind.
    """
    choice = checked_choice_of(frames, expressions, min_area, seed)
    files = (_JSON, "train/meta_expressions.json", "meta_expressions.json")
    found = first_file(root, "json", json, [folder + file for folder in _FOLDERS for file in files])
    pictures = first_folder(root, "images", images, _places("JPEGImages"))
    maps = first_folder(root, "masks", masks, _places("Annotations"))
    sha256 = sha256_of(root, found, f"{root}: {found}")
    path = index_path(index, {"kind": KIND, "sha256": sha256})
    units = open_index(path) or build_index(path, _entries(root, found, sha256))
    settings = {"kind": KIND, **choice.settings, "sha256": sha256}
    reader = RefYoutubeVosReader(images=pictures, masks=maps, choice=choice)
    return IndexedSource(name=name, settings=settings, index=units, reader=reader)


def _places(folder: str) -> list[str]:
    return [above + split + folder for above in _FOLDERS for split in ("train/", "")]


def _entries(root: Folder, name: str, sha256: str) -> Iterator[Entry]:
    digest = hashlib.sha256()
    yield from video_entries(root, name, f"{root}: {name}", "obj_id", digest.update)
    if digest.hexdigest() != sha256:
        raise SetupError(f"{root}: {name}: it changed while it was read; start again")


@dataclass(frozen=True, slots=True, kw_only=True)
class RefYoutubeVosReader:
    """Reads one video.

    Attributes:
        images: folder of the videos' frames.
        masks: folder of the videos' PNG files.
        choice: what is taken of it.
    """

    images: Folder
    masks: Folder
    choice: Choice

    def name_of(self, record: UnitRecord) -> str:
        """The video's id."""
        return str(record.key or "a video without a name")

    def read(self, record: UnitRecord) -> Found:
        """Frames of the video with the objects of its expressions."""
        try:
            video = read_video(record)
        except RecordError as error:
            yield Reject.of(error, str(record.key), {"videos": record.annotations})
            return
        yield from read_expressions(video, _ObjectMaps(self.masks, video.id), self.images, self.choice)


@dataclass(frozen=True, slots=True)
class _ObjectMaps:
    """``ObjectMasks`` of a folder of PNG files. An object that a frame's file does not hold is not in the frame."""

    folder: Folder
    video: str

    def fault_of(self, one: int) -> RecordError | None:
        return None

    def num_frames(self, objects: Sequence[int]) -> int:
        return 0

    def at(self, place: int, frame: str, objects: Sequence[int]) -> FrameMasks:
        name = f"{self.video}/{frame}.png"
        return decode_object_map(read_file(self.folder, name, missing="annotation-missing", kind="PNG file"), name)
