"""Made pictures and masks: textured photographs of a realistic size as files, outlines as annotators and SAM give them.

Letters: H, W of a picture; K corners of an outline.
"""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco

Corners = NDArray[np.float64]

# Pixels between two corners: what SAM's logits at a quarter of 1024 resolve on a picture of SA-1B.
_STEP = 6.0
_MOST_CORNERS = 240
_WAVES = 12
# Shares of masks of one, two and three pieces.
_PIECES = ((1, 0.75), (2, 0.2), (3, 0.05))
_NOISE_CELLS = (256, 64, 16, 4)  # pixels of a cell of each octave
_NOISE_HEIGHTS = (50.0, 25.0, 14.0, 8.0)
_GRAIN = 5.0  # of single pixels; with the quality below it decides the file's size
_QUALITY = 90


def photograph(height: int, width: int, seed: int) -> bytes:
    """A JPEG file: about 1 MB at 1500x2250 and 100 kB at 480x640, as SA-1B's and COCO's are."""
    generator = np.random.default_rng(seed)
    pixels_HW3 = np.full((height, width, 3), 118, np.float32)
    for cell, noise in zip(_NOISE_CELLS, _NOISE_HEIGHTS, strict=True):
        shape = (height // cell + 2, width // cell + 2)
        channels = []
        # Brightness differs from place to place more than colour does.
        common = generator.normal(size=shape)
        for _ in range(3):
            mixed = noise * (0.85 * common + 0.4 * generator.normal(size=shape))
            layer = Image.fromarray(mixed.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR)
            channels.append(np.asarray(layer))
        pixels_HW3 += np.stack(channels, axis=2)
    pixels_HW3 += _GRAIN * generator.standard_normal((height, width, 1), np.float32)
    buffer = io.BytesIO()
    Image.fromarray(pixels_HW3.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()


def outline(generator: np.random.Generator, area: float, height: int, width: int) -> Corners:
    """A wobbly ellipse of about so many pixels, cut at the picture's edges: (K, 2), x and y in pixels."""
    radius = math.sqrt(area / math.pi)
    corners = int(np.clip(2 * math.pi * radius / _STEP, 12, _MOST_CORNERS))
    angles_K = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    reach_K = np.ones(corners)
    for wave in range(2, _WAVES):
        height_of_wave, phase = generator.normal() * 0.35 / wave, generator.uniform(0, 2 * np.pi)
        reach_K += height_of_wave * np.cos(wave * angles_K + phase)
    reach_K = np.maximum(reach_K, 0.15) + 0.02 * generator.normal(size=corners)
    stretch = math.exp(generator.normal() * 0.35)
    x_K, y_K = stretch * reach_K * np.cos(angles_K), reach_K * np.sin(angles_K) / stretch
    turn = generator.uniform(0, np.pi)
    turned_K2 = np.stack([math.cos(turn) * x_K - math.sin(turn) * y_K, math.sin(turn) * x_K + math.cos(turn) * y_K], 1)
    turned_K2 *= math.sqrt(area / _shoelace(turned_K2))
    margin = min(radius, height / 3, width / 3)
    centre_2 = generator.uniform((margin, margin), (width - margin, height - margin))
    return np.clip(turned_K2 + centre_2, (0, 0), (width, height))


def _shoelace(corners_K2: Corners) -> float:
    x_K, y_K = corners_K2.T
    return max(0.5 * abs(float(np.dot(x_K, np.roll(y_K, -1)) - np.dot(y_K, np.roll(x_K, -1)))), 1e-9)


def areas(generator: np.random.Generator, number: int, pixels: int, least: float, most: float) -> NDArray[np.float64]:
    """Areas in pixels between two shares of the picture, small ones more often than by a log-uniform law."""
    place = generator.uniform(size=number) ** 1.5
    return pixels * np.exp(math.log(least) + place * math.log(most / least))


def runs(generator: np.random.Generator, area: float, height: int, width: int) -> Any:
    """One mask of one to three outlines: pycocotools' compressed RLE, not empty."""
    pieces = int(generator.choice([number for number, _ in _PIECES], p=[share for _, share in _PIECES]))
    polygons: Any = [outline(generator, area / pieces, height, width).ravel().tolist() for _ in range(pieces)]
    encoded = coco.merge(coco.frPyObjects(polygons, height, width))
    if not coco.area(encoded):
        return runs(generator, max(2 * area, 50.0), height, width)
    return encoded
