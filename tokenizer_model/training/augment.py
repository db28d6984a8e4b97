"""Random views of an image for training: crop, stretch, mirror, colour. Masks follow."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image

from samtok_data.masks import Mask
from tokenizer_model.training.recipe import Augmentation

# Weights of red, green and blue in the brightness of a pixel (ITU-R BT.601).
_LUMA = np.array([0.299, 0.587, 0.114])

SAME_COLOURS = (1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0)


@dataclass(frozen=True, slots=True)
class RandomView:
    """What is done to one image.

    Attributes:
        box: (x0, y0, x1, y1) in pixels of the image, the last exclusive: the part that is shown.
        mirrored: left and right change places.
        colours: 3 rows, of what goes into red, green and blue: of red, green, blue and a constant; flat. Others apply
            them, to values of 0 to 255.
        shrink: factor of the resolution that is lost, 1 for none.
    """

    box: tuple[int, int, int, int]
    mirrored: bool = False
    colours: tuple[float, ...] = SAME_COLOURS
    shrink: float = 1.0

    @classmethod
    def draw(cls, width: int, height: int, settings: Augmentation, rng: random.Random) -> RandomView:
        """A view of an image.

        Args:
            width: of the image in pixels.
            height: of the image in pixels.
            settings: how far it may go.
            rng: decides; the same state gives the same view.
        """
        share = rng.uniform(settings.crop, 1.0)
        stretch = math.exp(rng.uniform(-1, 1) * math.log(settings.stretch)) ** 0.5
        wide = min(width, max(1, round(width * math.sqrt(share) * stretch)))
        high = min(height, max(1, round(height * math.sqrt(share) / stretch)))
        x0, y0 = rng.randint(0, width - wide), rng.randint(0, height - high)
        mirrored = rng.random() < settings.flip
        colours = _colours(settings.colour, rng) if settings.colour else SAME_COLOURS
        shrink = rng.uniform(1.0, 3.0) if rng.random() < settings.blur else 1.0
        return cls((x0, y0, x0 + wide, y0 + high), mirrored, colours, shrink)

    def of_image(self, image: Image.Image, side: int) -> Image.Image:
        """The view as an RGB square, bicubic as the tokenizer resizes it, its colours as they are."""
        if self.shrink > 1:
            x0, y0, x1, y1 = self.box
            small = (max(1, round((x1 - x0) / self.shrink)), max(1, round((y1 - y0) / self.shrink)))
            square = image.resize(small, Image.Resampling.BICUBIC, box=self.box).resize(
                (side, side), Image.Resampling.BICUBIC
            )
        else:
            square = image.resize((side, side), Image.Resampling.BICUBIC, box=self.box)
        return square.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self.mirrored else square

    def of_mask(self, mask_HW: Mask) -> Mask:
        """The part of a mask that the view shows, in the image's own resolution."""
        x0, y0, x1, y1 = self.box
        part = mask_HW[y0:y1, x0:x1]
        return part[:, ::-1] if self.mirrored else part


def _colours(strength: float, rng: random.Random) -> tuple[float, ...]:
    """A random 3 x 4 matrix: saturation, then contrast around the middle grey, brightness and a tint."""
    saturation = 1 + strength * rng.uniform(-1, 0.6)
    contrast = 1 + strength * rng.uniform(-0.5, 0.5)
    brightness = 128 * strength * rng.uniform(-0.4, 0.4)
    tint = np.array([1 + strength * rng.uniform(-0.2, 0.2) for _ in range(3)])
    mixed_33 = saturation * np.eye(3) + (1 - saturation) * _LUMA
    matrix_34 = np.concatenate([contrast * mixed_33, np.full((3, 1), 128 * (1 - contrast) + brightness)], axis=1)
    return tuple((tint[:, None] * matrix_34).ravel().tolist())
