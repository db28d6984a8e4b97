"""Scenes: one source image with its regions, its views and its dialogues. What a converter yields.

    Region    one mask of the image
    View      the picture that a region is tokenised against: the whole image, or a crop of it
    Dialogue  turns whose text refers to (view, region) instead of holding mask words
    Scene     all of them; the image is read and encoded once, each (view, region) is tokenised once

Nothing here knows a tokenizer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from PIL import Image

from samtok_data import masks
from samtok_data.errors import RecordError
from samtok_data.masks import RLE

WHOLE_IMAGE = "image"


@dataclass(frozen=True, slots=True)
class Region:
    """One mask.

    Attributes:
        id: stable across runs; taken from the annotation's own id where it has one.
        rle: the mask, in the frame of the whole image.
    """

    id: str
    rle: RLE


@dataclass(frozen=True, slots=True)
class View:
    """A picture made from the scene's image.

    Attributes:
        id: unique in the scene; ``WHOLE_IMAGE`` for the image itself.
        crop: (x0, y0, x1, y1) in pixels of the whole image, x1 and y1 one past the last pixel; None: all of it.
        size: (height, width) that the crop is resized to; None: as it is.
    """

    id: str = WHOLE_IMAGE
    crop: tuple[int, int, int, int] | None = None
    size: tuple[int, int] | None = None

    @property
    def is_whole(self) -> bool:
        """Whether the view shows the image unchanged."""
        return self.crop is None and self.size is None

    def of_image(self, image: Image.Image) -> Image.Image:
        """The view of the whole image; bicubic where it is resized (PIL's default, as the published scripts)."""
        picture = image if self.crop is None else image.crop(self.crop)
        return picture if self.size is None else picture.resize((self.size[1], self.size[0]))

    def of_mask(self, rle: RLE) -> RLE:
        """The mask in the view's frame; nearest pixel where it is resized.

        Raises:
            RecordError: ``mask-empty`` where nothing of the mask lies in the view.
        """
        if self.is_whole:
            return rle
        picture = Image.fromarray(masks.decode(rle).astype(np.uint8))
        if self.crop is not None:
            picture = picture.crop(self.crop)  # as the image: what a crop has beyond the image's edge is background
        if self.size is not None:
            picture = picture.resize((self.size[1], self.size[0]), Image.Resampling.NEAREST)
        mask_HW = np.asarray(picture) > 0
        if not mask_HW.any():
            raise RecordError("mask-empty", f"view {self.id}: nothing of the mask lies in it")
        return masks.encode(mask_HW)


@dataclass(frozen=True, slots=True)
class MaskRef:
    """Stands in a text for the mask word of a region as it is seen in a view."""

    region: str
    view: str = WHOLE_IMAGE


Text = tuple[str | MaskRef, ...]


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of a dialogue.

    Attributes:
        speaker: ``human`` or ``gpt``, the published training code's names.
        text: pieces of text and references, in order.
    """

    speaker: Literal["human", "gpt"]
    text: Text


@dataclass(frozen=True, slots=True)
class Dialogue:
    """One training sample.

    Attributes:
        key: unique over the dataset; ASCII without dots, the sample's name in the shard.
        task: what the dialogue trains, e.g. ``referring-segmentation``.
        turns: human first, then in turn.
        views: the views that the ``<image>`` marks of the text show, in order.
        record: the source record as JSON values, for the list of rejects.
    """

    key: str
    task: str
    turns: tuple[Turn, ...]
    views: tuple[str, ...] = (WHOLE_IMAGE,)
    record: Any = field(default=None, compare=False)

    @property
    def refs(self) -> tuple[MaskRef, ...]:
        """The references of all turns, in order; a region named twice stands twice."""
        return tuple(piece for turn in self.turns for piece in turn.text if isinstance(piece, MaskRef))


@dataclass(frozen=True, slots=True)
class Scene:
    """One source image with all that is said of it.

    Attributes:
        id: unique over the dataset's split.
        image: the image file, relative to the image root, with forward slashes.
        height: rows of the image in pixels, as the annotations say.
        width: columns.
        regions: every region that a dialogue refers to, and no other.
        dialogues: at least one.
        views: every view that a dialogue shows or refers to.
    """

    id: str
    image: str
    height: int
    width: int
    regions: tuple[Region, ...]
    dialogues: tuple[Dialogue, ...]
    views: tuple[View, ...] = field(default=(View(),))

    @property
    def pairs(self) -> tuple[MaskRef, ...]:
        """Each (view, region) that a dialogue refers to, once, in order of first mention."""
        return tuple(dict.fromkeys(ref for dialogue in self.dialogues for ref in dialogue.refs))
