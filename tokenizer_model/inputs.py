"""Images and masks as the network reads them. Made on the CPU without the network, in any thread.

Letters: n masks of an image, H and W of the image, S side of the network's square, P = S / 4 side of a mask prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from samtok_data.masks import RLE
from tokenizer_model.config import TokenizerConfig
from tokenizer_model.prompts import prompts_of

# Mean and standard deviation of ImageNet's RGB values in 0..1, as SAM 2 was trained with.
_IMAGE_MEAN = (0.485, 0.456, 0.406)
_IMAGE_STD = (0.229, 0.224, 0.225)


def normalised(pixels_BSS3: Tensor, kind: torch.dtype = torch.float32) -> Tensor:
    """Pixels as the backbone reads them.

    Args:
        pixels_BSS3: uint8, RGB.
        kind: floating type of the result.

    Returns:
        (B, 3, S, S), each channel shifted and scaled by ImageNet's mean and standard deviation.
    """
    mean_3 = torch.tensor(_IMAGE_MEAN, dtype=kind, device=pixels_BSS3.device)
    std_3 = torch.tensor(_IMAGE_STD, dtype=kind, device=pixels_BSS3.device)
    return ((pixels_BSS3.to(kind) / 255 - mean_3) / std_3).permute(0, 3, 1, 2).contiguous()


@dataclass(frozen=True, slots=True)
class Prepared:
    """An image and its masks.

    Attributes:
        pixels: uint8, (S, S, 3), RGB.
        prompts: float32, (n, P, P), 0 to 1: the masks.
        boxes: float32, (n, 4), ``prompt_box`` of each mask.
        size: (H, W).
    """

    pixels: NDArray[np.uint8]
    prompts: NDArray[np.float32]
    boxes: NDArray[np.float32]
    size: tuple[int, int]

    @classmethod
    def of(cls, image: Image.Image, regions: Sequence[RLE], config: TokenizerConfig) -> Prepared:
        """Resizes image and masks.

        The image goes straight to a square, bicubic, whatever its aspect; the masks are resized from their own
        size, bilinear with antialias. Both as SAMTok's published code does it, so that tokens match.

        Args:
            image: any mode; read as RGB.
            regions: masks of the image's size with at least one foreground pixel.
            config: says S and P.

        Raises:
            ValueError: a mask of another size than the image, or without foreground.
        """
        width, height = image.size
        side = config.image_size
        for index, rle in enumerate(regions):
            if (rle.height, rle.width) != (height, width):
                raise ValueError(
                    f"region {index}: expected a mask of the image's size {width}x{height}, "
                    f"got {rle.width}x{rle.height}"
                )
        prompts_NPP, boxes_N4 = prompts_of(regions, config.logit_side)
        pixels_SS3 = np.array(image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC))
        return cls(pixels_SS3, prompts_NPP, boxes_N4, (height, width))
