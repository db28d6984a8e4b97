"""Training examples: images and masks as tensors, made on the CPU in any process.

Letters: B images, N masks, S side of the network's square, P = S / 4 side of prompts and logits.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
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

Grey = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Examples:
    """Some images with their masks.

    Attributes:
        pixels: uint8, (B, S, S, 3), RGB.
        prompts: uint8, (N, P, P): the masks, 0 to 255 for 0 to 1, bilinear with antialias. Rounded (by at most 1/255),
            because a step's prompts travel from process to process.
        targets: bool, (N, P, P): the masks, nearest pixel.
        boxes: float32, (N, 4), as ``masks.prompt_box``.
        owners: int64, (N,), each in ``0 .. B - 1``: the image of each mask.
        colours: float32, (B, 3, 4): what is done to the colours, 0 to 255; rows give red, green and blue, columns
            what of red, green, blue and 1 goes into them. On the CPU it would take as long as resizing the image.
    """

    pixels: Tensor
    prompts: Tensor
    targets: Tensor
    boxes: Tensor
    owners: Tensor
    colours: Tensor

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
        if num_images >= self.num_images:
            return [self]
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
                    self.colours[start:stop],
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
        joined = {entry.name: torch.cat([getattr(part, entry.name) for part in parts]) for entry in fields(cls)}
        return cls(**{**joined, "owners": torch.cat(owners)})


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
        view = dataclasses.replace(view, box=(0, 0, *image.size))
        chosen = _seen(regions, view, masks_per_image, rng)
    side = config.logit_side
    prompts_NPP = np.zeros((len(chosen), side, side), np.uint8)
    targets_NPP = np.zeros((len(chosen), side, side), np.bool_)
    boxes_N4 = np.empty((len(chosen), 4), np.float32)
    for index, mask_HW in enumerate(chosen):
        boxes_N4[index] = box = masks.prompt_box_of(mask_HW)
        _draw(mask_HW, box, prompts_NPP[index], targets_NPP[index])
    return Examples(
        torch.from_numpy(np.array(view.of_image(image, config.image_size)))[None],
        torch.from_numpy(prompts_NPP),
        torch.from_numpy(targets_NPP),
        torch.from_numpy(boxes_N4),
        torch.zeros(len(chosen), dtype=torch.int64),
        torch.tensor(view.colours, dtype=torch.float32).reshape(1, 3, 4),
    )


def coloured(pixels_BSS3: Tensor, colours_B34: Tensor) -> Tensor:
    """Images after their change of colours: float, (B, S, S, 3), 0 to 255."""
    mixed_BSS3 = torch.einsum("bhwc,bdc->bhwd", pixels_BSS3.to(colours_B34.dtype), colours_B34[..., :3])
    return (mixed_BSS3 + colours_B34[:, None, None, :, 3]).clamp(0, 255)


def _draw(mask_HW: Mask, box: tuple[float, float, float, float], prompt_PP: Grey, target_PP: Mask) -> None:
    """Writes a mask as prompt and as target; only where it is, as most masks are small and resizing is not."""
    height, width = mask_HW.shape
    side = len(prompt_PP)
    # Cells that the antialiased filter can reach from the mask: one and a bit of a cell, or of a pixel.
    x0, x1 = _cells(box[0], box[2], width, side)
    y0, y1 = _cells(box[1], box[3], height, side)
    left, top, right, bottom = x0 * width / side, y0 * height / side, x1 * width / side, y1 * height / side
    # Masks come column by column: as a picture of columns they need not be copied whole.
    across = slice(math.floor(left), math.ceil(right))
    down = slice(math.floor(top), math.ceil(bottom))
    part_WH = np.ascontiguousarray(mask_HW.T[across, down])
    picture = Image.fromarray(part_WH.view(np.uint8) * np.uint8(255))
    window = (top - down.start, left - across.start, bottom - down.start, right - across.start)
    resized = picture.resize((y1 - y0, x1 - x0), Image.Resampling.BILINEAR, box=window)
    prompt_PP[y0:y1, x0:x1] = np.asarray(resized).T
    rows = np.arange(y0, y1) * height // side - down.start
    columns = np.arange(x0, x1) * width // side - across.start
    target_PP[y0:y1, x0:x1] = part_WH[columns][:, rows].T  # as torch's ``nearest``: the floor of the position


def _cells(first: float, last: float, size: int, side: int) -> tuple[int, int]:
    """The cells of a side, first and one past the last, that pixels at ``first`` to ``last`` (fractions) can reach."""
    reach = 2 * max(1.0, side / size)
    return max(0, math.floor(first * side - reach)), min(side, math.ceil((last + 1 / size) * side + reach))


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
