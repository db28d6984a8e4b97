"""Features of images, spread to their masks."""

from __future__ import annotations

import pytest
import torch

from tokenizer_model.network import ImageFeatures

OWNERS_N = torch.tensor([0, 0, 2, 1, 2])


def features(kind: torch.dtype) -> ImageFeatures:
    generator = torch.Generator().manual_seed(0)
    embedding = torch.randn(3, 4, 2, 2, generator=generator)  # float32 under autocast, where the others are bf16
    fine, middle = torch.randn(3, 2, 8, 8, generator=generator), torch.randn(3, 3, 4, 4, generator=generator)
    return ImageFeatures(embedding, fine.to(kind), middle.to(kind))


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.bfloat16])
def test_spreading_gives_the_features_of_each_masks_image_to_the_bit(kind: torch.dtype) -> None:
    of, spread = features(kind).of(OWNERS_N), features(kind).spread(OWNERS_N)
    for name in ("embedding", "fine", "middle"):
        assert torch.equal(getattr(spread, name), getattr(of, name)), name


def test_gradients_add_up_over_the_masks_of_an_image() -> None:
    image = features(torch.float64)
    image.fine.requires_grad_(True)
    weights_N = torch.arange(1.0, 6.0, dtype=torch.float64)
    (image.spread(OWNERS_N).fine * weights_N[:, None, None, None]).sum().backward()
    assert image.fine.grad is not None
    assert image.fine.grad[:, 0, 0, 0].tolist() == [1 + 2, 4, 3 + 5]
