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
from samtok_data.words import MISSING
from tokenizer_model.config import PATCH_STRIDE, TokenizerConfig
from tokenizer_model.pieces import MaskPieces
from tokenizer_model.prompts import draw_prompt

# A picture of more pixels is resized at once, wherever the network runs: many wait for it at the same time.
_MAX_WHOLE_PIXELS = 1 << 23


@dataclass(frozen=True, slots=True)
class Prepared:
    """An image and its masks, small enough to travel between processes.

    Attributes:
        pixels: uint8, RGB: the image's own, (H, W, 3), or resized, (S, S, 3).
        pieces: the masks.
        size: (H, W).
        side: S.
    """

    pixels: NDArray[np.uint8]
    pieces: MaskPieces
    size: tuple[int, int]
    side: int

    @classmethod
    def of(
        cls, image: Image.Image, regions: Sequence[RLE], config: TokenizerConfig, *, is_whole: bool = False
    ) -> Prepared:
        """Cuts the masks and resizes the image.

        The image goes straight to a square, bicubic, whatever its aspect; the masks are resized from their own
        size, bilinear with antialias, where the network runs. Both as SAMTok's published code does it, so that tokens
        match.

        Args:
            image: any mode; read as RGB.
            regions: masks of the image's size with at least one foreground pixel.
            config: says S.
            is_whole: leave the image as it is, for a network that resizes it; very large ones are resized all the same.

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
        rgb = image if image.mode == "RGB" else image.convert("RGB")  # converting copies all pixels
        if not is_whole or width * height > _MAX_WHOLE_PIXELS:
            rgb = _resized(rgb, config.image_size)
        return cls(np.asarray(rgb), pieces, (height, width), config.image_size)

    @property
    def num_masks(self) -> int:
        """n."""
        return len(self.pieces)

    @property
    def square(self) -> NDArray[np.uint8]:
        """The image as the network reads it: uint8, (S, S, 3), RGB; resized anew where it was left as it is."""
        if self.pixels.shape[:2] == (self.side, self.side):
            return self.pixels
        return np.asarray(_resized(Image.fromarray(self.pixels), self.side))

    def prompt(self, mask: int) -> NDArray[np.float32]:
        """The prompt of a mask, drawn anew: float32, (P, P), 0 to 1."""
        return draw_prompt(self.pieces, mask, self.size, self.side // PATCH_STRIDE)

    @property
    def prompts(self) -> NDArray[np.float32]:
        """The prompts of all masks, drawn anew: float32, (n, P, P)."""
        if not self.num_masks:
            return np.zeros((0, self.side // PATCH_STRIDE, self.side // PATCH_STRIDE), np.float32)
        return np.stack([self.prompt(mask) for mask in range(self.num_masks)])


def _resized(image: Image.Image, side: int) -> Image.Image:
    return image.resize((side, side), Image.Resampling.BICUBIC)


def checked_codes(
    codes: Sequence[NDArray[np.integer]], num_images: int, config: TokenizerConfig
) -> list[NDArray[np.int64]]:
    """Codes to be decoded, copied: the caller's arrays are never written to.

    Args:
        codes: of each image (n, L), each in ``0 .. codebook_size - 1`` or ``MISSING``.
        num_images: how many images there are.
        config: says L and the codes.

    Raises:
        ValueError: another number of arrays, or codes of another shape, type or range.
    """
    if num_images != len(codes):
        raise ValueError(f"expected codes for each of {num_images} images, got {len(codes)}")
    checked = []
    for index, array in enumerate(codes):
        numbers = np.asarray(array)
        if numbers.ndim != 2 or numbers.shape[1] != config.depth or numbers.dtype.kind not in "iu":
            raise ValueError(
                f"codes of image {index}: expected whole numbers of shape (n, {config.depth}), "
                f"got {numbers.dtype} of shape {numbers.shape}"
            )
        wrong = numbers[(numbers < MISSING) | (numbers >= config.codebook_size)]
        if wrong.size:
            raise ValueError(
                f"codes of image {index}: expected 0..{config.codebook_size - 1} or {MISSING}, got {wrong[0]}"
            )
        checked.append(numbers.astype(np.int64))
    return checked
