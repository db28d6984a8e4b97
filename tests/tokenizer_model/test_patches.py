"""Tokens that are made of pixels at once are those of torch: on a CPU through Triton's interpreter, and on a GPU."""

from __future__ import annotations

import pytest

pytest.importorskip("triton", reason="triton is not installed")

import torch
from interpreter import found_by
from tokens import PATCHES, Made

from tokenizer_model.fast.patches import Patches, patch_tokens


@pytest.fixture(scope="module")
def measured() -> dict[str, float]:
    return found_by("interpreted_tokens.py", "patches")


@pytest.mark.parametrize(("kind", "close"), [("float32", 1e-6), ("float16", 4e-4), ("bfloat16", 3e-3)])
def test_tokens_are_those_of_a_convolution_of_normalised_pixels(
    measured: dict[str, float], kind: str, close: float
) -> None:
    """Largest differences in parts of the largest value."""
    found = {name: value for name, value in measured.items() if name.startswith(kind)}
    assert len(found) == len(PATCHES)
    assert {name: value for name, value in found.items() if not value <= close} == {}


def test_a_picture_gives_the_same_to_the_bit_alone(measured: dict[str, float]) -> None:
    found = {name: value for name, value in measured.items() if name.startswith("same")}
    assert len(found) == 3 * len(PATCHES)
    assert set(found.values()) == {0.0}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("kind", "close"), [(torch.float16, 4e-4), (torch.bfloat16, 3e-3)])
def test_tokens_on_a_gpu_are_those_of_a_convolution_in_float64(kind: torch.dtype, close: float) -> None:
    for images, side, channels, window in [(3, 1024, 144, 8), *PATCHES]:
        made = Made.of(images, side, channels, window, "cuda")
        laid_out = Patches.of(made.weight_C377, made.bias_C, made.places_FFC, window, kind)
        found, wanted = patch_tokens(made.pixels_BSS3, laid_out), made.wanted()
        assert (found - wanted).abs().max() <= close * wanted.abs().max()
        assert torch.equal(patch_tokens(made.pixels_BSS3[-1:], laid_out), found[-len(found) // images :])
