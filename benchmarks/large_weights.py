"""Weights of the published tokenizer's size, where the published ones cannot be had: random, with fitted codebooks.

    python -m benchmarks.large_weights FILE.safetensors [--small]

The network's weights are random by a rule and a seed, the same on every machine: standard normal numbers over the
square root of the fan-in, with sharper attention in the mask encoder and a louder mask prompt, so that z depends on the
mask (with torch's own initial weights z is nearly one vector for all masks). The codebooks are then fitted to z of made
pictures and masks with the quantiser's own moving averages. So speed is that of the published tokenizer, codes are used
as a trained one's are, and distances between the best two rows of a mask are those of a fitted codebook; words mean
nothing.
"""

from __future__ import annotations

import io
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.speed_parts.shapes import areas, photograph, runs
from samtok_data.masks import RLE
from tests.tokenizer_model.training.seeded import seeded_state
from tokenizer_model import SAMTOK_256X2, SMALL, MaskTokenizer, Prepared, TokenizerConfig, save_tokenizer

NAME = "random-256x2"
_HEIGHT, _WIDTH = 768, 1152
_MASKS = 128
_DECAY = 0.5
_PASSES = 30


def build(config: TokenizerConfig, *, device: str, images: int, threads: int = 8) -> tuple[MaskTokenizer, Tensor]:
    """A tokenizer by the rule above.

    Args:
        config: the architecture; its quantiser has codebooks.
        device: where the codebooks are fitted.
        images: to fit them to, with 128 masks each.
        threads: that make the pictures.

    Returns:
        The tokenizer, on ``device``, and the vectors that its codebooks were fitted to, (M, D).
    """
    with torch.random.fork_rng(devices=[]):  # torch draws initial weights
        model = MaskTokenizer(config, image_batch=8, mask_batch=_MASKS).eval().requires_grad_(False)
    model.load_state_dict(seeded_state({name: tuple(one.shape) for name, one in model.state_dict().items()}))
    with ThreadPoolExecutor(threads) as pool:
        prepared = list(pool.map(lambda number: _prepared(number, config), range(images)))
    model.to(device)
    z_MD = torch.from_numpy(np.concatenate(model.embed_prepared(prepared)[0])).to(device)
    for step in range(_PASSES):
        model.quantizer.update(z_MD, decay=_DECAY, seed=step)
    return model, z_MD


def _prepared(number: int, config: TokenizerConfig) -> Prepared:
    generator = np.random.default_rng((number, 2))
    picture = Image.open(io.BytesIO(photograph(_HEIGHT, _WIDTH, 1_000_000 + number)))
    encoded = [
        runs(generator, area, _HEIGHT, _WIDTH) for area in areas(generator, _MASKS, _HEIGHT * _WIDTH, 0.0005, 0.2)
    ]
    regions = [RLE(_HEIGHT, _WIDTH, one["counts"].decode()) for one in encoded]
    return Prepared.of(picture, regions, config)


def spread(model: MaskTokenizer, z_MD: Tensor) -> dict[str, object]:
    """How much z says of the mask, and how the codebooks fit it, for people to look at."""
    z_MD = z_MD.float()
    codes_ML = model.quantizer.encode(z_MD)
    centred = z_MD - z_MD.mean(dim=0)
    rest = z_MD - model.quantizer.decode(codes_ML)
    return {
        "vectors": len(z_MD),
        "spread_over_length": round(float(centred.norm(dim=1).mean() / z_MD.norm(dim=1).mean()), 4),
        "unexplained_share": round(float(rest.square().sum() / centred.square().sum()), 4),
        "codes_used": [len(of_level.unique()) for of_level in codes_ML.unbind(dim=1)],
    }


@click.command()
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--small", is_flag=True, help="The architecture of 'small', to try this on a CPU.")
@click.option("--images", default=64, show_default=True, help="To fit the codebooks to, with 128 masks each.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="A GPU where there is one, if left away.")
def main(path: Path, small: bool, images: int, device: str | None) -> None:
    """Writes such a tokenizer to PATH."""
    start = time.perf_counter()
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    model, z_MD = build(SMALL if small else SAMTOK_256X2, device=place, images=images)
    save_tokenizer(model.cpu(), path, name=NAME, trained=False)
    figures = spread(model, z_MD.cpu())
    print(json.dumps({"path": str(path), "seconds": round(time.perf_counter() - start, 1), **figures}))


if __name__ == "__main__":
    main()
