"""A tokenizer of initial weights that takes some milliseconds, and images for it."""

from __future__ import annotations

from typing import cast

import torch
from pictures import bar, disc, drawn_image

from samtok_data.masks import RLE
from tokenizer_model import Hiera, MaskTokenizer, Prepared, TokenizerConfig
from tokenizer_model.config import Precision
from tokenizer_model.paths import PassSizes
from tokenizer_model.quantizers import Codebook, ResidualQuantizer

TINY = TokenizerConfig(
    backbone=Hiera(embed_dim=16, num_heads=1, stages=(1, 1, 1, 1), global_blocks=(), windows=(8, 4, 2, 1)),
    image_size=64,
    hidden_size=32,
    codebook_size=64,
    depth=2,
)


def tiny_tokenizer(image_batch: int = 4, mask_batch: int = 8, precision: Precision = "fp32") -> MaskTokenizer:
    """The same weights each time; the rows of the codebooks lie among the embeddings, so that masks get many words."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tokenizer = MaskTokenizer(TINY).eval().requires_grad_(False)
    (z_ND,), _ = tokenizer.embed_prepared(some_prepared([4]))
    quantizer = cast("ResidualQuantizer", tokenizer.quantizer)
    with torch.no_grad():
        for codebook in quantizer.codebooks:
            cast("Codebook", codebook).weight.mul_(0.3)
        cast("Codebook", quantizer.codebooks[0]).weight.add_(torch.from_numpy(z_ND.mean(axis=0)))
    tokenizer.precision, tokenizer.sizes = precision, PassSizes(image_batch, mask_batch)
    return tokenizer


def some_prepared(counts: list[int]) -> list[Prepared]:
    """Images, all different, with so many masks each, all different too."""
    prepared = []
    for number, count in enumerate(counts):
        width, height = 40 + 7 * number, 60 - 3 * number
        regions: list[RLE] = [
            disc(width, height, 0.3 + 0.05 * mask, 0.5, 4 + 2 * mask)
            if mask % 2
            else bar(width, height, mask, 2, 9, 20)
            for mask in range(count)
        ]
        prepared.append(Prepared.of(drawn_image(width, height, number / 10), regions, TINY))
    return prepared
