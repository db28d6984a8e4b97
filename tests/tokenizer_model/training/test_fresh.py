"""Weights for training from nothing: what is changed of torch's own, and what that does."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from tiny import TINY, tiny_examples, tiny_recipe
from torch import Tensor

from tokenizer_model import MaskTokenizer
from tokenizer_model.training.examples import Examples
from tokenizer_model.training.fresh import prepare_fresh
from tokenizer_model.training.optimiser import Optimiser
from tokenizer_model.training.step import TrainingPass

NETWORK = "model.sam2_model."
IOU = NETWORK + "sam_mask_decoder.iou_prediction_head.layers.2."


def random_model(seed: int) -> MaskTokenizer:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MaskTokenizer(TINY)


def factor(name: str) -> float:
    """What a tensor is multiplied by."""
    attention = ("sam_mask_encoder.transformer.", "sam_mask_decoder.transformer.")
    if name.startswith(tuple(NETWORK + part for part in attention)) and name.endswith((
        "q_proj.weight",
        "k_proj.weight",
    )):
        return 2.0
    exact = {"sam_prompt_encoder.mask_downscaling.6.weight": 4.0, "sam_mask_encoder.mask_tokens.weight": 0.02}
    return exact.get(name.removeprefix(NETWORK), 1.0)


def test_some_weights_are_scaled_and_all_others_keep_their_bytes() -> None:
    model = random_model(0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    prepare_fresh(model)
    factors = []
    for name, value in model.state_dict().items():
        if name not in {IOU + "weight", IOU + "bias"}:
            factors.append(factor(name))
            assert torch.equal(value, factors[-1] * before[name]), name
    # Seven attentions in each of two transformers, queries and keys; the mask prompt's last layer; the learned token.
    assert [factors.count(number) for number in (2.0, 4.0, 0.02)] == [28, 1, 1]


def test_the_head_for_ious_says_the_same_whatever_it_reads() -> None:
    """Of the four masks the second: the first is that of one click."""
    model = random_model(0)
    prepare_fresh(model)
    state = model.state_dict()
    assert not state[IOU + "weight"].any()
    assert state[IOU + "bias"].tolist() == [0.0, 1.0, 0.0, 0.0]


def test_weights_can_still_learn() -> None:
    model = random_model(0)
    prepare_fresh(model)
    assert all(value.grad_fn is None for value in model.state_dict(keep_vars=True).values())
    assert all(parameter.requires_grad for parameter in model.network.parameters())


# --- the first mask


def chosen_masks(model: MaskTokenizer, examples: Examples) -> list[int]:
    """Which of the decoder's three masks counts, of each mask."""
    ious: list[Tensor] = []

    def look(_module: Any, _arguments: Any, output: tuple[Tensor, ...]) -> None:
        ious.append(output[1])

    handle = model.network.sam_mask_decoder.register_forward_hook(look)
    with torch.no_grad():
        TrainingPass(model, tiny_recipe())(examples, range(examples.num_images))
    handle.remove()
    return ious[0].argmax(dim=1).tolist()


def test_the_first_mask_is_always_chosen() -> None:
    by_chance = set()
    for seed in range(6):
        model = random_model(seed)
        by_chance.update(chosen_masks(model, tiny_examples()))
        prepare_fresh(model)
        assert chosen_masks(model, tiny_examples()) == [0] * 6
    assert len(by_chance) > 1  # a random head names now one and now another


def test_the_first_mask_stays_chosen_in_training() -> None:
    model = random_model(0)
    prepare_fresh(model)
    optimiser = Optimiser(model, tiny_recipe(), images_per_pass=3)
    for _ in range(3):
        optimiser.step(tiny_examples())
    assert chosen_masks(model, tiny_examples()) == [0] * 6


# --- the mask is heard


def masks_of_one_box(seed: int, number: int = 8) -> Examples:
    """On one image: random squares of a chequerboard, all with the same box, so that only the mask tells them apart."""
    draw, side = np.random.default_rng(seed), TINY.logit_side
    targets = np.kron(draw.integers(0, 2, (number, 4, 4)), np.ones((1, side // 4, side // 4))).astype(np.bool_)
    targets[:, [0, -1], [0, -1]] = True
    prompts = torch.from_numpy(targets.astype(np.uint8) * np.uint8(255))
    box = torch.tensor([0, 0, 1 - 1 / side, 1 - 1 / side])
    drawn = tiny_examples((number,), seed=seed)
    return dataclasses.replace(
        drawn, prompts=prompts, targets=torch.from_numpy(targets), boxes=box.expand(number, 4).contiguous()
    )


def spread(model: MaskTokenizer, examples: Examples) -> float:
    """How far the z of masks are from their mean, as a share of their length."""
    recipe = tiny_recipe(masks_per_image=examples.num_masks, batch=examples.num_masks)
    with torch.no_grad():
        z_ND = TrainingPass(model, recipe)(examples, [0]).z_ND
    return float((z_ND - z_ND.mean(dim=0)).norm(dim=1).mean() / z_ND.norm(dim=1).mean())


def test_z_tells_masks_of_one_box_apart_better_than_before() -> None:
    """Measured: 2.3 to 4.7 times, in networks of other sizes 2.2 to 4.6 times."""
    ratios = []
    for seed in range(8):
        model, examples = random_model(seed), masks_of_one_box(seed)
        before = spread(model, examples)
        prepare_fresh(model)
        ratios.append(spread(model, examples) / before)
    assert min(ratios) > 1.5
    assert np.exp(np.mean(np.log(ratios))) > 2.2
