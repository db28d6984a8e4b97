"""Training examples: images and masks as tensors, made on the CPU in any process.

Letters: B images, N masks, S side of the network's square, P = S / 4 side of prompts and logits.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from samtok_data import masks
from samtok_data.masks import RLE, Mask
from tokenizer_model.config import TokenizerConfig
from tokenizer_model.training.augment import RandomView
from tokenizer_model.training.recipe import Augmentation

# Of a mask that a crop cuts, so much must remain, or a sliver at the edge would stand for an object elsewhere.
MIN_SHARE_LEFT = 0.3
MIN_PIXELS_LEFT = 16


@dataclass(frozen=True, slots=True)
class Examples:
    """Some images with their masks.

    Attributes:
        pixels: uint8, (B, S, S, 3), RGB.
        prompts: uint8, (N, P, P): the masks, 0 to 255 for 0 to 1, bilinear with antialias. Rounded (by at most 1/510),
            because a step's prompts travel from process to process.
        targets: bool, (N, P, P): the masks, nearest pixel.
        boxes: float32, (N, 4), as ``masks.prompt_box``.
        owners: int64, (N,), each in ``0 .. B - 1``: the image of each mask.
    """

    pixels: Tensor
    prompts: Tensor
    targets: Tensor
    boxes: Tensor
    owners: Tensor

    @property
    def num_masks(self) -> int:
        """N."""
        return len(self.owners)

    @property
    def num_images(self) -> int:
        """B."""
        return len(self.pixels)

    def to(self, device: torch.device) -> Examples:
        """The same on a device."""
        return Examples(*(getattr(self, entry.name).to(device, non_blocking=True) for entry in fields(self)))

    def pin_memory(self) -> Examples:
        """The same in memory from which a GPU copies while others compute."""
        return Examples(*(getattr(self, entry.name).pin_memory() for entry in fields(self)))

    def split(self, num_images: int) -> list[Examples]:
        """In parts of so many images, in order; the last may have fewer."""
        parts = []
        for start in range(0, self.num_images, num_images):
            stop = min(start + num_images, self.num_images)
            inside_N = (self.owners >= start) & (self.owners < stop)
            parts.append(
                Examples(
                    self.pixels[start:stop],
                    self.prompts[inside_N],
                    self.targets[inside_N],
                    self.boxes[inside_N],
                    self.owners[inside_N] - start,
                )
            )
        return parts

    @classmethod
    def joined(cls, parts: Sequence[Examples]) -> Examples:
        """Several as one, in order."""
        owners, images = [], 0
        for part in parts:
            owners.append(part.owners + images)
            images += part.num_images
        return cls(
            *(torch.cat([getattr(part, name) for part in parts]) for name in ("pixels", "prompts", "targets", "boxes")),
            owners=torch.cat(owners),
        )


def example_of(
    image: Image.Image,
    regions: Sequence[RLE],
    config: TokenizerConfig,
    *,
    masks_per_image: int,
    augmentation: Augmentation,
    rng: random.Random,
) -> Examples:
    """One image as a training example.

    Args:
        image: RGB.
        regions: at least one mask of the image's size, none of them empty.
        config: says S and P.
        masks_per_image: at most so many masks, drawn without repetition.
        augmentation: how the view may differ from the image.
        rng: decides everything; the same state gives the same example.
    """
    view = RandomView.draw(*image.size, augmentation, rng)
    chosen = _seen(regions, view, masks_per_image, rng)
    if not chosen:  # the crop shows none of them: take the whole image
        view = RandomView((0, 0, *image.size), view.mirrored, view.colours, view.shrink)
        chosen = _seen(regions, view, masks_per_image, rng)
    side = config.logit_side
    prompts_NPP = np.empty((len(chosen), side, side), np.uint8)
    targets_NPP = np.empty((len(chosen), side, side), np.bool_)
    boxes_N4 = np.empty((len(chosen), 4), np.float32)
    for index, mask_HW in enumerate(chosen):
        grey = Image.fromarray(np.ascontiguousarray(mask_HW).view(np.uint8) * np.uint8(255))
        prompts_NPP[index] = np.asarray(grey.resize((side, side), Image.Resampling.BILINEAR))
        targets_NPP[index] = nearest(mask_HW, side)
        boxes_N4[index] = masks.prompt_box_of(mask_HW)
    return Examples(
        torch.from_numpy(np.array(view.of_image(image, config.image_size)))[None],
        torch.from_numpy(prompts_NPP),
        torch.from_numpy(targets_NPP),
        torch.from_numpy(boxes_N4),
        torch.zeros(len(chosen), dtype=torch.int64),
    )


def nearest(mask_HW: Mask, side: int) -> Mask:
    """A mask as a square by the nearest pixel, the floor of the position as torch's ``nearest`` takes it."""
    height, width = mask_HW.shape
    rows, columns = np.arange(side) * height // side, np.arange(side) * width // side
    return mask_HW[rows[:, None], columns]


def _seen(regions: Sequence[RLE], view: RandomView, number: int, rng: random.Random) -> list[Mask]:
    """Masks of the view in random order, at most so many, those left out of which it shows too little."""
    found: list[Mask] = []
    for rle in rng.sample(regions, len(regions)):
        if len(found) == number:
            break
        mask_HW = view.of_mask(masks.decode(rle))
        area = masks.area(rle)
        if np.count_nonzero(mask_HW) >= min(area, max(MIN_PIXELS_LEFT, MIN_SHARE_LEFT * area)):
            found.append(mask_HW)
    return found
