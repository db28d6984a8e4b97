"""A network of a few thousand weights, made-up examples for it, and recipes: what the training tests share.

Letters: B images, N masks, S side of the network's square, P = S / 4 side of prompts and logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from seeded import seeded_state

from samtok_data import masks
from samtok_data.masks import RLE, Mask
from tokenizer_model import Hiera, MaskTokenizer, TokenizerConfig
from tokenizer_model.training.examples import Examples
from tokenizer_model.training.recipe import Losses, Recipe

TINY = TokenizerConfig(
    backbone=Hiera(embed_dim=16, num_heads=1, stages=(1, 1, 2, 1), global_blocks=(3,), windows=(4, 2, 2, 2)),
    image_size=64,
    hidden_size=32,
    codebook_size=8,
    depth=2,
)
ALL_PARTS = ("image_encoder", "prompt_encoder", "mask_encoder", "mask_decoder")


def tiny_model(config: TokenizerConfig = TINY, *, dtype: torch.dtype = torch.float32) -> MaskTokenizer:
    """Weights by the rule of ``seeded_state``, the same on every machine, which tells masks apart."""
    with torch.random.fork_rng(devices=[]):
        model = MaskTokenizer(config)
    model.load_state_dict(seeded_state({name: tuple(value.shape) for name, value in model.state_dict().items()}))
    return model.to(dtype)


def tiny_recipe(config: TokenizerConfig = TINY, **values: Any) -> Recipe:
    """A recipe for a few images of a few masks, in full precision."""
    given: dict[str, Any] = {
        "architecture": config, "batch": 12, "masks_per_image": 3, "steps": 20, "precision": "fp32",
        "losses": Losses(points=40), "train": ALL_PARTS,
    }  # fmt: skip
    return Recipe(**{**given, **values})


def tiny_examples(
    counts: Sequence[int] = (2, 1, 3),
    *,
    seed: int = 0,
    config: TokenizerConfig = TINY,
    dtype: torch.dtype = torch.float32,
) -> Examples:
    """Images of noise with so many blobs each; colours are changed, in the type that is asked for."""
    draw, side = np.random.default_rng(seed), config.logit_side
    targets = np.stack([blob(draw, side, side) for _ in range(sum(counts))])
    soft = np.clip(targets * 255 - draw.integers(0, 60, targets.shape), 0, 255).astype(np.uint8)
    colours = np.eye(3, 4) + 0.2 * draw.random((len(counts), 3, 4)) * [1, 1, 1, 100]
    return Examples(
        torch.from_numpy(draw.integers(0, 256, (len(counts), config.image_size, config.image_size, 3), np.uint8)),
        torch.from_numpy(soft),
        torch.from_numpy(targets),
        torch.tensor(np.array([masks.prompt_box_of(target) for target in targets]), dtype=torch.float32),
        torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)),
        torch.tensor(colours, dtype=dtype),
    )


def blob(draw: np.random.Generator, height: int, width: int) -> Mask:
    """A random ellipse, at least one pixel."""
    y_HW, x_HW = np.mgrid[0:height, 0:width]
    y, x = draw.integers(0, height), draw.integers(0, width)
    high, wide = draw.uniform(0.6, 0.1 + height / 2), draw.uniform(0.6, 0.1 + width / 2)
    return ((y_HW - y) / high) ** 2 + ((x_HW - x) / wide) ** 2 <= 1


def noise_image(draw: np.random.Generator, height: int, width: int) -> Image.Image:
    return Image.fromarray(draw.integers(0, 256, (height, width, 3), np.uint8))


def blobs(draw: np.random.Generator, height: int, width: int, number: int) -> list[RLE]:
    return [masks.encode(blob(draw, height, width)) for _ in range(number)]
