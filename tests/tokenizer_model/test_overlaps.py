"""The IoUs that are counted in pieces are those of the full masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from samtok_data import masks
from samtok_data.masks import Mask
from tokenizer_model import Hiera, Prepared, TokenizerConfig, overlaps
from tokenizer_model.overlaps import intersections_over_unions

# Only the side of the square counts here.
SQUARE = TokenizerConfig(
    backbone=Hiera(embed_dim=8, num_heads=1, stages=(1, 1, 1, 1), global_blocks=(), windows=(8, 4, 2, 1)),
    image_size=32,
    hidden_size=16,
    codebook_size=4,
    depth=1,
)


def prepared_of(found: list[Mask]) -> Prepared:
    height, width = found[0].shape
    return Prepared.of(Image.new("RGB", (width, height)), [masks.encode(mask_HW) for mask_HW in found], SQUARE)


def by_pixels(logits_nPP: Tensor, found: list[Mask], threshold: float) -> list[float]:
    """Of full masks, one after the other."""
    ious = []
    for logits_PP, mask_HW in zip(logits_nPP, found, strict=True):
        full = F.interpolate(logits_PP[None, None], mask_HW.shape, mode="bilinear", align_corners=False)[0, 0]
        ious.append(masks.intersection_over_union(mask_HW, (full > threshold).numpy()))
    return ious


def random_logits(num_masks: int, side: int, seed: int = 0) -> Tensor:
    return torch.randn(num_masks, side, side, generator=torch.Generator().manual_seed(seed))


def random_masks(num_masks: int, shape: tuple[int, int], seed: int = 0) -> list[Mask]:
    rng = np.random.default_rng(seed)
    found = [rng.random(shape) < share for share in np.linspace(0.02, 0.98, num_masks)]
    for mask_HW in found:
        mask_HW[shape[0] // 2, shape[1] // 3] = True  # none is empty
    return found


@st.composite
def some_masks(draw: st.DrawFn) -> list[Mask]:
    shape = draw(st.tuples(st.integers(1, 60), st.integers(1, 60)))
    found = draw(st.lists(arrays(np.bool_, shape), min_size=1, max_size=5))
    return [mask_HW if mask_HW.any() else np.ones(shape, np.bool_) for mask_HW in found]


@settings(deadline=None)
@given(some_masks(), st.sampled_from([1, 3, 8, 32]), st.integers(0, 1000), st.sampled_from([-0.7, 0.0, 0.5]))
def test_any_masks_have_the_ious_of_their_pixels(found: list[Mask], side: int, seed: int, threshold: float) -> None:
    logits_nPP = random_logits(len(found), side, seed)
    ious_n = intersections_over_unions(logits_nPP, prepared_of(found), range(len(found)), threshold)
    assert (ious_n.dtype, ious_n.shape) == (torch.float64, (len(found),))
    np.testing.assert_allclose(ious_n.numpy(), by_pixels(logits_nPP, found, threshold), rtol=0, atol=1e-12)


@pytest.mark.parametrize("pixels", [1, 2100, 4200, 9999, 1 << 25])
def test_masks_that_do_not_stand_at_once_are_measured_in_parts(monkeypatch: pytest.MonkeyPatch, pixels: int) -> None:
    monkeypatch.setattr(overlaps, "_PIXELS_AT_ONCE", pixels)  # 0, 1, 2, 4 and all of the masks
    seen: list[int] = []
    interpolate = F.interpolate

    def counted(logits_1nPP: Tensor, **settings: object) -> Tensor:
        seen.append(logits_1nPP.shape[1])
        return interpolate(logits_1nPP, **settings)  # pyright: ignore[reportArgumentType]

    found, logits_nPP = random_masks(7, (42, 50)), random_logits(7, 16)
    wanted = by_pixels(logits_nPP, found, 0.2)
    monkeypatch.setattr(F, "interpolate", counted)
    ious_n = intersections_over_unions(logits_nPP, prepared_of(found), range(7), 0.2)
    np.testing.assert_allclose(ious_n.numpy(), wanted, rtol=0, atol=1e-12)
    assert sum(seen) == 7
    assert max(seen) == min(7, max(1, pixels // 2100))


@pytest.mark.parametrize("pixels", [2100, 1 << 25])
@pytest.mark.parametrize(("first", "after"), [(0, 2), (1, 4), (3, 7), (6, 7), (4, 4)])
def test_some_masks_of_an_image_are_measured_alone(
    monkeypatch: pytest.MonkeyPatch, pixels: int, first: int, after: int
) -> None:
    monkeypatch.setattr(overlaps, "_PIXELS_AT_ONCE", pixels)
    found, logits_nPP = random_masks(7, (42, 50)), random_logits(7, 16)
    ious_n = intersections_over_unions(logits_nPP[first:after], prepared_of(found), range(first, after), 0.0)
    assert ious_n.dtype == torch.float64
    wanted = by_pixels(logits_nPP[first:after], found[first:after], 0.0)
    np.testing.assert_allclose(ious_n.numpy(), wanted, rtol=0, atol=1e-12)


def test_what_is_decoded_outside_the_mask_and_where_the_mask_has_none_counts_too() -> None:
    left_HW: NDArray[np.bool_] = np.zeros((10, 40), np.bool_)
    left_HW[:, :20] = True
    both = [left_HW, ~left_HW, left_HW, np.ones_like(left_HW)]
    logits = torch.ones(4, 8, 8)
    logits[0, :, 4:] = -1.0  # the left half; at the seam 0 lies between two pixels
    logits[1, :, 4:] = -1.0
    logits[2] = -1.0
    ious_n = intersections_over_unions(logits, prepared_of(both), range(4), 0.0)
    assert ious_n.tolist() == [1.0, 0.0, 0.0, 1.0]


def test_numbers_from_another_process_may_be_read_only() -> None:
    found, logits_nPP = random_masks(3, (20, 30)), random_logits(3, 8)
    prepared = prepared_of(found)
    pieces = prepared.pieces
    for part in (pieces.tops, pieces.afters, pieces.column_starts, pieces.mask_starts, pieces.lefts, pieces.areas):
        part.setflags(write=False)
    ious_n = intersections_over_unions(logits_nPP, prepared, range(3), 0.0)
    np.testing.assert_allclose(ious_n.numpy(), by_pixels(logits_nPP, found, 0.0), rtol=0, atol=1e-12)
