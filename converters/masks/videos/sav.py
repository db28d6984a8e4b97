"""SA-V: videos with masklets; an annotation every 4th frame (videos have 24 frames a second, annotations 6).

    sav_000/sav_000001.mp4           anywhere up to four folders below: sav_train/sav_000/, sav_000/sav_train/sav_000/
    sav_000/sav_000001_auto.json     masklet[annotated frame][masklet] = RLE, masklet_id[masklet]
    sav_000/sav_000001_manual.json   the same, drawn by people: of all 50,583 videos; 48,436 have automatic ones

    JPEGImages_24fps/<vid>/00000.jpg             val and test: ``converters/masks/videos/sav_frames.py``
    Annotations_6fps/<vid>/000/00000.png

The published training takes the automatic masklets of every 10th annotated frame, which is every 40th of the video. A
masklet that is not in a frame has an RLE of zero area there. Boxes and areas of the file are not used.
Format: sav_dataset/README.md of facebookresearch/sam2.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from functools import partial
from typing import get_args

from converters.files.listings import index_listing, list_tree, named_entry
from converters.files.unit_index import Entry
from converters.masks.indexed_source import IndexedSource
from converters.masks.options import checked_choice, checked_count, checked_limit, first_folder
from converters.masks.source import MaskSourceInfo, WantedFile
from converters.masks.videos.sav_frames import ANNOTATIONS, IMAGES, Taken, open_sav_frames
from converters.masks.videos.sav_masklets import VIDEO, Kind, Masklets, SavReader, ending_of
from samtok_data.errors import SetupError
from samtok_data.storage import Folder

KIND = "sav"
_DEPTH = 4

INFO = MaskSourceInfo(
    kind=KIND,
    title="SA-V",
    files=(
        WantedFile(
            place="sav_train/sav_*/sav_*.mp4",
            content="videos",
            elsewhere=("sav_*/sav_train/sav_*/sav_*.mp4", "sav_*.mp4", f"{IMAGES}/*/*.jpg"),
        ),
        WantedFile(
            place="sav_train/sav_*/sav_*_auto.json",
            content="automatic masklets",
            elsewhere=("sav_*/sav_train/sav_*/sav_*_auto.json", "sav_*_auto.json", f"{ANNOTATIONS}/*/*/*.png"),
        ),
        WantedFile(
            place="sav_train/sav_*/sav_*_manual.json",
            content="masklets drawn by people",
            elsewhere=("sav_*/sav_train/sav_*/sav_*_manual.json", "sav_*_manual.json"),
            is_optional=True,
        ),
    ),
    licence="CC BY 4.0, videos and annotations.",
    home="https://ai.meta.com/datasets/segment-anything-video/",
    images=48_436,
    masks=2_000_000,
    is_video=True,
)


def open_sav(
    root: Folder,
    index: str,
    *,
    name: str = KIND,
    videos: str | None = None,
    masklets: str = "auto",
    step: int = 10,
    min_area: int = 1,
    masks_per_image: int | None = None,
    seed: int = 0,
) -> IndexedSource:
    """A source of SA-V; one unit is one video.

    Args:
        root: folder of the source.
        index: local folder of the indexes.
        name: of the source.
        videos: the folder under the root that holds the videos and JSON files, up to four folders below, or val's or
            test's two folders; ``sav_000.tar`` is one as well. None: ``sav_train``, or else the root.
        masklets: ``auto``, as published: a video that has only manual ones gives nothing; ``manual`` or ``both``. Of
            no meaning to val and test.
        step: every so many annotated frames, from the first one on: 10, as published; 1: all.
        min_area: smaller masks, in pixels, are left out.
        masks_per_image: at most so many of a frame, drawn at random; None: all, as published.
        seed: of the draw.

    Raises:
        SetupError: an option is wrong, there is no video, or none has such masklets.
    """
    which: Masklets = checked_choice("masklets", masklets, get_args(Masklets))
    every, area = checked_count("step", step, 1), checked_count("min_area", min_area, 1)
    most, start = checked_limit("masks_per_image", masks_per_image), checked_count("seed", seed, 0)
    taken = Taken(step=every, min_area=area, masks_per_image=most, seed=start)
    folder = first_folder(root, "videos", videos, ("sav_train", "."))
    framed = open_sav_frames(KIND, folder, index, name=name, taken=taken)
    if framed is not None:
        return framed
    digest, units = index_listing(KIND, index, partial(_entries, folder, which))
    reader = SavReader(folder=folder, masklets=which, taken=taken)
    settings = {"kind": KIND, "masklets": which, **taken.settings, "names": digest}
    return IndexedSource(name=name, settings=settings, index=units, reader=reader)


def _entries(folder: Folder, which: Masklets) -> Iterator[Entry]:
    videos = wanted = 0
    for name in list_tree(folder, _DEPTH):
        if name.endswith(VIDEO):
            videos += 1
            stem = _stem_of(name, VIDEO)
            yield named_entry("images", stem, name)
            yield named_entry("annotations", stem, name)  # so that a video without a JSON file has a row as well
        for kind in get_args(Kind):
            if name.endswith(ending_of(kind)):
                wanted += which in (kind, "both")
                yield named_entry("annotations", _stem_of(name, ending_of(kind)), name)
    if not videos or not wanted:
        kind = "_*.json" if which == "both" else ending_of(which)
        raise SetupError(
            f"{folder}: {videos:,} videos (sav_000001.mp4) and {wanted:,} files of masklets (sav_000001{kind}), here "
            f"or up to {_DEPTH} folders below; name their folder with the option videos (val: sav_val, with {IMAGES})"
        )


def _stem_of(name: str, ending: str) -> str:
    return posixpath.basename(name).removesuffix(ending)
