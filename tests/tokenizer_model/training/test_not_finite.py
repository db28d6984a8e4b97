"""A step whose loss or gradient is not a finite number: it is named, and nothing was changed."""

from __future__ import annotations

import dataclasses
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from states import assert_equal_states, copied, summary, tiny_optimiser
from tiny import tiny_examples, tiny_recipe
from torch import Tensor

from tokenizer_model.training import step as step_module
from tokenizer_model.training.examples import Examples
from tokenizer_model.training.optimiser import NotFinite, Optimiser
from tokenizer_model.training.recipe import Losses
from tokenizer_model.training.step import TrainingPass


def with_nan(examples: Examples, image: int) -> Examples:
    """One image's colours become NaN, as those of a broken file might."""
    colours = examples.colours.clone()
    colours[image] = math.nan
    return dataclasses.replace(examples, colours=colours)


@pytest.mark.parametrize(
    ("broken", "images_per_pass", "steps_before"), [((0,), 1, 0), ((2,), 2, 2), ((0, 2), 100, 1)], ids=str
)
def test_an_image_that_is_not_a_number_stops_the_step_and_nothing_was_changed(
    broken: tuple[int, ...], images_per_pass: int, steps_before: int
) -> None:
    optimisers = [tiny_optimiser(images_per_pass=images_per_pass) for _ in range(2)]
    for optimiser in optimisers:
        for _ in range(steps_before):
            optimiser.step(tiny_examples())
    stopped, other = optimisers
    before, bad = copied(stopped), tiny_examples()
    for image in broken:
        bad = with_nan(bad, image)
    with pytest.raises(NotFinite) as caught:
        stopped.step(bad)
    error = caught.value
    assert (error.step, error.what, error.images) == (steps_before, "bce", broken)
    assert_equal_states(copied(stopped), before)
    assert summary(stopped.step(tiny_examples())) == summary(other.step(tiny_examples()))
    assert_equal_states(copied(stopped), copied(other))


def nan_in_one_weight(optimiser: Optimiser) -> None:
    """The loss is fine, a gradient is not."""
    optimiser.parameters[-1].register_hook(lambda grad: grad * math.nan)


def codebooks_far_away(optimiser: Optimiser) -> None:
    """All masks pass the quantiser by, so only the commitment sees that its rows are out of reach."""
    for name, tensor in optimiser.model.quantizer.state_dict().items():
        if name.endswith("weight"):
            tensor.fill_(1e30)


@pytest.mark.parametrize(
    ("what", "losses", "prepare", "images"),
    [
        ("gradient", Losses(points=40), nan_in_one_weight, ()),
        ("commitment", Losses(points=40, bypass=1.0), codebooks_far_away, (0, 1, 2)),
        ("loss", Losses(points=40, bce=1e39), lambda _optimiser: None, (0, 1, 2)),  # float32 ends at 3.4e38
    ],
    ids=["gradient", "commitment", "loss"],
)
def test_each_term_that_is_not_a_number_is_named(
    what: str, losses: Losses, prepare: Callable[[Optimiser], None], images: tuple[int, ...]
) -> None:
    optimiser = tiny_optimiser(tiny_recipe(losses=losses))
    prepare(optimiser)
    before = copied(optimiser)
    with pytest.raises(NotFinite) as caught:
        optimiser.step(tiny_examples())
    assert (caught.value.what, caught.value.images) == (what, images)
    assert_equal_states(copied(optimiser), before)


def test_a_dice_that_is_not_a_number_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    terms = step_module.mask_losses

    def divided_by_zero(*arguments: Any) -> tuple[Tensor, Tensor]:
        bce_N, dice_N = terms(*arguments)
        return bce_N, dice_N / 0

    monkeypatch.setattr(step_module, "mask_losses", divided_by_zero)
    with pytest.raises(NotFinite) as caught:
        tiny_optimiser().step(tiny_examples((1, 0, 1)))
    assert (caught.value.what, caught.value.images) == ("dice", (0, 2))


def test_images_are_named_by_what_the_step_itself_saw_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether an image is broken may depend on its points: they are not drawn anew for the message."""
    terms, forward = step_module.mask_losses, TrainingPass.forward
    starts: list[float] = []
    shares: list[float] = []

    def unlucky(logits_NPP: Tensor, targets_NPP: Tensor, settings: Losses, drawn_NX2: Tensor) -> tuple[Tensor, Tensor]:
        bce_N, dice_N = terms(logits_NPP, targets_NPP, settings, drawn_NX2)
        starts.extend(drawn_NX2[:, 0, 0].tolist())
        return torch.where(drawn_NX2[:, 0, 0] < 0.5, torch.nan, bce_N), dice_N

    def watched(self: TrainingPass, examples: Examples, seeds: Any, bypass: float = 0.0) -> Any:
        shares.append(bypass)
        return forward(self, examples, seeds, bypass)

    monkeypatch.setattr(step_module, "mask_losses", unlucky)
    monkeypatch.setattr(TrainingPass, "forward", watched)
    optimiser = tiny_optimiser(tiny_recipe(losses=Losses(points=10, bypass=0.5)), images_per_pass=4)
    with pytest.raises(NotFinite) as caught:
        optimiser.step(tiny_examples((1, 1, 1, 1)))
    assert len(starts) == 8
    assert starts[:4] == starts[4:]
    assert caught.value.images == tuple(image for image in range(4) if starts[image] < 0.5)
    assert 0 < len(caught.value.images) < 4
    assert shares == [0.5] * 5


def test_the_error_survives_its_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(NotFinite(3, "bce", (1, 2))))
    assert (error.step, error.what, error.images) == (3, "bce", (1, 2))
