"""Images and masks that stay on the device, and examples made there: for sources of which all pictures fit.

A view is cut out, resized and mirrored by two matrix products, one for the rows and one for the columns, with the
weights that PIL's resize has; so the examples are those of ``example_of``, but for rounding. What a processor core
does in 15 ms takes a GPU 20 us.

Letters: I images, M masks, C side of the canvas that every image lies on, at its top left; B, N, S, P as in
``examples``; H, W of an image.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from samtok_data import masks
from samtok_data.masks import RLE
from tokenizer_model.config import TokenizerConfig
from tokenizer_model.training.augment import RandomView
from tokenizer_model.training.examples import MIN_PIXELS_LEFT, MIN_SHARE_LEFT, Examples
from tokenizer_model.training.recipe import Augmentation

_MASKS_AT_ONCE = 128  # a mask on its canvas is some hundred kB
_BITS = 8


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image on its way to the device.

    Attributes:
        pixels: uint8, (H, W, 3), RGB.
        masks: uint8, (n, H, W / 8 rounded up): a bit a pixel, the first the highest.
    """

    pixels: NDArray[np.uint8]
    masks: NDArray[np.uint8]

    @classmethod
    def of(cls, image: Image.Image, regions: Sequence[RLE]) -> StoredImage:
        """Reads an RGB image and its masks, which are of its size, at least one."""
        packed = [np.packbits(masks.decode(rle), axis=1) for rle in regions]
        return cls(np.array(image), np.stack(packed))


class ResidentSet:
    """Images with their masks on a device.

    Args:
        images: in the order in which they are asked for.
        config: of the tokenizer that is trained.
        device: where they lie.

    Raises:
        torch.cuda.OutOfMemoryError: they do not fit.
    """

    def __init__(self, images: Sequence[StoredImage], config: TokenizerConfig, device: torch.device) -> None:
        side = max(max(image.pixels.shape[:2]) for image in images)
        self.canvas = -(-side // _BITS) * _BITS
        self.sizes = [(image.pixels.shape[0], image.pixels.shape[1]) for image in images]
        counts = [len(image.masks) for image in images]
        self.first_masks = np.concatenate([[0], np.cumsum(counts)])
        self._config, self._device = config, device
        # Half the memory traffic; a GPU multiplies it on its tensor cores. 11 bits hold a colour and a weight of it.
        self._kind = torch.float16 if device.type == "cuda" else torch.float32
        canvas = (self.canvas, self.canvas)
        self._pixels_ICC3 = torch.zeros(len(images), *canvas, 3, dtype=torch.uint8, device=device)
        self._masks_MCB = torch.zeros(sum(counts), canvas[0], canvas[1] // _BITS, dtype=torch.uint8, device=device)
        for place, image in enumerate(images):
            height, width = self.sizes[place]
            self._pixels_ICC3[place, :height, :width] = torch.from_numpy(image.pixels)
            mine = slice(int(self.first_masks[place]), int(self.first_masks[place + 1]))
            self._masks_MCB[mine, :height, : image.masks.shape[2]] = torch.from_numpy(image.masks)
        self._areas_M = torch.cat([
            _unpacked(part).sum(dim=(1, 2), dtype=torch.int64) for part in self._masks_MCB.split(_MASKS_AT_ONCE)
        ])

    @staticmethod
    def num_bytes(images: Sequence[StoredImage]) -> int:
        """What a set of these images takes on the device."""
        side = max(max(image.pixels.shape[:2]) for image in images) + _BITS
        return side * side * (3 * len(images) + sum(len(image.masks) for image in images) // _BITS)

    @torch.no_grad()
    def examples(
        self, places: Sequence[int], rngs: Sequence[random.Random], *, masks_per_image: int, augmentation: Augmentation
    ) -> Examples:
        """Examples of some images. Masks of which a view shows too little are left out, so an image may have none.

        Args:
            places: of the images.
            rngs: one for each; decides everything about its example.
            masks_per_image: at most so many masks, drawn without repetition.
            augmentation: how a view may differ from the image.
        """
        views, chosen, owners = [], [], []
        for owner, (place, rng) in enumerate(zip(places, rngs, strict=True)):
            height, width = self.sizes[place]
            views.append(RandomView.draw(width, height, augmentation, rng))
            mine = range(int(self.first_masks[place]), int(self.first_masks[place + 1]))
            drawn = rng.sample(mine, min(masks_per_image, len(mine)))
            chosen += drawn
            owners += [owner] * len(drawn)
        frames = _Frames.of(views, [self.sizes[place] for place in places], self._device)
        owners_N = torch.tensor(owners, device=self._device)
        chosen_N = torch.tensor(chosen, device=self._device)
        side = self._config.logit_side
        rows_BPC, columns_BPC = (
            frames.weights(axis, side, self.canvas, _triangle, 1.0, within_box=True).to(self._kind) for axis in "yx"
        )
        parts = [
            self._mask_part(frames.of_masks(owner_N), mask_N, rows_BPC[owner_N], columns_BPC[owner_N])
            for owner_N, mask_N in zip(owners_N.split(_MASKS_AT_ONCE), chosen_N.split(_MASKS_AT_ONCE), strict=True)
        ]
        prompts_NPP, targets_NPP, boxes_N4, seen_N = (torch.cat(column) for column in zip(*parts, strict=True))
        return Examples(
            self._pixels(frames, torch.tensor(places, device=self._device), views),
            prompts_NPP[seen_N],
            targets_NPP[seen_N],
            boxes_N4[seen_N],
            owners_N[seen_N],
            torch.tensor([view.colours for view in views], dtype=torch.float32, device=self._device).reshape(-1, 3, 4),
        )

    def _pixels(self, frames: _Frames, places_B: Tensor, views: Sequence[RandomView]) -> Tensor:
        side = self._config.image_size
        rows_BSC = frames.weights("y", side, self.canvas, _bicubic, 2.0, within_box=False).to(self._kind)
        columns_BSC = frames.weights("x", side, self.canvas, _bicubic, 2.0, within_box=False).to(self._kind)
        resized = []
        for channel in range(3):
            picture_BCC = self._pixels_ICC3[places_B, :, :, channel].to(self._kind)
            resized.append(rows_BSC @ picture_BCC @ columns_BSC.transpose(1, 2))
        pixels_BSS3 = torch.stack(resized, dim=-1).float()
        for place, view in enumerate(views):
            if view.shrink > 1:
                pixels_BSS3[place] = _blurred(pixels_BSS3[place], view.shrink)
        return pixels_BSS3.round().clamp(0, 255).to(torch.uint8)

    def _mask_part(
        self, mine: _Frames, chosen_N: Tensor, rows_NPC: Tensor, columns_NPC: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Prompts, targets, boxes, and whether enough of a mask is seen."""
        side = self._config.logit_side
        mask_NCC = _unpacked(self._masks_MCB[chosen_N])
        inside_NCC = (
            mask_NCC.bool() & mine.inside("y", self.canvas)[:, :, None] & mine.inside("x", self.canvas)[:, None]
        )
        seen_N = inside_NCC.sum(dim=(1, 2))
        areas_N = self._areas_M[chosen_N]
        least_N = torch.minimum(areas_N, (MIN_SHARE_LEFT * areas_N).clamp(min=MIN_PIXELS_LEFT).to(torch.int64))
        prompts_NPP = (rows_NPC @ mask_NCC.to(self._kind) @ columns_NPC.transpose(1, 2)).float() * 255
        every_N11 = torch.arange(len(chosen_N), device=self._device)[:, None, None]
        rows_NP, columns_NP = mine.nearest("y", side), mine.nearest("x", side)
        targets_NPP = mask_NCC[every_N11, rows_NP[:, :, None], columns_NP[:, None]].bool()
        boxes_N4 = mine.boxes(inside_NCC)
        return prompts_NPP.round().clamp(0, 255).to(torch.uint8), targets_NPP, boxes_N4, seen_N >= least_N.clamp(min=1)


@dataclass(frozen=True, slots=True)
class _Frames:
    """What views show, as tensors of one number for each: pixels of the image."""

    first: dict[str, Tensor]  # by axis: where the view begins
    length: dict[str, Tensor]
    size: dict[str, Tensor]  # of the image
    mirrored: Tensor

    @classmethod
    def of(cls, views: Sequence[RandomView], sizes: Sequence[tuple[int, int]], device: torch.device) -> _Frames:
        numbers = [(*view.box, *size, view.mirrored) for view, size in zip(views, sizes, strict=True)]
        x0, y0, x1, y1, height, width, mirrored = torch.tensor(numbers, device=device).unbind(1)
        return cls({"x": x0, "y": y0}, {"x": x1 - x0, "y": y1 - y0}, {"x": width, "y": height}, mirrored.bool())

    def of_masks(self, owners_N: Tensor) -> _Frames:
        """The frame of each mask's image."""
        parts = (
            {axis: numbers[owners_N] for axis, numbers in part.items()} for part in (self.first, self.length, self.size)
        )
        return _Frames(*parts, mirrored=self.mirrored[owners_N])

    def inside(self, axis: str, canvas: int) -> Tensor:
        """(n, C): whether the view shows a row or column."""
        place_C = torch.arange(canvas, device=self.mirrored.device)
        first_n1, length_n1 = self.first[axis][:, None], self.length[axis][:, None]
        return (place_C >= first_n1) & (place_C < first_n1 + length_n1)

    def weights(
        self, axis: str, side: int, canvas: int, kernel: Callable[[Tensor], Tensor], support: float, *, within_box: bool
    ) -> Tensor:
        """(n, side, C): of each row or column of the square, what it takes from those of the canvas; sums are 1.

        As PIL resizes: the kernel is as wide as a pixel of the result where that is larger than one of the source,
        and does not reach beyond the image (or, ``within_box``, beyond the view).
        """
        device = self.mirrored.device
        first_n11 = self.first[axis][:, None, None].float()
        scale_n11 = self.length[axis][:, None, None].float() / side
        wide_n11 = scale_n11.clamp(min=1)
        centre_nS1 = first_n11 + (torch.arange(side, device=device).float()[None, :, None] + 0.5) * scale_n11
        place_C = torch.arange(canvas, device=device).float()
        weights_nSC = kernel((place_C + 0.5 - centre_nS1) / wide_n11)
        low, high = (first_n11, first_n11 + self.length[axis][:, None, None]) if within_box else (
            torch.zeros_like(first_n11), self.size[axis][:, None, None].float()
        )  # fmt: skip
        reach = support * wide_n11
        low = torch.maximum(low, (centre_nS1 - reach + 0.5).floor())
        high = torch.minimum(high, (centre_nS1 + reach + 0.5).floor())
        allowed = (place_C >= low) & (place_C < high)
        weights_nSC = torch.where(allowed, weights_nSC, 0)
        weights_nSC = weights_nSC / weights_nSC.sum(dim=2, keepdim=True)
        return torch.where(self._turned(axis), weights_nSC.flip(1), weights_nSC)

    def nearest(self, axis: str, side: int) -> Tensor:
        """(n, side): the canvas's row or column that each of the square takes, the floor of the position."""
        steps_S = torch.arange(side, device=self.mirrored.device)
        place_nS = self.first[axis][:, None] + steps_S * self.length[axis][:, None] // side
        if axis == "y":
            return place_nS
        mirrored_nS = (
            self.first[axis][:, None] + self.length[axis][:, None] - 1 - steps_S * self.length[axis][:, None] // side
        )
        return torch.where(self.mirrored[:, None], mirrored_nS, place_nS)

    def boxes(self, inside_nCC: Tensor) -> Tensor:
        """(n, 4): ``prompt_box`` of what the views show of masks; of one that shows nothing, anything."""
        ends = {}
        for axis, along in (("x", 1), ("y", 2)):
            any_nC = inside_nCC.any(dim=along).to(torch.uint8)
            low_n = any_nC.argmax(dim=1) - self.first[axis]
            high_n = any_nC.shape[1] - 1 - any_nC.flip(1).argmax(dim=1) - self.first[axis]
            if axis == "x":
                last_n = self.length[axis] - 1
                low_n, high_n = (
                    torch.where(self.mirrored, last_n - high_n, low_n),
                    torch.where(self.mirrored, last_n - low_n, high_n),
                )
            ends[axis] = (low_n / self.length[axis], high_n / self.length[axis])
        return torch.stack([ends["x"][0], ends["y"][0], ends["x"][1], ends["y"][1]], dim=1).float()

    def _turned(self, axis: str) -> Tensor:
        return (self.mirrored if axis == "x" else torch.zeros_like(self.mirrored))[:, None, None]


def _unpacked(packed_NCB: Tensor) -> Tensor:
    """uint8 0 and 1, (N, C, C)."""
    shifts_8 = torch.arange(_BITS - 1, -1, -1, dtype=torch.uint8, device=packed_NCB.device)
    return ((packed_NCB.unsqueeze(-1) >> shifts_8) & 1).flatten(2)


def _triangle(distance: Tensor) -> Tensor:
    return (1 - distance.abs()).clamp(min=0)


def _bicubic(distance: Tensor) -> Tensor:
    """Keys' kernel with a = -0.5, as PIL has it."""
    x = distance.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, 0))


def _blurred(pixels_SS3: Tensor, shrink: float) -> Tensor:
    side = len(pixels_SS3)
    picture_13SS = pixels_SS3.permute(2, 0, 1)[None]
    small = torch.nn.functional.interpolate(
        picture_13SS, size=max(1, round(side / shrink)), mode="bicubic", antialias=True, align_corners=False
    )
    large = torch.nn.functional.interpolate(small, size=side, mode="bicubic", antialias=True, align_corners=False)
    return large[0].permute(1, 2, 0)
