"""ReVOS: expressions that need reasoning, about objects in videos of six other sets.

    meta_expressions_train_.json    as MeViS has them, with the frames' height and width; vid is ``mose/...``
    mask_dict.json                  {anno_id: [RLE, list of RLEs or null, one a frame]}; of train and valid together
    JPEGImages/<vid>/00000.jpg      some copies have <vid> beside the files

An expression may speak of nothing. Which masks are taken: ``converters/masks/videos/video_expressions.py``.
Format: README of cilinyan/ReVOS-api.
"""

from __future__ import annotations

from converters.masks.indexed_source import IndexedSource
from converters.masks.options import checked_choice, first_file
from converters.masks.source import MaskSourceInfo, WantedFile
from converters.masks.videos.mask_dicts import open_mask_dict
from converters.masks.videos.video_expressions import checked_choice_of
from samtok_data.storage import Folder

KIND = "revos"
_SPLITS = ("train", "valid")

INFO = MaskSourceInfo(
    kind=KIND,
    title="ReVOS",
    files=(
        WantedFile(
            place="meta_expressions_train_.json",
            content="videos and expressions",
            elsewhere=("meta_expressions_train.json", "ReVOS/meta_expressions_train_.json"),
        ),
        WantedFile(place="mask_dict.json", content="masks by object and frame", elsewhere=("ReVOS/mask_dict.json",)),
        WantedFile(
            place="JPEGImages/**/*.jpg",
            content="frames, or in JPEGImages.zip",
            elsewhere=("ReVOS/JPEGImages/**/*.jpg", "**/*.jpg"),
        ),
    ),
    licence="CC BY-NC-SA 4.0; for non-commercial research only.",
    home="https://github.com/cilinyan/ReVOS-api",
    masks=2_000,
    is_video=True,
)


def open_revos(
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
    """A source of ReVOS; one unit is one video.

    Args:
        root: folder of the source, or the one that ``ReVOS`` lies in.
        index: local folder of the indexes.
        name: of the source.
        split: ``train``, as published, or ``valid``.
        json: the file of expressions under the root; None: the split's.
        masks: the file of masks under the root; None: ``mask_dict.json`` beside the expressions.
        images: the folder of the videos' folders under the root; None: ``JPEGImages`` beside the expressions or, where
            the videos are not in it, the expressions' own folder.
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
    names = (f"meta_expressions_{part}_.json", f"meta_expressions_{part}.json")
    found = first_file(root, "json", json, [folder + one for folder in ("", "ReVOS/", "revos/") for one in names])
    return open_mask_dict(KIND, root, index, name=name, json=found, masks=masks, images=images, choice=choice)
