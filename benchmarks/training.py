"""Training speed: masks per second by masks_per_image on one GPU, and two GPUs against one.

python -m benchmarks.training passes --out benchmarks/results/training_passes.json
python -m benchmarks.training workers --out benchmarks/results/training_workers.json

``passes`` times the optimiser's whole step (copy to the GPU, backbone, mask encoder, quantiser, decoder, loss,
backward, AdamW, codebooks) on examples that lie ready, so nothing but the GPU counts. ``workers`` times whole runs of
``train-tokenizer`` on generated photographs with one and with two workers under Ray Train, loaders and logs included.
"""

from __future__ import annotations

import functools
import gc
import json
import platform
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import yaml
from PIL import Image

from pipelines.training.run import train
from pipelines.training.settings import read_settings
from tokenizer_model.config import TokenizerConfig
from tokenizer_model.tokenizer import MaskTokenizer
from tokenizer_model.training.augment import SAME_COLOURS
from tokenizer_model.training.examples import Examples
from tokenizer_model.training.optimiser import Optimiser
from tokenizer_model.training.recipe import ARCHITECTURES, Recipe

MASKS_PER_IMAGE = (1, 4, 16, 64)
# Images that go through the network at once: as many as fit beside their masks in 80 GB with the large model.
IMAGES_PER_PASS = {1: 32, 4: 16, 16: 8, 64: 2}
BATCH = 256
WARM_UP_STEPS = 3


def examples_of(config: TokenizerConfig, images: int, masks_per_image: int) -> Examples:
    """Made-up pictures with random rectangles, as a loader would give them."""
    generator, side = np.random.default_rng(0), config.logit_side
    masks = images * masks_per_image
    corners = np.sort(generator.integers(0, side, (masks, 2, 2)), axis=1)
    corners[:, 1] = np.minimum(corners[:, 1] + 1, side)
    targets = np.zeros((masks, side, side), bool)
    for target, ((x0, y0), (x1, y1)) in zip(targets, corners, strict=True):
        target[y0:y1, x0:x1] = True
    boxes = np.concatenate([corners[:, 0], corners[:, 1] - 1], axis=1).astype(np.float32) / side
    pixels = generator.integers(0, 256, (images, config.image_size, config.image_size, 3), np.uint8)
    return Examples(
        torch.from_numpy(pixels),
        torch.from_numpy(targets.astype(np.uint8) * np.uint8(255)),
        torch.from_numpy(targets),
        torch.from_numpy(boxes),
        torch.arange(images).repeat_interleave(masks_per_image),
        torch.tensor(SAME_COLOURS).reshape(1, 3, 4).repeat(images, 1, 1),
    )


def time_steps(step: Callable[[], Any], seconds: float) -> float:
    """Steps per second."""
    for _ in range(WARM_UP_STEPS):
        step()
    torch.cuda.synchronize()
    start, steps = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        step()
        torch.cuda.synchronize()
        steps += 1
    return steps / (time.perf_counter() - start)


def time_passes(architecture: str, seconds: float, compiled: bool, trained: tuple[str, ...]) -> list[dict[str, Any]]:
    """Masks and images per second for each number of masks of an image."""
    rows = []
    for masks_per_image in MASKS_PER_IMAGE:
        recipe = Recipe.from_json({
            "architecture": architecture, "batch": BATCH, "masks_per_image": masks_per_image, "train": trained,
        })  # fmt: skip
        model = MaskTokenizer(ARCHITECTURES[architecture]).cuda()
        images_per_pass = IMAGES_PER_PASS[masks_per_image]
        optimiser = Optimiser(model, recipe, images_per_pass=images_per_pass, compiled=compiled)
        examples = examples_of(recipe.config, recipe.images_per_step, masks_per_image).pin_memory()
        torch.cuda.reset_peak_memory_stats()
        rate = time_steps(functools.partial(optimiser.step, examples), seconds)
        rows.append({
            "masks_per_image": masks_per_image,
            "images_per_pass": images_per_pass,
            "compiled": compiled,
            "masks_per_second": round(rate * BATCH, 1),
            "images_per_second": round(rate * recipe.images_per_step, 2),
            "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 1),
        })
        print(rows[-1], flush=True)
        del model, optimiser
        gc.collect()
        torch.cuda.empty_cache()
    return rows


def write_photographs(root: Path, images: int) -> None:
    """Pictures of coloured cells with their label maps, 640x480, as an index-png source has them."""
    for name in ("images", "segments"):
        (root / name).mkdir(parents=True)
    for number in range(images):
        rng = random.Random(number)
        cells = np.array([(rng.random() * 480, rng.random() * 640) for _ in range(20)], np.float32)
        colours = np.array([[rng.randrange(256) for _ in range(3)] for _ in cells], np.uint8)
        rows, columns = np.mgrid[:480, :640].astype(np.float32)
        distances = (rows[..., None] - cells[:, 0]) ** 2 + (columns[..., None] - cells[:, 1]) ** 2
        labels = distances.argmin(axis=-1).astype(np.uint8)
        Image.fromarray(colours[labels]).save(root / "images" / f"p{number}.jpg")
        Image.fromarray(labels + np.uint8(1)).save(root / "segments" / f"p{number}.png")


def time_workers(architecture: str, steps: int, counts: tuple[int, ...], loaders: int) -> list[dict[str, Any]]:
    """Masks per second of whole runs, the global batch growing with the workers."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_photographs(root / "data", 64)
        mix = {"sources": [{"kind": "index-png", "root": "data", "images": "images", "masks": "segments"}]}
        (root / "mix.yaml").write_text(yaml.safe_dump(mix))
        for workers in counts:
            recipe = {"architecture": architecture, "steps": steps, "batch": BATCH * workers, "masks_per_image": 16}
            config = {
                "mix": "mix.yaml", "out": f"run-{workers}", "recipe": recipe, "workers": workers, "log_every": 5,
                "images_per_pass": IMAGES_PER_PASS[16], "loaders": loaders, "save_every": 10**9,
                "kept_images": 64,
            }  # fmt: skip
            (root / f"{workers}.yaml").write_text(yaml.safe_dump(config))
            train(read_settings(str(root / f"{workers}.yaml")))
            # The first lines of the log hold the start of loaders and kernels.
            lines = (root / f"run-{workers}" / "metrics.csv").read_text().splitlines()
            place = lines[0].split(",").index("masks_per_second")
            rates = [float(line.split(",")[place]) for line in lines[3:]]
            rows.append({"workers": workers, "masks_per_second": round(float(np.median(rates)), 1)})
            print(rows[-1], flush=True)
    return rows


@click.command()
@click.argument("what", type=click.Choice(["passes", "workers"]))
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--architecture", default="samtok-256x2", type=click.Choice(sorted(ARCHITECTURES)))
@click.option("--seconds", default=8.0, help="For each row of passes.")
@click.option("--steps", default=40, help="Of each run of workers.")
@click.option("--workers", type=int, multiple=True, default=(1, 2))
@click.option("--loaders", default=14, help="Processes that read images, for each worker.")
@click.option("--compiled", is_flag=True, help="With torch.compile.")
@click.option("--train-all", is_flag=True, help="The backbone learns, too.")
def main(
    what: str,
    out: Path,
    architecture: str,
    seconds: float,
    steps: int,
    workers: tuple[int, ...],
    loaders: int,
    compiled: bool,
    train_all: bool,
) -> None:
    """Runs one of the two and writes its figures."""
    trained = ("mask_encoder", "mask_decoder")
    if train_all:
        trained = ("image_encoder", "prompt_encoder", *trained)
    if what == "passes":
        rows = time_passes(architecture, seconds, compiled, trained)
    else:
        rows = time_workers(architecture, steps, workers, loaders)
    result = {
        "command": f"python -m benchmarks.training {what}",
        "architecture": architecture,
        "trained": trained,
        "machine": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor(),
        "torch": torch.__version__,
        "rows": rows,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
