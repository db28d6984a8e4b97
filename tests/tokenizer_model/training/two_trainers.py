"""One of several workers: trains a tiny network on its share of made-up images, and saves what came of it.

Run as ``two_trainers.py RANK WORLD FOLDER``; RANK of WORLD processes meet over a file in FOLDER.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from states import copied, tiny_optimiser
from tiny import tiny_examples, tiny_recipe

from tokenizer_model.training.examples import Examples
from tokenizer_model.training.optimiser import NotFinite
from tokenizer_model.training.recipe import Losses, Optimisation

# Masks of the four images of a step: the workers' shares are unequal, an image has none, a worker has none.
COUNTS = ((2, 1, 3, 3), (1, 3, 0, 1), (3, 1, 0, 0))
BROKEN = 3  # the image of the fourth step whose colours are NaN; the step is then made again without it


@dataclass
class Outcome:
    """What the steps came to."""

    reports: list[dict[str, Any]] = field(default_factory=list)
    errors: list[tuple[int, str, tuple[int, ...]]] = field(default_factory=list)
    before_error: dict[str, Any] = field(default_factory=dict)
    after_error: dict[str, Any] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)


def examples_of(step: int, rank: int, world: int) -> Examples:
    """A worker's share of a step's images."""
    counts = COUNTS[step % len(COUNTS)]
    return tiny_examples(counts, seed=step).split(len(counts) // world)[rank]


def broken_examples_of(step: int, rank: int, world: int) -> Examples:
    """The same, but one image of the global batch is not a number."""
    examples = examples_of(step, rank, world)
    place = BROKEN - rank * examples.num_images
    if 0 <= place < examples.num_images:
        examples.colours[place] = torch.nan
    return examples


def train(rank: int, world: int, images_per_pass: int) -> Outcome:
    """Three steps, a broken one, and the same one whole."""
    recipe = tiny_recipe(
        steps=8, losses=Losses(points=40, bypass=0.5), optimisation=Optimisation(learning_rate=1e-3, warm_up=0.3)
    )
    optimiser, outcome = tiny_optimiser(recipe, images_per_pass=images_per_pass), Outcome()
    for step in range(4):
        if step == 3:
            outcome.before_error = copied(optimiser)
            try:
                optimiser.step(broken_examples_of(step, rank, world))
            except NotFinite as error:
                outcome.errors.append((error.step, error.what, error.images))
            outcome.after_error = copied(optimiser)
        report = optimiser.step(examples_of(step, rank, world))
        outcome.reports.append({
            **report.terms,
            "grad_norm": report.grad_norm,
            "learning_rate": report.learning_rate,
            "num_masks": report.num_masks,
            "used": report.use.used,
            "counts": report.use.counts_LK.tolist(),
            "restarted": report.use.restarted,
        })
    outcome.state = copied(optimiser)
    return outcome


if __name__ == "__main__":
    torch.set_num_threads(1)
    rank, world, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=world)
    torch.save(vars(train(rank, world, images_per_pass=1)), folder / f"{rank}.pt")
    dist.destroy_process_group()
