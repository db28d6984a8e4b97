"""The loss that looks at every logit."""

from __future__ import annotations

import math

import torch

from tokenizer_model.training.losses import mask_losses
from tokenizer_model.training.recipe import Losses


def test_without_points_every_logit_counts() -> None:
    generator = torch.Generator().manual_seed(0)
    logits_NPP = torch.randn(3, 4, 4, generator=generator, dtype=torch.float64)
    targets_NPP = (torch.rand(3, 4, 4, generator=generator) > 0.5).double()
    bce_N, dice_N = mask_losses(logits_NPP, targets_NPP, Losses(points=0), torch.empty(3, 0, 2))
    for mask in range(3):
        pairs = list(zip(logits_NPP[mask].flatten().tolist(), targets_NPP[mask].flatten().tolist(), strict=True))
        chances = [1 / (1 + math.exp(-logit)) for logit, _ in pairs]
        bce = -sum(math.log(p if t else 1 - p) for p, (_, t) in zip(chances, pairs, strict=True)) / 16
        shared = sum(p * t for p, (_, t) in zip(chances, pairs, strict=True))
        dice = 1 - (2 * shared + 1) / (sum(chances) + sum(t for _, t in pairs) + 1)
        assert math.isclose(bce_N[mask], bce, rel_tol=1e-12)
        assert math.isclose(dice_N[mask], dice, rel_tol=1e-12)


def test_nothing_is_drawn_for_it() -> None:
    assert Losses(points=0).drawn == 0


def test_the_cut_stands_for_a_chance_of_a_half() -> None:
    logits_NPP, targets_NPP = torch.full((1, 2, 2), 0.5, dtype=torch.float64), torch.ones(1, 2, 2, dtype=torch.float64)
    bce_N, _ = mask_losses(logits_NPP, targets_NPP, Losses(points=0, cut=0.5), torch.empty(1, 0, 2))
    assert math.isclose(bce_N[0], math.log(2), rel_tol=1e-12)
