"""Masks that are added for nothing, so that a GPU meets few numbers of masks."""

from __future__ import annotations

import pytest
import torch

from tokenizer_model.config import Hiera, TokenizerConfig
from tokenizer_model.tokenizer import MaskTokenizer
from tokenizer_model.training import step
from tokenizer_model.training.augment import SAME_COLOURS
from tokenizer_model.training.examples import Examples
from tokenizer_model.training.recipe import Losses, Recipe
from tokenizer_model.training.step import TrainingPass

CONFIG = TokenizerConfig(
    backbone=Hiera(embed_dim=16, num_heads=1, stages=(1, 1, 2, 1), global_blocks=(3,), windows=(4, 4, 2, 2)),
    image_size=64,
    hidden_size=32,
    codebook_size=8,
    depth=2,
)


def examples() -> Examples:
    generator = torch.Generator().manual_seed(0)
    targets = torch.rand(5, 16, 16, generator=generator) > 0.6
    return Examples(
        torch.randint(256, (2, 64, 64, 3), generator=generator, dtype=torch.uint8),
        targets.to(torch.uint8) * 255,
        targets,
        torch.tensor([0.1, 0.2, 0.7, 0.9]).repeat(5, 1),
        torch.tensor([0, 0, 0, 1, 1]),
        torch.tensor(SAME_COLOURS).reshape(1, 3, 4).repeat(2, 1, 1),
    )


def loss_and_gradients() -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    torch.manual_seed(0)
    recipe = Recipe(
        architecture=CONFIG,
        batch=8,
        masks_per_image=4,
        precision="fp32",
        train=("image_encoder", "prompt_encoder", "mask_encoder", "mask_decoder"),
        losses=Losses(points=64, bypass=0.5),
    )
    whole = TrainingPass(MaskTokenizer(CONFIG), recipe)
    terms = whole(examples(), [3, 4], 0.5)
    terms.loss.backward()
    gradients = [one.grad for one in whole.parameters() if one.grad is not None]
    assert gradients
    return terms.loss.detach(), terms.z_ND, gradients


def test_they_change_neither_loss_nor_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    loss, z_ND, gradients = loss_and_gradients()
    monkeypatch.setattr(step, "_spare_rows", lambda _examples: 11)
    with_spare, z_with_spare_ND, gradients_with_spare = loss_and_gradients()
    assert z_with_spare_ND.shape == z_ND.shape == (5, 32)
    torch.testing.assert_close(with_spare, loss, rtol=1e-5, atol=0)
    torch.testing.assert_close(z_with_spare_ND, z_ND, rtol=1e-4, atol=1e-5)
    for one, other in zip(gradients_with_spare, gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
