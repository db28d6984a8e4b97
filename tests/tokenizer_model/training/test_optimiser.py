"""A step of training: what it changes, by how much, what it leaves alone, and how it goes on after a pause."""

from __future__ import annotations

import copy
import io
import math
from typing import Any

import numpy as np
import pytest
import torch
from plain import PlainStep, plain_step
from states import assert_equal_states, copied, summary, tiny_optimiser
from tiny import ALL_PARTS, tiny_examples, tiny_recipe
from torch import Tensor

from tokenizer_model import MaskTokenizer
from tokenizer_model.training import step as step_module
from tokenizer_model.training.examples import Examples
from tokenizer_model.training.optimiser import Optimiser, rate_at
from tokenizer_model.training.recipe import Losses, Optimisation, Recipe
from tokenizer_model.training.step import TrainingPass

NO_CLIP = Optimisation(clip=1e9, learning_rate=1e-3)


def changed(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    """Names of the model's tensors that are not what they were."""
    return {name for name in before["model"] if not torch.equal(before["model"][name], after["model"][name])}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """What passes draw, in their order."""
    seen: list[Tensor] = []
    draw = step_module.random_numbers

    def watched(*arguments: Any) -> Tensor:
        seen.append(draw(*arguments))
        return seen[-1]

    monkeypatch.setattr(step_module, "random_numbers", watched)
    return seen


def gradient_of(optimiser: Optimiser) -> Tensor:
    """Of all that learns, as one vector in float64."""
    gradients = [one.grad for one in optimiser.parameters]
    return torch.cat([grad.double().flatten() for grad in gradients if grad is not None])


# --- gradients


def plain_step_of(model: MaskTokenizer, recipe: Recipe, examples: Examples, drawn: list[Tensor]) -> PlainStep:
    """The first step of a recipe, written down plainly, with the numbers that were drawn for it."""
    numbers_NK = torch.cat(drawn).numpy()
    passing = (numbers_NK[:, 0] < recipe.losses.bypass).tolist()
    points_NX2 = numbers_NK[:, 1:].reshape(examples.num_masks, -1, 2)
    return plain_step(model, examples, recipe.losses, points_NX2, passing)


@pytest.mark.usefixtures("float64_network")
@pytest.mark.parametrize(("images_per_pass", "bypass"), [(1, 0.0), (2, 0.5), (3, 0.0), (100, 0.5)])
def test_a_steps_gradients_agree_with_the_formulae_however_its_images_are_divided(
    drawn: list[Tensor], images_per_pass: int, bypass: float
) -> None:
    recipe = tiny_recipe(losses=Losses(points=30, bypass=bypass), optimisation=NO_CLIP)
    optimiser = tiny_optimiser(recipe, images_per_pass=images_per_pass, dtype=torch.float64)
    examples = tiny_examples(dtype=torch.float64)
    model = copy.deepcopy(optimiser.model)
    report = optimiser.step(examples)
    assert len(drawn) == math.ceil(3 / images_per_pass)
    expected = plain_step_of(model, recipe, examples, drawn)
    assert report.num_masks == 6
    assert report.grad_norm == pytest.approx(expected.norm, rel=1e-9)
    assert report.terms["loss"] == pytest.approx(expected.loss(recipe.losses), rel=1e-10)
    for name in ("bce", "dice", "commitment"):
        assert report.terms[name] == pytest.approx(np.mean(getattr(expected, name)), rel=1e-10), name
    learning = {name: one for name, one in optimiser.model.named_parameters() if one.requires_grad}
    assert list(learning) == list(expected.gradients)
    for name, array in expected.gradients.items():
        grad = learning[name].grad
        assert grad is not None, name
        assert float(np.abs(grad.numpy() - array).max()) <= 1e-8 * float(np.abs(array).max()) + 1e-12, name


@pytest.mark.usefixtures("float64_network")
@pytest.mark.parametrize("bypass", [0.0, 0.5])
def test_parts_add_up_to_the_gradients_of_the_whole(bypass: float) -> None:
    recipe = tiny_recipe(losses=Losses(points=30, bypass=bypass), optimisation=NO_CLIP)
    examples, gradients = tiny_examples((2, 0, 3, 1), dtype=torch.float64), []
    for images_per_pass in (4, 3, 2, 1):
        optimiser = tiny_optimiser(recipe, images_per_pass=images_per_pass, dtype=torch.float64)
        optimiser.step(examples)
        gradients.append(gradient_of(optimiser))
    assert float(gradients[0].norm()) > 0.1
    for other in gradients[1:]:
        assert float((other - gradients[0]).norm()) <= 1e-10 * float(gradients[0].norm())


def test_points_are_drawn_anew_for_each_image_step_and_seed(drawn: list[Tensor]) -> None:
    examples = tiny_examples((1, 1))
    for seed in (0, 1):
        optimiser = tiny_optimiser(tiny_recipe(seed=seed), images_per_pass=1)
        for _ in range(2):
            optimiser.step(examples)
    assert len(drawn) == 8
    assert len({tuple(row) for numbers_NK in drawn for row in numbers_NK.tolist()}) == 8


# --- AdamW


@pytest.mark.usefixtures("float64_network")
def test_weights_move_as_adamw_says() -> None:
    """m and v are moving averages of gradient and its square, both freed of their start at 0; arXiv 1711.05101."""
    settings = Optimisation(clip=1e9, learning_rate=1e-3, betas=(0.8, 0.95), weight_decay=0.3, warm_up=0.2)
    recipe = tiny_recipe(optimisation=settings)
    optimiser, examples = tiny_optimiser(recipe, dtype=torch.float64), tiny_examples(dtype=torch.float64)
    weights = [one.detach().numpy().copy() for one in optimiser.parameters]
    moments = [(np.zeros_like(array), np.zeros_like(array)) for array in weights]
    beta, gamma = settings.betas
    for step in range(1, 4):
        report = optimiser.step(examples)
        assert report.learning_rate == pytest.approx(1e-3 * step / 5)
        for place, parameter in enumerate(optimiser.parameters):
            assert parameter.grad is not None
            grad, (m, v) = parameter.grad.numpy(), moments[place]
            m, v = beta * m + (1 - beta) * grad, gamma * v + (1 - gamma) * grad**2
            moments[place] = m, v
            weights[place] -= report.learning_rate * 0.3 * weights[place]
            weights[place] -= report.learning_rate * (m / (1 - beta**step)) / (np.sqrt(v / (1 - gamma**step)) + 1e-8)
            np.testing.assert_allclose(parameter.detach().numpy(), weights[place], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("clip", [0.01, 1e9])
def test_a_gradient_longer_than_the_clip_is_cut_to_it_and_keeps_its_direction(clip: float) -> None:
    examples, gradients, reports = tiny_examples(), [], []
    for limit in (1e9, clip):
        optimiser = tiny_optimiser(tiny_recipe(optimisation=Optimisation(clip=limit)))
        reports.append(optimiser.step(examples))
        gradients.append(gradient_of(optimiser))
    free, clipped = gradients
    assert reports[0].grad_norm == reports[1].grad_norm == pytest.approx(float(free.norm()), rel=1e-5)
    assert float(free.norm()) > 0.1
    assert float(clipped.norm()) == pytest.approx(min(clip, float(free.norm())), rel=1e-4)
    torch.testing.assert_close(clipped / clipped.norm(), free / free.norm(), rtol=1e-4, atol=1e-8)


# --- the schedule


@pytest.mark.parametrize(
    ("step", "steps", "warm_up", "rate"),
    [
        (0, 20, 0.25, 1 / 6),
        (4, 20, 0.25, 5 / 6),
        (5, 20, 0.25, 1.0),
        (10, 20, 0.25, 0.75),  # a third of the cosine
        (15, 20, 0.25, 0.25),
        (20, 20, 0.25, 0.0),
        (25, 20, 0.25, 0.0),
        (0, 20, 0.0, 1.0),
        (10, 20, 0.0, 0.5),
        (0, 1, 0.05, 1.0),
        (10_199, 204_000, 0.05, 10_200 / 10_201),
        (10_200, 204_000, 0.05, 1.0),
        (107_100, 204_000, 0.05, 0.5),
        (204_000, 204_000, 0.05, 0.0),
    ],
)  # fmt: skip
def test_the_rate_rises_in_a_line_and_falls_in_a_cosine(step: int, steps: int, warm_up: float, rate: float) -> None:
    assert rate_at(step, steps, Optimisation(warm_up=warm_up)) == pytest.approx(rate, abs=1e-12)


def test_each_step_is_made_with_the_rate_of_its_number_and_the_last_one_still_moves() -> None:
    settings = Optimisation(learning_rate=0.01, warm_up=0.4)
    optimiser = tiny_optimiser(tiny_recipe(steps=5, optimisation=settings, train=("mask_decoder",)))
    rates = [optimiser.step(tiny_examples((1,))).learning_rate for _ in range(5)]
    expected = [1 / 3, 2 / 3, 1.0, 0.75, 0.25]
    assert rates == pytest.approx([0.01 * rate for rate in expected])
    assert optimiser.step_number == 5


def test_the_share_past_the_quantiser_falls_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    forward = TrainingPass.forward

    def watched(self: TrainingPass, examples: Examples, seeds: Any, bypass: float = 0.0) -> Any:
        seen.append(bypass)
        return forward(self, examples, seeds, bypass)

    monkeypatch.setattr(TrainingPass, "forward", watched)
    optimiser = tiny_optimiser(tiny_recipe(steps=10, losses=Losses(points=5, bypass=0.8, bypass_until=0.5)))
    for _ in range(7):
        optimiser.step(tiny_examples((1,)))
    assert seen == pytest.approx([0.8, 0.64, 0.48, 0.32, 0.16, 0.0, 0.0])


# --- what moves

PREFIXES = {
    "image_encoder": ("image_encoder.", "no_mem_embed"),
    "prompt_encoder": ("sam_prompt_encoder.",),
    "mask_encoder": ("sam_mask_encoder.",),
    "mask_decoder": ("sam_mask_decoder.",),
}
HEADS = ("sam_mask_decoder.iou_prediction_head.", "sam_mask_decoder.pred_obj_score_head.")
NETWORK, CODEBOOKS = "model.sam2_model.", "quantizer.codebooks."


@pytest.mark.parametrize(
    "train",
    [*((part,) for part in ALL_PARTS), ("mask_encoder", "mask_decoder"), ALL_PARTS],
    ids=lambda parts: " ".join(parts) if len(parts) < 4 else "all",
)
def test_what_learns_moves_and_everything_else_keeps_its_bytes(train: tuple[Any, ...]) -> None:
    optimiser = tiny_optimiser(tiny_recipe(train=train, optimisation=Optimisation(learning_rate=1e-3)))
    before = copied(optimiser)
    for _ in range(2):
        optimiser.step(tiny_examples())
    moved = changed(before, optimiser.state())
    learning = tuple(NETWORK + prefix for part in train for prefix in PREFIXES[part])
    heads = tuple(NETWORK + prefix for prefix in HEADS)
    parameters = {name for name, _ in optimiser.model.named_parameters()}
    expected = {name for name in parameters if name.startswith(learning) and not name.startswith(heads)}
    assert {name for name in moved if not name.startswith(CODEBOOKS)} == expected
    assert expected
    assert {name for name in before["model"] if name.startswith(CODEBOOKS)} == moved - expected


def test_codebooks_move_by_the_quantisers_update_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    optimiser = tiny_optimiser(tiny_recipe(optimisation=Optimisation(codebook_decay=0.7)))
    z_before = TrainingPass(optimiser.model, optimiser.recipe)(tiny_examples(), (1, 2, 3)).z_ND
    before, calls = copied(optimiser), []
    update = optimiser.model.quantizer.update

    def watched(z_ND: Tensor, **settings: Any) -> Any:
        calls.append((z_ND.clone(), settings))
        found = update(z_ND, **settings)
        optimiser.model.load_state_dict({
            **optimiser.model.state_dict(),
            **{name: value for name, value in before["model"].items() if name.startswith(CODEBOOKS)},
        })
        return found

    monkeypatch.setattr(optimiser.model.quantizer, "update", watched)
    reports = [optimiser.step(tiny_examples()) for _ in range(2)]
    assert not any(name.startswith(CODEBOOKS) for name in changed(before, optimiser.state()))
    torch.testing.assert_close(calls[0][0], z_before)
    assert [settings["decay"] for _, settings in calls] == [0.7, 0.7]
    assert len({settings["seed"] for _, settings in calls}) == 2
    assert [int(report.use.counts_LK.sum()) for report in reports] == [12, 12]  # two codes of each of six masks


def test_a_network_learns_an_image_by_heart() -> None:
    losses = Losses(points=0, bypass=1.0, bypass_until=1.0)
    recipe = tiny_recipe(steps=30, losses=losses, optimisation=Optimisation(learning_rate=3e-3))
    optimiser, examples = tiny_optimiser(recipe), tiny_examples((1,), seed=1)
    terms = [optimiser.step(examples).terms for _ in range(30)]
    for name in ("bce", "dice"):
        assert terms[-1][name] < 0.7 * terms[0][name], name


# --- a pause


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def batch(step: int) -> Examples:
    return tiny_examples(((2, 1, 3), (3, 3), (1, 0, 2, 1))[step % 3], seed=step)


@pytest.mark.parametrize("pause", [1, 3])
def test_a_run_that_goes_on_from_its_state_is_the_same_to_the_bit(pause: int) -> None:
    recipe = tiny_recipe(steps=8, losses=Losses(points=40, bypass=0.5), optimisation=Optimisation(warm_up=0.4))
    whole = tiny_optimiser(recipe)
    expected = [whole.step(batch(step)) for step in range(5)]
    first = tiny_optimiser(recipe)
    for step in range(pause):
        first.step(batch(step))
    saved = through_a_file(first.state())
    second = Optimiser(MaskTokenizer(recipe.config), recipe, images_per_pass=2)
    assert changed(saved, second.state())  # other weights, so they must come from the state
    second.load(saved)
    assert second.step_number == pause
    assert_equal_states(through_a_file(second.state()), through_a_file(first.state()))
    found = [second.step(batch(step)) for step in range(pause, 5)]
    assert [summary(report) for report in found] == [summary(report) for report in expected[pause:]]
    assert_equal_states(copied(second), copied(whole))
