"""The losses: where a mask is looked at, what is read there, and the two terms."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from plain import plain_points, plain_terms, read_at
from torch import Tensor

from tokenizer_model.training.losses import at_points, mask_losses, uncertain_points
from tokenizer_model.training.recipe import Losses

SETTINGS = {
    "published": Losses(points=40),
    "none uncertain": Losses(points=40, importance=0.0),
    "all uncertain": Losses(points=40, importance=1.0),
    "no more candidates than points": Losses(points=40, oversample=1.0),
    "all of the candidates": Losses(points=40, oversample=1.0, importance=1.0),
    "broken numbers": Losses(points=7, oversample=1.5, importance=0.33),
    "one point": Losses(points=1, oversample=1.0, importance=0.0),
}
EACH = pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)


def made_up(settings: Losses, num_masks: int = 3, side: int = 16) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, targets of 0 and 1, and random points, in float64; each mask has its own."""
    generator = torch.Generator().manual_seed(num_masks)
    logits_NPP = 3 * torch.randn(num_masks, side, side, generator=generator, dtype=torch.float64)
    targets_NPP = (torch.rand(num_masks, side, side, generator=generator) < 0.4).double()
    drawn_NX2 = torch.rand(num_masks, settings.drawn, 2, generator=generator, dtype=torch.float64)
    return logits_NPP, targets_NPP, drawn_NX2


# --- where


@EACH
def test_the_points_are_the_candidates_closest_to_the_edge_and_others_from_anywhere(settings: Losses) -> None:
    logits_NPP, _, drawn_NX2 = made_up(settings)
    points_NT2 = uncertain_points(logits_NPP, settings, drawn_NX2)
    assert points_NT2.shape == (3, settings.points, 2)
    for logits_PP, drawn_X2, points_T2 in zip(logits_NPP, drawn_NX2, points_NT2, strict=True):
        expected = plain_points(logits_PP.numpy(), settings, drawn_X2.numpy())
        found = [tuple(point) for point in points_T2.tolist()]
        assert sorted(found[: settings.uncertain]) == sorted(expected[: settings.uncertain])
        assert found[settings.uncertain :] == expected[settings.uncertain :]
        assert len(set(found)) == settings.points


@EACH
def test_no_candidate_that_is_left_out_is_less_certain_than_one_that_is_chosen(settings: Losses) -> None:
    logits_NPP, _, drawn_NX2 = made_up(settings)
    points_NT2 = uncertain_points(logits_NPP, settings, drawn_NX2)
    candidates_NC2, chosen_NU2 = drawn_NX2[:, : settings.candidates], points_NT2[:, : settings.uncertain]
    chosen_NC = (candidates_NC2[:, :, None] == chosen_NU2[:, None]).all(dim=3).any(dim=2)
    assert chosen_NC.sum(dim=1).tolist() == [settings.uncertain] * 3
    certainty_NC = at_points(logits_NPP, candidates_NC2).abs()
    for certainty_C, chosen_C in zip(certainty_NC, chosen_NC, strict=True):
        in_and_out = certainty_C[chosen_C], certainty_C[~chosen_C]
        assert not all(len(part) for part in in_and_out) or in_and_out[0].max() <= in_and_out[1].min()


@pytest.mark.parametrize(("importance", "uncertain"), [(0.0, 0), (0.24, 0), (0.25, 1), (0.99, 3), (1.0, 4)])
def test_the_share_of_uncertain_points_is_rounded_down(importance: float, uncertain: int) -> None:
    settings = Losses(points=4, oversample=2.6, importance=importance)
    assert (settings.uncertain, settings.candidates, settings.drawn) == (uncertain, 10, 14 - uncertain)


def test_points_do_not_depend_on_the_sign_of_logits() -> None:
    settings = SETTINGS["published"]
    logits_NPP, _, drawn_NX2 = made_up(settings)
    one, other = (uncertain_points(sign * logits_NPP, settings, drawn_NX2) for sign in (1, -1))
    assert torch.equal(one, other)


def test_points_are_chosen_without_a_graph_and_leave_their_arguments_as_they_were() -> None:
    settings = SETTINGS["published"]
    logits_NPP, _, drawn_NX2 = made_up(settings)
    given_logits, given_points = logits_NPP.clone(), drawn_NX2.clone()
    assert not uncertain_points(logits_NPP.requires_grad_(), settings, drawn_NX2).requires_grad
    assert torch.equal(logits_NPP, given_logits)
    assert torch.equal(drawn_NX2, given_points)


# --- what is read there


@given(
    st.integers(1, 9),
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=6),
)
def test_a_value_between_pixels_is_weighted_by_how_near_they_are(side: int, points: list[tuple[float, float]]) -> None:
    values_PP = torch.from_numpy(np.random.default_rng(side).standard_normal((side, side)))
    found = at_points(values_PP[None], torch.tensor(points, dtype=torch.float64)[None])
    assert found.shape == (1, len(points))
    expected = [read_at(values_PP.numpy(), x, y) for x, y in points]
    np.testing.assert_allclose(found[0], expected, rtol=1e-12, atol=1e-12)


def test_a_pixel_stands_at_its_centre_and_x_goes_along_a_row() -> None:
    values_PP = torch.arange(16, dtype=torch.float64).reshape(4, 4)
    centres = torch.tensor([[(2 * column + 1) / 8, (2 * row + 1) / 8] for row in range(4) for column in range(4)])
    assert torch.equal(at_points(values_PP[None], centres.double()[None])[0], torch.arange(16.0).double())


def test_beyond_the_edge_stands_0() -> None:
    ones_1PP = torch.ones(1, 4, 4, dtype=torch.float64)
    points_1T2 = torch.tensor([[[0.0, 0.5], [1.0, 0.5], [0.0, 0.0], [1.0, 1.0], [0.5, 0.5]]], dtype=torch.float64)
    assert at_points(ones_1PP, points_1T2)[0].tolist() == [0.5, 0.5, 0.25, 0.25, 1.0]


# --- the two terms


@EACH
@pytest.mark.parametrize(("smooth", "cut"), [(1.0, 0.0), (0.0, 0.0), (5.0, 0.5)])
def test_the_terms_are_those_of_the_formulae(settings: Losses, smooth: float, cut: float) -> None:
    settings = dataclasses.replace(settings, dice_smooth=smooth, cut=cut)
    logits_NPP, targets_NPP, drawn_NX2 = made_up(settings)
    bce_N, dice_N = mask_losses(logits_NPP, targets_NPP, settings, drawn_NX2)
    assert bce_N.shape == dice_N.shape == (3,)
    for mask in range(3):
        bce, dice = plain_terms(logits_NPP[mask], targets_NPP[mask].numpy(), settings, drawn_NX2[mask].numpy())
        assert bce_N[mask].item() == pytest.approx(bce.item(), rel=1e-12)
        assert dice_N[mask].item() == pytest.approx(dice.item(), rel=1e-12)


@pytest.mark.parametrize(
    ("logit", "target", "bce", "dice"),
    [
        (0.0, 1.0, math.log(2), 1 - (2 * 20 + 1) / (20 + 40 + 1)),
        (0.0, 0.0, math.log(2), 1 - 1 / (20 + 1)),
        (1e4, 1.0, 0.0, 0.0),
        (-1e4, 0.0, 0.0, 0.0),
        (-1e4, 1.0, 1e4, 1 - 1 / 41),
        (1e4, 0.0, 1e4, 1 - 1 / 41),
    ],
    ids=["undecided, all", "undecided, none", "right, all", "right, none", "wrong, all", "wrong, none"],
)
def test_known_terms_of_a_logit_that_is_the_same_everywhere(
    logit: float, target: float, bce: float, dice: float
) -> None:
    """Far logits too: what is wrong by 10,000 costs 10,000, and nothing overflows."""
    settings = Losses(points=40)
    generator = torch.Generator().manual_seed(0)
    inside_1X2 = 0.25 + 0.5 * torch.rand(1, settings.drawn, 2, generator=generator, dtype=torch.float64)
    logits_1PP, targets_1PP = (torch.full((1, 8, 8), value, dtype=torch.float64) for value in (logit, target))
    found = mask_losses(logits_1PP, targets_1PP, settings, inside_1X2)
    assert [term.item() for term in found] == pytest.approx([bce, dice], rel=1e-9, abs=1e-9)


def test_each_mask_has_its_own_terms() -> None:
    settings = SETTINGS["published"]
    logits_NPP, targets_NPP, drawn_NX2 = made_up(settings)
    together = torch.stack(mask_losses(logits_NPP, targets_NPP, settings, drawn_NX2))
    for mask in range(3):
        own = slice(mask, mask + 1)
        alone = torch.stack(mask_losses(logits_NPP[own], targets_NPP[own], settings, drawn_NX2[own]))
        torch.testing.assert_close(alone, together[:, own], rtol=1e-13, atol=0)
    assert len(set(together.flatten().tolist())) == 6


def test_no_masks_have_no_terms() -> None:
    settings = Losses(points=5)
    empty = torch.empty(0, 8, 8)
    for term in mask_losses(empty, empty, settings, torch.empty(0, settings.drawn, 2)):
        assert term.shape == (0,)


def test_gradients_are_the_slopes_of_the_terms() -> None:
    settings = Losses(points=10, importance=0.0)  # with uncertain points they jump where the choice changes
    logits_NPP, targets_NPP, drawn_NX2 = made_up(settings, num_masks=2, side=4)

    def terms(logits: Tensor) -> Tensor:
        return torch.stack(mask_losses(logits, targets_NPP, settings, drawn_NX2))

    assert torch.autograd.gradcheck(terms, (logits_NPP.requires_grad_(),))
