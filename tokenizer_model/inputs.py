"""Images and masks on their way to the network. Made on the CPU, in any thread or process, without torch.

Letters: n masks of an image, H and W of the image, S side of the network's square, P = S / 4 side of a mask prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from samtok_data.masks import RLE
from tokenizer_model.config import PATCH_STRIDE, TokenizerConfig
from tokenizer_model.pieces import MaskPieces
from tokenizer_model.prompts import draw_prompt


@dataclass(frozen=True, slots=True)
class Prepared:
    """An image and its masks, small enough to travel between processes.

    Attributes:
        pixels: uint8, (S, S, 3), RGB.
        pieces: the masks.
        size: (H, W).
    """

    pixels: NDArray[np.uint8]
    pieces: MaskPieces
    size: tuple[int, int]

    @classmethod
    def of(cls, image: Image.Image, regions: Sequence[RLE], config: TokenizerConfig) -> Prepared:
        """Resizes the image and cuts the masks.

        The image goes straight to a square, bicubic, whatever its aspect; the masks are resized from their own
        size, bilinear with antialias, where the network runs. Both as SAMTok's published code does it, so that tokens
        match.

        Args:
            image: any mode; read as RGB.
            regions: masks of the image's size with at least one foreground pixel.
            config: says S.

        Raises:
            ValueError: a mask of another size than the image, or without foreground.
        """
        width, height = image.size
        for index, rle in enumerate(regions):
            if (rle.height, rle.width) != (height, width):
                raise ValueError(
                    f"region {index}: expected a mask of the image's size {width}x{height}, "
                    f"got {rle.width}x{rle.height}"
                )
        pieces = MaskPieces.of(regions)
        side = config.image_size
        rgb = image if image.mode == "RGB" else image.convert("RGB")  # converting copies all pixels
        return cls(np.asarray(rgb.resize((side, side), Image.Resampling.BICUBIC)), pieces, (height, width))

    @property
    def num_masks(self) -> int:
        """n."""
        return len(self.pieces)

    def prompt(self, mask: int) -> NDArray[np.float32]:
        """The prompt of a mask, drawn anew: float32, (P, P), 0 to 1."""
        return draw_prompt(self.pieces, mask, self.size, len(self.pixels) // PATCH_STRIDE)

    @property
    def prompts(self) -> NDArray[np.float32]:
        """The prompts of all masks, drawn anew: float32, (n, P, P)."""
        side = len(self.pixels) // PATCH_STRIDE
        return (
            np.stack([self.prompt(mask) for mask in range(len(self.pieces))])
            if self.num_masks
            else np.zeros((0, side, side), np.float32)
        )
