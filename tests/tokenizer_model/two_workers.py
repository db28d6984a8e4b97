"""One of several workers: updates quantisers on its share of made-up vectors, and saves what they became.

Run as ``two_workers.py RANK WORLD FOLDER``; RANK of WORLD processes meet over a file in FOLDER.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from quantizer_rules import numbers, residual

from tokenizer_model.quantizers import FiniteScalarQuantizer, Quantizer

CHANNELS = 8
# Vectors that the two workers have, step after step: unequal numbers, none on one, none at all, fewer than codes.
SHARES = ((31, 12), (0, 20), (25, 0), (0, 0), (3, 4), (40, 41))
DECAY = 0.9


@dataclass
class Outcome:
    """What some steps came to."""

    state: dict[str, torch.Tensor]
    used: list[tuple[int, ...]]
    perplexity: list[tuple[float, ...]]
    restarted: list[tuple[int, ...]]


def quantizers() -> dict[str, Quantizer]:
    torch.manual_seed(1)
    return {
        "residual": residual(16, 3, CHANNELS),
        "shared": residual(16, 3, CHANNELS, shared=True),
        "vq": residual(16, 1, CHANNELS),
        "fsq": FiniteScalarQuantizer((3, 4, 5), CHANNELS),
    }


def share(step: int, rank: int) -> torch.Tensor:
    """The vectors of one worker in one step, float32, (N, D)."""
    return torch.from_numpy(numbers(100 * step + rank, SHARES[step][rank], CHANNELS)).float()


def train(ranks: tuple[int, ...]) -> dict[str, Outcome]:
    """All steps, each with the vectors of these ranks, by kind of quantiser."""
    outcomes = {}
    for kind, quantizer in quantizers().items():
        uses = [
            quantizer.update(torch.cat([share(step, rank) for rank in ranks]), decay=DECAY, seed=50 + step)
            for step in range(len(SHARES))
        ]
        outcomes[kind] = Outcome(
            quantizer.state_dict(),
            [use.used for use in uses],
            [use.perplexity for use in uses],
            [use.restarted for use in uses],
        )
    return outcomes


if __name__ == "__main__":
    torch.set_num_threads(1)
    rank, world, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=world)
    torch.save({kind: vars(outcome) for kind, outcome in train((rank,)).items()}, folder / f"{rank}.pt")
    dist.destroy_process_group()
