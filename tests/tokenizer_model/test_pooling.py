"""Tokens are pooled as torch pools them, to the bit: on a CPU through Triton's interpreter, and on a GPU."""

from __future__ import annotations

import pytest

pytest.importorskip("triton", reason="triton is not installed")

import torch
from interpreter import found_by
from tokens import POOLING, largest_of_four, pooling_rows

from tokenizer_model.fast.pooling import pooled


def test_the_largest_of_four_is_torchs_to_the_bit() -> None:
    found = found_by("interpreted_tokens.py", "pooling")
    assert len(found) == 5 * len(POOLING) + 1
    assert [name for name, is_same in found.items() if not is_same] == []


def test_channels_that_do_not_lie_side_by_side_are_refused() -> None:
    with pytest.raises(ValueError, match=r"channels must lie side by side, got rows of strides \(1, 4\)"):
        pooled(torch.zeros(8, 4).T, 2, torch.float32)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32])
def test_on_a_gpu_it_is_torchs_to_the_bit(kind: torch.dtype) -> None:
    for tokens, channels, window, wider in [(65536, 288, 8, 3), (65536, 288, 8, 1), (16384, 576, 4, 1), *POOLING]:
        rows_TC = pooling_rows(tokens, channels, wider, kind, "cuda")
        wanted = largest_of_four(rows_TC, window)
        for of in {kind, torch.float32}:
            assert torch.equal(pooled(rows_TC, window, of), wanted.to(of))
