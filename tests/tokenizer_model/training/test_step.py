"""One pass of training against its formulae, and what learns in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from plain import Floats, plain_step
from tiny import ALL_PARTS, TINY, tiny_examples, tiny_model, tiny_recipe
from torch import Tensor

from tokenizer_model import MaskTokenizer
from tokenizer_model.training.examples import Examples
from tokenizer_model.training.recipe import Losses, Recipe
from tokenizer_model.training.step import Terms, TrainingPass, random_numbers

SEEDS = (11, 12, 13)


def numbers_of(examples: Examples, recipe: Recipe, seeds: Sequence[int]) -> Floats:
    """What the pass draws for each mask, float64, (N, 1 + 2 X): first whether it passes the quantiser by."""
    count = 1 + 2 * recipe.losses.drawn
    return random_numbers(seeds, examples.owners, recipe.masks_per_image, count, torch.float64).numpy()


def assert_same_gradients(found: dict[str, Tensor], expected: dict[str, Floats], tolerance: float) -> None:
    """Each to a share of its own largest number; those that are 0 but for rounding, of the largest of all."""
    assert list(found) == list(expected)
    largest = max(float(np.abs(array).max()) for array in expected.values())
    for name, array in expected.items():
        error = float(np.abs(found[name].numpy() - array).max())
        assert error <= tolerance * float(np.abs(array).max()) + 1e-13 * largest, name


def gradients_of(model: MaskTokenizer) -> dict[str, Tensor]:
    """Of what learns; zeros where nothing came."""
    return {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


# --- the formulae

CASES: dict[str, dict[str, Any]] = {
    "one mask of each image": {"counts": (1, 1), "masks_per_image": 1, "batch": 2},
    "several masks of several images": {},
    "some past the quantiser": {"bypass": 0.5},
    "all past the quantiser": {"bypass": 1.0, "counts": (2,)},
    "other weights": {
        "losses": Losses(bce=0.5, dice=3.0, commitment=0.25, dice_smooth=0.1, points=25, oversample=1.5, importance=0.3)
    },
    "uncertain points only": {"losses": Losses(points=12, importance=1.0)},
    "every logit": {"losses": Losses(points=0), "counts": (1, 2)},
    "another cut": {"losses": Losses(points=20, cut=0.5), "counts": (1, 2)},
    "every logit, another cut": {"losses": Losses(points=0, cut=-0.25), "counts": (2,)},
    "points anywhere": {"losses": Losses(points=12, importance=0.0), "counts": (1, 2)},
    "encoder and decoder alone": {"train": ("mask_encoder", "mask_decoder"), "counts": (2, 1)},
    "a shared codebook": {"architecture": replace(TINY, shared=True, depth=3), "counts": (2, 1)},
    "one level": {"architecture": replace(TINY, quantizer="vq", depth=1, codebook_size=5), "counts": (1, 2)},
}


@pytest.mark.usefixtures("float64_network")
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_losses_and_gradients_agree_with_the_formulae(case: dict[str, Any]) -> None:
    settings = dict(case)
    counts, bypass = settings.pop("counts", (2, 1, 3)), settings.pop("bypass", 0.0)
    recipe = tiny_recipe(**settings)
    model, examples = tiny_model(recipe.config, dtype=torch.float64), tiny_examples(counts, dtype=torch.float64)
    step, seeds, num_masks = TrainingPass(model, recipe), SEEDS[: len(counts)], sum(counts)
    numbers_NK = numbers_of(examples, recipe, seeds)
    passing = (numbers_NK[:, 0] < bypass).tolist()
    if bypass == 0.5:
        assert 0 < sum(passing) < num_masks  # or the case would show nothing
    expected = plain_step(model, examples, recipe.losses, numbers_NK[:, 1:].reshape(num_masks, -1, 2), passing)
    terms = step(examples, seeds, bypass)
    (terms.loss / num_masks).backward()
    assert terms.loss.item() / num_masks == pytest.approx(expected.loss(recipe.losses), rel=1e-10)
    for name in ("bce", "dice", "commitment"):
        assert getattr(terms, name).item() == pytest.approx(sum(getattr(expected, name)), rel=1e-10), name
    np.testing.assert_allclose(terms.z_ND.numpy(), np.stack(expected.z), rtol=1e-10, atol=1e-10)
    assert_same_gradients(gradients_of(model), expected.gradients, 1e-8)


def test_the_examples_of_the_cases_can_tell_masks_apart() -> None:
    """Else a mask might stand for another one in the test above."""
    model, examples = tiny_model(), tiny_examples()
    z_ND = TrainingPass(model, tiny_recipe())(examples, SEEDS).z_ND
    assert len({tuple(codes) for codes in model.quantizer.encode(z_ND).tolist()}) >= 4
    assert float(torch.pdist(z_ND).min()) > 0.1


@pytest.mark.usefixtures("float64_network")
def test_what_no_loss_reaches_has_no_gradient_and_everything_else_has() -> None:
    recipe = tiny_recipe()
    model, examples = tiny_model(dtype=torch.float64), tiny_examples(dtype=torch.float64)
    TrainingPass(model, recipe)(examples, SEEDS).loss.backward()
    gradients = gradients_of(model)
    largest = max(float(gradient.abs().max()) for gradient in gradients.values())
    silent = {name for name, gradient in gradients.items() if float(gradient.abs().max()) < 1e-12 * largest}
    for name in silent:
        # A softmax does not see what all keys have in common; labels 0 and 1 are for clicks; the decoder's first mask
        # is for clicks, too, and of the other three those without the highest IoU are not looked at.
        assert name.endswith(("k_proj.bias", "point_embeddings.0.weight", "point_embeddings.1.weight")) or (
            "output_hypernetworks_mlps" in name
        ), name
    assert len(silent) < 50 < len(gradients) - len(silent)


# --- company


@pytest.mark.usefixtures("float64_network")
@pytest.mark.parametrize("bypass", [0.0, 0.5])
def test_an_image_comes_to_the_same_alone_and_in_company(bypass: float) -> None:
    recipe = tiny_recipe()
    model, examples = tiny_model(dtype=torch.float64), tiny_examples(dtype=torch.float64)
    step = TrainingPass(model, recipe)
    together = step(examples, SEEDS, bypass)
    alone = [step(part, [seed], bypass) for part, seed in zip(examples.split(1), SEEDS, strict=True)]
    for name in ("loss", "bce", "dice", "commitment"):
        total = sum(getattr(terms, name).item() for terms in alone)
        assert total == pytest.approx(getattr(together, name).item(), rel=1e-11), name
    torch.testing.assert_close(torch.cat([terms.z_ND for terms in alone]), together.z_ND, rtol=1e-11, atol=1e-11)


def test_an_image_without_masks_changes_nothing() -> None:
    step = TrainingPass(tiny_model(), tiny_recipe())
    with_gap, without = tiny_examples((2, 0, 1)), tiny_examples((2, 0, 1))
    kept = [part for part in without.split(1) if part.num_masks]
    assert len(kept) == 2
    terms, expected = step(with_gap, SEEDS), step(Examples.joined(kept), (SEEDS[0], SEEDS[2]))
    assert terms.loss.item() == pytest.approx(expected.loss.item(), rel=1e-5)


def test_the_numbers_of_a_mask_depend_on_its_images_seed_and_its_place_there() -> None:
    owners = torch.tensor([0, 0, 1, 2, 2, 2])
    drawn = random_numbers(SEEDS, owners, 4, 50, torch.float32)
    assert (drawn.shape, drawn.dtype) == ((6, 50), torch.float32)
    assert 0 <= float(drawn.min()) < 0.05
    assert 0.95 < float(drawn.max()) < 1
    assert len({tuple(row) for row in drawn.tolist()}) == 6
    alone = random_numbers(SEEDS[2:], torch.tensor([0, 0, 0]), 4, 50, torch.float32)
    assert torch.equal(alone, drawn[3:])
    shuffled = random_numbers(SEEDS, torch.tensor([2, 0, 2, 1, 0, 2]), 4, 50, torch.float32)
    assert torch.equal(shuffled, drawn[[3, 0, 4, 2, 1, 5]])
    assert not torch.equal(random_numbers((1, 2, 3), owners, 4, 50, torch.float32), drawn)


def test_the_numbers_leave_the_callers_generator_alone() -> None:
    before = torch.get_rng_state()
    random_numbers(SEEDS, torch.tensor([0, 1, 2]), 1, 5, torch.float64)
    assert torch.equal(torch.get_rng_state(), before)


def test_no_masks_need_no_numbers() -> None:
    assert random_numbers(SEEDS, torch.empty(0, dtype=torch.int64), 4, 5, torch.float32).shape == (0, 5)


# --- past the quantiser


def test_a_share_of_none_decodes_codes_and_a_share_of_all_decodes_z() -> None:
    model, examples = tiny_model(), tiny_examples()
    seen: list[Tensor] = []
    decode = model.network.mask_logits

    def watched(features: Any, embeddings_ND: Tensor) -> Tensor:
        seen.append(embeddings_ND.detach())
        return decode(features, embeddings_ND)

    model.network.mask_logits = watched  # type: ignore[method-assign]
    step = TrainingPass(model, tiny_recipe())
    shares, z = (0.0, 0.3, 1.0), []
    for share in shares:
        z.append(step(examples, SEEDS, share).z_ND)
    codes_NL = model.quantizer.encode(z[0])
    torch.testing.assert_close(seen[0], model.quantizer.decode(codes_NL))
    assert torch.equal(seen[2], z[2])
    drawn_N = random_numbers(SEEDS, examples.owners, 3, 1 + 2 * 130, torch.float32)[:, 0]
    assert (seen[1] == z[1]).all(dim=1).tolist() == (drawn_N < 0.3).tolist()
    assert 0 < int((drawn_N < 0.3).sum()) < len(drawn_N)


def test_projections_of_a_quantiser_without_codebook_learn_and_z_learns_through_them() -> None:
    config = replace(TINY, quantizer="fsq", depth=1, codebook_size=60, fsq_levels=(3, 4, 5))
    recipe = tiny_recipe(config, train=("mask_encoder",))
    model = tiny_model(config)
    terms = TrainingPass(model, recipe)(tiny_examples(), SEEDS)
    terms.loss.backward()
    assert terms.commitment.item() == 0
    learning = {name: float(gradient.abs().max()) for name, gradient in gradients_of(model).items()}
    projections = {name for name in learning if name.startswith("quantizer.")}
    assert projections == {
        f"quantizer.fsq.project_{way}.{kind}" for way in ("in", "out") for kind in ("weight", "bias")
    }
    assert all(learning[name] > 0 for name in projections)
    assert learning["model.sam2_model.sam_mask_encoder.mask_tokens.weight"] > 0


# --- what learns

PREFIXES = {
    "image_encoder": ("image_encoder.", "no_mem_embed"),
    "prompt_encoder": ("sam_prompt_encoder.",),
    "mask_encoder": ("sam_mask_encoder.",),
    "mask_decoder": ("sam_mask_decoder.",),
}
HEADS = ("sam_mask_decoder.iou_prediction_head.", "sam_mask_decoder.pred_obj_score_head.")


@pytest.mark.parametrize(
    "train",
    [*((part,) for part in ALL_PARTS), ("mask_encoder", "mask_decoder"), ALL_PARTS],
    ids=lambda parts: " ".join(parts) if len(parts) < 4 else "all",
)
def test_the_named_parts_learn_but_never_the_heads_for_scores_nor_the_codebooks(train: tuple[Any, ...]) -> None:
    model = tiny_model().requires_grad_(True)
    TrainingPass(model, tiny_recipe(train=train))
    prefixes = tuple(prefix for part in train for prefix in PREFIXES[part])
    seen = {True: 0, False: 0}
    for name, parameter in model.network.named_parameters():
        expected = name.startswith(prefixes) and not name.startswith(HEADS)
        assert parameter.requires_grad == expected, name
        seen[expected] += 1
    assert min(seen.values()) > 0
    assert not any(parameter.requires_grad for parameter in model.quantizer.parameters())


def test_the_parts_are_the_whole_network() -> None:
    names = [name for name, _ in tiny_model().network.named_parameters()]
    every = tuple(prefix for prefixes in PREFIXES.values() for prefix in prefixes)
    assert [name for name in names if not name.startswith(every)] == []
    for prefix in (*every, *HEADS):
        assert any(name.startswith(prefix) for name in names), prefix


def test_an_image_encoder_that_does_not_learn_is_run_without_a_graph() -> None:
    model, examples = tiny_model(), tiny_examples((1,))
    outputs: list[Tensor] = []
    model.network.image_encoder.register_forward_hook(lambda _m, _a, output: outputs.extend(output["backbone_fpn"]))
    for train in (("mask_decoder",), ("image_encoder",)):
        TrainingPass(model, tiny_recipe(train=train))(examples, SEEDS[:1]).loss.backward()
    assert [output.requires_grad for output in outputs] == [False] * 3 + [True] * 3


# --- types, and what is left alone


def test_half_precision_gives_losses_in_full_and_nearly_the_same() -> None:
    model, examples = tiny_model(), tiny_examples()
    full = TrainingPass(model, tiny_recipe())(examples, SEEDS, 1.0)
    half = TrainingPass(model, tiny_recipe(precision="bf16"))(examples, SEEDS, 1.0)
    half.loss.backward()
    for name in Terms._fields:
        one, other = getattr(half, name), getattr(full, name)
        assert one.dtype == torch.float32, name
        assert not torch.equal(one, other), name  # bf16 was at work
    assert half.loss.item() == pytest.approx(full.loss.item(), rel=0.1)
    assert all(parameter.grad is None or parameter.grad.dtype == torch.float32 for parameter in model.parameters())


def test_only_the_loss_has_a_gradient_and_a_pass_changes_nothing() -> None:
    model, examples = tiny_model(), tiny_examples()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    given = [getattr(examples, entry.name).clone() for entry in fields(Examples)]
    terms = TrainingPass(model, tiny_recipe())(examples, SEEDS, 0.5)
    terms.loss.backward()
    assert [getattr(terms, name).requires_grad for name in Terms._fields] == [True, False, False, False, False]
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    for entry, value in zip(fields(Examples), given, strict=True):
        assert torch.equal(getattr(examples, entry.name), value), entry.name
