"""The recipe: published numbers by default, read from files, and every wrong setting named."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest
import yaml
from tiny import TINY

from samtok_data.errors import SetupError
from tokenizer_model import SAMTOK_256X2, SMALL
from tokenizer_model.training.recipe import Augmentation, Losses, Optimisation, Recipe

# Source of each number: the docstrings of recipe.py.
PUBLISHED = {
    "architecture": "samtok-256x2",
    "sam2_weights": None,
    "initial": None,
    "train": ["mask_encoder", "mask_decoder"],
    "steps": 204_000,
    "batch": 1024,
    "masks_per_image": 16,
    "seed": 0,
    "precision": "bf16",
    "losses": {
        "bce": 2.0,
        "dice": 0.5,
        "commitment": 1.0,
        "cut": 0.0,
        "dice_smooth": 1.0,
        "points": 12_544,
        "oversample": 3.0,
        "importance": 0.75,
        "bypass": 0.0,
        "bypass_until": 0.5,
    },
    "optimisation": {
        "learning_rate": 4e-5,
        "betas": [0.9, 0.999],
        "weight_decay": 0.05,
        "clip": 1.0,
        "warm_up": 0.05,
        "codebook_decay": 0.99,
    },
    "augmentation": {"crop": 1.0, "stretch": 1.0, "flip": 0.0, "colour": 0.0, "blur": 0.0},
}


def test_the_defaults_are_the_published_recipe() -> None:
    assert Recipe().json == PUBLISHED
    assert Recipe.from_json({}) == Recipe()
    assert Recipe().config == SAMTOK_256X2
    assert Recipe().images_per_step == 64


def test_the_points_of_a_mask_are_three_quarters_uncertain_among_three_times_as_many() -> None:
    losses = Losses()
    assert (losses.candidates, losses.uncertain, losses.drawn) == (37_632, 9_408, 37_632 + 3_136)


def other_values() -> dict[str, Any]:
    """A recipe's JSON in which no value is the default one."""
    return {
        "architecture": TINY.json,
        "sam2_weights": None,
        "initial": "small",
        "train": ["image_encoder", "prompt_encoder"],
        "steps": 3,
        "batch": 32,
        "masks_per_image": 4,
        "seed": 7,
        "precision": "fp32",
        "losses": {
            "bce": 1.0,
            "dice": 0.25,
            "commitment": 0.5,
            "cut": 0.25,
            "dice_smooth": 0.5,
            "points": 5,
            "oversample": 1.5,
            "importance": 0.5,
            "bypass": 0.125,
            "bypass_until": 1.0,
        },
        "optimisation": {
            "learning_rate": 1e-3,
            "betas": [0.5, 0.75],
            "weight_decay": 0.0,
            "clip": 2.0,
            "warm_up": 0.0,
            "codebook_decay": 0.5,
        },
        "augmentation": {"crop": 0.5, "stretch": 2.0, "flip": 0.5, "colour": 1.0, "blur": 0.25},
    }


def test_a_recipe_comes_back_from_json_and_from_yaml() -> None:
    values = other_values()
    recipe = Recipe.from_json(values)
    assert recipe.json == values == other_values()  # what was read is left as it was
    assert recipe.config == TINY
    assert (recipe.images_per_step, recipe.train) == (8, ("image_encoder", "prompt_encoder"))
    for text in (json.dumps(recipe.json), yaml.safe_dump(recipe.json)):
        assert Recipe.from_json(yaml.safe_load(text)) == recipe


@pytest.mark.parametrize("group", [None, "losses", "optimisation", "augmentation"])
def test_each_setting_is_read_alone(group: str | None) -> None:
    given = other_values() if group is None else other_values()[group]
    defaults = PUBLISHED if group is None else PUBLISHED[group]
    read = 0
    for name, value in given.items():
        if value is None:
            continue
        recipe = Recipe.from_json({name: value} if group is None else {group: {name: value}})
        found = recipe.json if group is None else recipe.json[group]
        assert found == defaults | {name: value}, name
        assert value != defaults[name], name
        read += 1
    assert read >= 5


def test_weights_to_start_from_are_named_by_a_text() -> None:
    assert Recipe.from_json({"sam2_weights": "folder/sam2.1_hiera_large.pt"}).sam2_weights == (
        "folder/sam2.1_hiera_large.pt"
    )


def test_a_name_stands_for_an_architecture() -> None:
    assert Recipe.from_json({"architecture": "small"}).config == SMALL


def test_yamls_numbers_without_a_dot_are_numbers() -> None:
    text = "optimisation: {learning_rate: 4e-5, clip: 2, betas: [9e-1, 1e-3]}\nlosses: {bce: 1}"
    values = yaml.safe_load(text)
    assert values["optimisation"]["learning_rate"] == "4e-5"  # so reads YAML
    recipe = Recipe.from_json(values)
    assert recipe.optimisation == Optimisation(learning_rate=4e-5, clip=2.0, betas=(0.9, 0.001))
    assert isinstance(recipe.optimisation.clip, float)
    assert isinstance(recipe.losses.bce, float)


# What is given, and what the sentence says of it after "training configuration: ".
WRONG: list[tuple[dict[str, Any], str]] = [
    # unknown
    ({"step": 5}, "'step' is no setting of recipe; known are architecture, augmentation, batch, initial, losses, "
                  "masks_per_image, optimisation, precision, sam2_weights, seed, steps, train"),
    ({"losses": {"focal": 1.0}}, "'focal' is no setting of losses; known are bce, bypass, bypass_until, commitment, "
                                 "cut, dice, dice_smooth, importance, oversample, points"),
    ({"optimisation": {"lr": 1.0}}, "'lr' is no setting of optimisation; known are betas, clip, codebook_decay, "
                                    "learning_rate, warm_up, weight_decay"),
    ({"augmentation": {"zoom": 1, 5: 2}}, "5 is no setting of augmentation; known are blur, colour, crop, flip, "
                                          "stretch"),
    # of another type
    ({"losses": None}, "losses should be a mapping of settings, got None"),
    ({"optimisation": 4e-5}, "optimisation should be a mapping of settings, got 4e-05"),
    ({"augmentation": ["flip"]}, "augmentation should be a mapping of settings, got ['flip']"),
    ({"steps": "many"}, "steps should be a whole number, got 'many'"),
    ({"steps": 10.0}, "steps should be a whole number, got 10.0"),
    ({"batch": None}, "batch should be a whole number, got None"),
    ({"seed": True}, "seed should be a whole number, got True"),
    ({"losses": {"points": 1e4}}, "losses.points should be a whole number, got 10000.0"),
    ({"losses": {"bce": "two"}}, "losses.bce should be a number, got 'two'"),
    ({"losses": {"dice": True}}, "losses.dice should be a number, got True"),
    ({"losses": {"bypass": None}}, "losses.bypass should be a number, got None"),
    ({"optimisation": {"clip": [1.0]}}, "optimisation.clip should be a number, got [1.0]"),
    ({"optimisation": {"clip": 10**400}}, f"optimisation.clip should be a number, got {10**400}"),
    ({"optimisation": {"betas": 0.9}}, "optimisation.betas should be a list, got 0.9"),
    ({"optimisation": {"betas": [0.9, "much"]}}, "optimisation.betas should be a number, got 'much'"),
    ({"train": "mask_encoder"}, "train should be a list, got 'mask_encoder'"),
    ({"train": [1]}, "train should be a list of names, got [1]"),
    ({"sam2_weights": 5}, "sam2_weights should be a text, got 5"),
    ({"initial": ["small"]}, "initial should be a text, got ['small']"),
    ({"architecture": 5}, "architecture should be one of samtok-256x2, small, or its fields, got 5"),
    ({"architecture": ["small"]}, "architecture should be one of samtok-256x2, small, or its fields, got ['small']"),
    ({"architecture": TINY.json | {"depth": 0}}, "architecture: depth must be at least 1, got 0"),
    # out of range
    ({"architecture": "samtok"}, "architecture should be one of samtok-256x2, small, or its fields, got 'samtok'"),
    ({"steps": 0}, "steps should be at least 1, got 0"),
    ({"batch": 0}, "batch should be at least 1, got 0"),
    ({"masks_per_image": 0}, "masks_per_image should be at least 1, got 0"),
    ({"batch": 10, "masks_per_image": 4}, "batch should be a multiple of masks_per_image (4), got 10"),
    ({"seed": -1}, "seed should be from 0 to 2^63 - 1, got -1"),
    ({"seed": 2**63}, f"seed should be from 0 to 2^63 - 1, got {2**63}"),
    ({"precision": "fp16"}, "precision should be fp32 or bf16, got 'fp16'"),
    ({"train": []}, "train should be some of image_encoder, prompt_encoder, mask_encoder, mask_decoder, got 'none'"),
    ({"train": ["mask_encoder", "neck"]},
     "train should be some of image_encoder, prompt_encoder, mask_encoder, mask_decoder, got ['neck']"),
    ({"sam2_weights": "a.pt", "initial": "small"}, "sam2_weights, initial should be one of them, got 'both'"),
    ({"losses": {"bce": -1}}, "losses.bce should be 0 or more, got -1.0"),
    ({"losses": {"dice": "nan"}}, "losses.dice should be 0 or more, got nan"),
    ({"losses": {"commitment": math.inf}}, "losses.commitment should be 0 or more, got inf"),
    ({"losses": {"cut": math.inf}}, "losses.cut should be a finite number, got inf"),
    ({"losses": {"dice_smooth": -0.5}}, "losses.dice_smooth should be 0 or more, got -0.5"),
    ({"losses": {"points": -1}}, "losses.points should be 0 or more, got -1"),
    ({"losses": {"oversample": 0.9}}, "losses.oversample should be at least 1, got 0.9"),
    ({"losses": {"oversample": math.inf}}, "losses.oversample should be at least 1, got inf"),
    ({"losses": {"importance": 1.1}}, "losses.importance should be from 0 to 1, got 1.1"),
    ({"losses": {"importance": -0.1}}, "losses.importance should be from 0 to 1, got -0.1"),
    ({"losses": {"bypass": 1.1}}, "losses.bypass should be from 0 to 1, got 1.1"),
    ({"losses": {"bypass_until": 0}}, "losses.bypass_until should be above 0, to 1, got 0.0"),
    ({"losses": {"bypass_until": 1.1}}, "losses.bypass_until should be above 0, to 1, got 1.1"),
    ({"optimisation": {"learning_rate": 0}}, "optimisation.learning_rate should be above 0, got 0.0"),
    ({"optimisation": {"learning_rate": math.inf}}, "optimisation.learning_rate should be above 0, got inf"),
    ({"optimisation": {"clip": "nan"}}, "optimisation.clip should be above 0, got nan"),
    ({"optimisation": {"betas": [0.9]}}, "optimisation.betas should be two of 0 to 1, got (0.9,)"),
    ({"optimisation": {"betas": [0.9, 1]}}, "optimisation.betas should be two of 0 to 1, got (0.9, 1.0)"),
    ({"optimisation": {"betas": [-0.1, 0.9]}}, "optimisation.betas should be two of 0 to 1, got (-0.1, 0.9)"),
    ({"optimisation": {"weight_decay": -0.1}}, "optimisation.weight_decay should be 0 or more, got -0.1"),
    ({"optimisation": {"weight_decay": math.inf}}, "optimisation.weight_decay should be 0 or more, got inf"),
    ({"optimisation": {"warm_up": 1}}, "optimisation.warm_up should be from 0 to below 1, got 1.0"),
    ({"optimisation": {"warm_up": -0.1}}, "optimisation.warm_up should be from 0 to below 1, got -0.1"),
    ({"optimisation": {"codebook_decay": 0}}, "optimisation.codebook_decay should be between 0 and 1, got 0.0"),
    ({"optimisation": {"codebook_decay": 1}}, "optimisation.codebook_decay should be between 0 and 1, got 1.0"),
    ({"augmentation": {"crop": 0}}, "augmentation.crop should be above 0, to 1, got 0.0"),
    ({"augmentation": {"crop": 1.1}}, "augmentation.crop should be above 0, to 1, got 1.1"),
    ({"augmentation": {"stretch": 0.9}}, "augmentation.stretch should be from 1 to 4, got 0.9"),
    ({"augmentation": {"stretch": 4.1}}, "augmentation.stretch should be from 1 to 4, got 4.1"),
    ({"augmentation": {"flip": 1.1}}, "augmentation.flip should be from 0 to 1, got 1.1"),
    ({"augmentation": {"colour": -0.1}}, "augmentation.colour should be from 0 to 1, got -0.1"),
    ({"augmentation": {"blur": "nan"}}, "augmentation.blur should be from 0 to 1, got nan"),
]  # fmt: skip


@pytest.mark.parametrize(("values", "sentence"), WRONG, ids=[sentence[:60] for _, sentence in WRONG])
def test_a_wrong_setting_is_named_in_a_sentence(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SetupError) as caught:
        Recipe.from_json(values)
    assert str(caught.value) == f"training configuration: {sentence}"


@pytest.mark.parametrize("values", [None, [], "small", 5])
def test_a_recipe_is_a_mapping(values: Any) -> None:
    with pytest.raises(SetupError) as caught:
        Recipe.from_json(values)
    assert str(caught.value) == f"training configuration: recipe should be a mapping of settings, got {values!r}"


def test_every_setting_has_a_wrong_value_in_the_table() -> None:
    """So that a new setting is not left unchecked."""
    groups = {"losses": Losses, "optimisation": Optimisation, "augmentation": Augmentation}
    refused = {(None, name) for values, _ in WRONG for name in values}
    for values, _ in WRONG:
        refused |= {(group, name) for group in groups for name in _names(values.get(group))}
    for group, kind in [(None, Recipe), *groups.items()]:
        assert {(group, entry.name) for entry in dataclasses.fields(kind)} <= refused


def _names(values: Any) -> list[Any]:
    return list(values) if isinstance(values, dict) else []
