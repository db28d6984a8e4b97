"""MeViS: expressions about the motion of objects in videos, with a mask a frame and object.

    train/meta_expressions.json    videos, their frames' names and expressions: anno_id: [int, ...]
    train/mask_dict.json           {anno_id: [RLE or null, one a frame]}
    train/JPEGImages/<vid>/00000.jpg

``valid_u`` has the same files; ``valid`` has no masks. Which masks are taken:
``converters/masks/videos/video_expressions.py``. Format: README of henghuiding/MeViS.
"""

from __future__ import annotations

from converters.masks.indexed_source import IndexedSource
from converters.masks.options import checked_choice, first_file
from converters.masks.source import MaskSourceInfo, WantedFile
from converters.masks.videos.mask_dicts import open_mask_dict
from converters.masks.videos.video_expressions import checked_choice_of
from samtok_data.storage import Folder

KIND = "mevis"
_SPLITS = ("train", "valid_u")
_JSON = "meta_expressions.json"

INFO = MaskSourceInfo(
    kind=KIND,
    title="MeViS",
    files=(
        WantedFile(place=f"train/{_JSON}", content="videos and expressions", elsewhere=(f"mevis/train/{_JSON}", _JSON)),
        WantedFile(
            place="train/mask_dict.json",
            content="masks by object and frame",
            elsewhere=("mevis/train/mask_dict.json", "mask_dict.json"),
        ),
        WantedFile(
            place="train/JPEGImages/*/*.jpg",
            content="frames, or in JPEGImages.zip",
            elsewhere=("mevis/train/JPEGImages/*/*.jpg", "JPEGImages/*/*.jpg"),
        ),
    ),
    licence="CC BY-NC-SA 4.0; videos for non-commercial research only.",
    home="https://github.com/henghuiding/MeViS",
    images=1_662,
    masks=7_000,
    is_video=True,
)


def open_mevis(
    root: Folder,
    index: str,
    *,
    name: str = KIND,
    split: str = "train",
    json: str | None = None,
    masks: str | None = None,
    images: str | None = None,
    frames: int | None = 5,
    expressions: int | None = 1,
    min_area: int = 1,
    seed: int = 0,
) -> IndexedSource:
    """A source of MeViS; one unit is one video.

    Args:
        root: folder of the source: of the splits, of one split, or the one that ``mevis`` lies in.
        index: local folder of the indexes.
        name: of the source.
        split: ``train``, as published, or ``valid_u``.
        json: the file of expressions under the root; None: the split's.
        masks: the file of masks under the root; None: ``mask_dict.json`` beside the expressions.
        images: the folder of the videos' folders under the root; None: ``JPEGImages`` beside the expressions.
        frames: at most so many of a video, drawn at random: 5, as published; None: all.
        expressions: at most so many of a video, drawn at random: 1, which is what the published draw of 5 comes down
            to; None: all. The masks of one frame are united for each expression.
        min_area: smaller masks, in pixels, are left out.
        seed: of both draws.

    Raises:
        SetupError: an option is wrong, a file or folder is not there or of another kind.
    """
    choice = checked_choice_of(frames, expressions, min_area, seed)
    part = checked_choice("split", split, _SPLITS)
    places = (f"{part}/{_JSON}", f"mevis/{part}/{_JSON}", f"MeViS/{part}/{_JSON}", _JSON)
    found = first_file(root, "json", json, places)
    return open_mask_dict(KIND, root, index, name=name, json=found, masks=masks, images=images, choice=choice)
