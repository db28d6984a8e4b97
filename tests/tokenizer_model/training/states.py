"""What a step leaves behind, to be compared to the bit."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import torch
from tiny import tiny_model, tiny_recipe
from torch import Tensor

from tokenizer_model.training.optimiser import Optimiser, StepReport
from tokenizer_model.training.recipe import Recipe


def tiny_optimiser(
    recipe: Recipe | None = None, *, images_per_pass: int = 2, dtype: torch.dtype = torch.float32
) -> Optimiser:
    recipe = recipe or tiny_recipe()
    return Optimiser(tiny_model(recipe.config, dtype=dtype), recipe, images_per_pass=images_per_pass)


def copied(optimiser: Optimiser) -> dict[str, Any]:
    """Everything that the next step depends on, with bytes of its own."""
    return copy.deepcopy(optimiser.state())


def assert_equal_states(one: Any, other: Any, where: str = "state") -> None:
    """To the bit, NaN included."""
    assert type(one) is type(other), where
    if isinstance(one, dict):
        assert list(one) == list(other), where
        for key in one:
            assert_equal_states(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for index, (left, right) in enumerate(zip(one, other, strict=True)):
            assert_equal_states(left, right, f"{where}[{index}]")
    elif isinstance(one, Tensor):
        assert (one.dtype, one.shape) == (other.dtype, other.shape), where
        assert one.numpy().tobytes() == other.numpy().tobytes(), where
    else:
        assert one == other, where


def summary(report: StepReport) -> dict[str, Any]:
    figures = {entry.name: getattr(report, entry.name) for entry in dataclasses.fields(report)}
    return figures | {"use": (report.use.used, report.use.perplexity, report.use.restarted)}
