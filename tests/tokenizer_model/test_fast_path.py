"""The fast path gives what torch's own modules give: on a CPU, through Triton's interpreter, in its own process."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
from interpreter import found_by

NEEDS_TRITON = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    """What ``interpreted.py`` finds; its checks take half a minute together."""
    return found_by("interpreted.py")


@NEEDS_TRITON
@pytest.mark.parametrize(
    ("kind", "close"),
    [("float32", 1e-5), ("float16", 4e-3), ("bfloat16", 4e-2)],
)
def test_it_computes_what_the_modules_compute(measured: dict[str, Any], kind: str, close: float) -> None:
    """Largest differences in parts of the largest value."""
    found = measured["plain path"][kind]
    for name in ("features", "embeddings", "logits"):
        assert found[name] < close, name
    assert found["embeddings"] < found["nearest masks"] / 10  # else they would tell nothing


@NEEDS_TRITON
@pytest.mark.parametrize("company", ["fewer masks", "other order", "other places", "alone"])
def test_a_mask_gives_the_same_to_the_bit_in_any_company(measured: dict[str, Any], company: str) -> None:
    assert measured["neighbours"][company] == {"embeddings": True, "logits": True}


@NEEDS_TRITON
def test_the_decoder_counts_the_token_of_two_points_twice(measured: dict[str, Any]) -> None:
    found = measured["decoder"]
    assert found["as it is"] < 1e-5
    assert found["counted once"] > 1e-3


@NEEDS_TRITON
def test_the_decoder_fits_itself_to_the_memory_of_the_gpu_or_leaves_it_to_torch(measured: dict[str, Any]) -> None:
    found = measured["decoder"]
    assert found["steps"] == [[True, [64, 128, 128]], [True, [32, 32, 32]], [False, [32, 32, 32]]]
    assert found["modules"] < 1e-5


@NEEDS_TRITON
@pytest.mark.parametrize("masks", ["in order", "shuffled"])
def test_ious_are_those_of_the_full_masks(measured: dict[str, Any], masks: str) -> None:
    plain, fast = measured["ious"][masks]
    assert fast == pytest.approx(plain, abs=1e-12)
    assert len(set(plain) - {0.0}) > 1


@NEEDS_TRITON
@pytest.mark.parametrize("kinds", ["plain and learnt", "learnt and known"])
def test_pictures_are_resized_as_pillow_resizes_them(measured: dict[str, Any], kinds: str) -> None:
    assert measured["pictures"][kinds] is True


@NEEDS_TRITON
def test_a_tokenizer_gives_the_same_by_it(measured: dict[str, Any]) -> None:
    found = measured["tokenizer"]
    plain, fast, smaller_batches = found["codes"]
    assert [len(codes) for codes in plain] == [3, 0, 2]
    assert len({tuple(row) for codes in plain for row in codes}) > 2
    assert fast == plain
    assert smaller_batches == plain
    for ious, wanted in zip(*found["ious"], strict=True):
        assert ious == pytest.approx(wanted, abs=1e-2)  # pixels on the very edge of the threshold
    assert max(max(ious, default=0) for ious in found["ious"][0]) > 0.1
    assert found["logits"] < 1e-5


@NEEDS_TRITON
@pytest.mark.parametrize(
    ("architecture", "reason"),
    [
        ("tiny", None),
        ("small", None),
        ("samtok", None),
        ("sam2 tiny", "windows of 14 do not fit 64 tokens"),
        ("size", "its image of 96 pixels is no power of two"),
        ("wide windows", "windows of 8 do not fit 4 tokens"),
        ("width", "its 96 channels are no power of two from 128 on"),
        ("even", "a stage is no wider than the one before it, whose sums it would write over"),
        ("odd", "its 20 channels of a stage are no multiple of 8"),
        ("narrow", "its 64 channels are no power of two from 128 on"),
    ],
)
def test_it_says_which_architectures_it_does_not_support(
    measured: dict[str, Any], architecture: str, reason: str | None
) -> None:
    assert measured["unsupported"][architecture] == reason


@NEEDS_TRITON
@pytest.mark.parametrize(
    ("kernel", "close"),
    [
        ("add_norm", 2e-6),
        ("add_norm in order", 2e-6),
        ("linear", 1e-6),
        ("shrink_prompts", 5e-5),
        ("draw_prompts", 1e-6),
        ("count_overlaps", 0.0),
        ("resize", 0.0),
        ("window_attention", 2e-6),
        ("gelu", 4e-7),
        ("upscale", 2e-6),
    ],
)
def test_each_kernel_computes_what_torch_does(measured: dict[str, Any], kernel: str, close: float) -> None:
    """Of odd sizes too: channels that are no power of two, rows that do not fill a block."""
    differences = measured[kernel]
    assert len(differences) > 3
    assert {name: value for name, value in differences.items() if not value <= close} == {}
