"""Writes small videos, and sets of videos whose frames and masks lie in files of their own."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from samtok_data import masks
from tests.converters.mask_sources import HEIGHT, WIDTH, columns, photograph

NOTHING = masks.encode(columns(0) > 0).json
"""An RLE of zero area."""


def stripe(place: int, of: int = 4) -> dict[str, Any]:
    """The RLE of one upright stripe of several; of 600 pixels where there are four."""
    labels = [0] * of
    labels[place] = 1
    return masks.encode(columns(*labels) == 1).json


GREYS = 50


def grey_of(number: int) -> int:
    """What the frame of this number is painted with: every 50 frames the same ones come again."""
    return 20 + 4 * (number % GREYS)


def video(path: Path, frames: int, *, height: int = HEIGHT, width: int = WIDTH, turn: int = 0, noise: int = 0) -> Path:
    """An mp4 whose frames are grey, brighter from one to the next; its index stands before its data.

    Args:
        path: of the file.
        frames: how many.
        height: of the stored frames.
        width: of the stored frames.
        turn: degrees counter-clockwise that a player turns it by.
        noise: at most so much is added to each pixel.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=24, options={"preset": "ultrafast", "g": "12"})
        stream.width, stream.height, stream.pix_fmt, stream.thread_count = width, height, "yuv420p", 1
        if turn:
            stream.set_display_rotation(turn)
        for number in range(frames):
            pixels = np.full((height, width, 3), grey_of(number), np.uint8)
            pixels += generator.integers(0, noise + 1, pixels.shape, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(stream.encode())
    return path


def number_of(picture: Image.Image) -> int:
    """The frame that a picture shows, modulo ``GREYS``."""
    middle = np.asarray(picture.convert("L"))[picture.height // 2, picture.width // 2]
    return round((int(middle) - 20) / 4)


def expressions(*anno_ids: Any, field: str = "anno_id") -> dict[str, Any]:
    """Expressions of these objects, called 0, 1, ..."""
    return {str(place): {"exp": f"number {place}", field: ids} for place, ids in enumerate(anno_ids)}


def names(number: int, step: int = 1) -> list[str]:
    """Names of frames."""
    return [f"{place * step:05d}" for place in range(number)]


def described(frames: Iterable[Any], said: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """An entry of ``videos``."""
    return {"vid_id": 7, "frames": list(frames), "expressions": said, **more}


def write_json(path: Path, value: Any) -> Path:
    """A JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def write_frames(folder: Path, videos: Mapping[str, Any]) -> None:
    """A picture for each frame of each video."""
    for video_id, value in videos.items():
        for frame in value["frames"]:
            photograph(folder / video_id / f"{frame}.jpg")
