"""The residual quantiser against its definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tokenizer_model.quantizers import ResidualQuantizer

SIZES = pytest.mark.parametrize(
    ("codebook_size", "depth", "channels"), [(256, 2, 16), (3, 1, 4), (17, 4, 8), (1, 2, 2)], ids=str
)


def drawn(codebook_size: int, depth: int, channels: int) -> ResidualQuantizer:
    numbers = np.random.Generator(np.random.Philox(codebook_size))
    quantizer = ResidualQuantizer(codebook_size, depth, channels).requires_grad_(False)
    for name, tensor in quantizer.state_dict().items():
        tensor.copy_(torch.from_numpy(numbers.standard_normal(tensor.shape)))
        if name.endswith("weight"):
            tensor[-1] = 0  # the padding row, where every residual would like to go
    return quantizer


@SIZES
def test_each_code_is_the_nearest_row_to_what_is_left(codebook_size: int, depth: int, channels: int) -> None:
    quantizer = drawn(codebook_size, depth, channels)
    state = {name: tensor.double().numpy() for name, tensor in quantizer.state_dict().items()}
    z_ND = np.random.Generator(np.random.Philox(1)).standard_normal((50, channels)).astype(np.float32)
    codes_NL = quantizer.encode(torch.from_numpy(z_ND)).numpy()
    assert (codes_NL.shape, codes_NL.dtype) == ((50, depth), np.int64)
    for z_D, code_L in zip(z_ND.astype(np.float64), codes_NL, strict=True):
        residual_D = z_D
        for level, code in enumerate(code_L):
            rows_KD = state[f"codebooks.{level}.weight"][:-1]
            assert code == min(range(codebook_size), key=lambda row: ((residual_D - rows_KD[row]) ** 2).sum())
            residual_D = residual_D - rows_KD[code]


def test_the_padding_row_is_never_chosen() -> None:
    quantizer = drawn(5, 2, 4)
    codes_NL = quantizer.encode(torch.zeros(1, 4))  # exactly the padding row
    assert codes_NL[0, 0] < 5


@SIZES
def test_what_is_decoded_is_the_sum_of_the_rows(codebook_size: int, depth: int, channels: int) -> None:
    quantizer = drawn(codebook_size, depth, channels)
    codes_NL = torch.from_numpy(np.random.Generator(np.random.Philox(2)).integers(0, codebook_size, (20, depth)))
    state = quantizer.state_dict()
    expected = sum(state[f"codebooks.{level}.weight"][codes_NL[:, level]] for level in range(depth))
    torch.testing.assert_close(quantizer.decode(codes_NL), torch.as_tensor(expected))


def test_a_missing_code_contributes_nothing_and_the_argument_stays_as_it_was() -> None:
    quantizer = drawn(256, 2, 16)
    rows = quantizer.state_dict()
    codes_NL = torch.tensor([[3, -1], [-1, 7], [-1, -1], [3, 0]])
    before = codes_NL.clone()
    decoded = quantizer.decode(codes_NL)
    torch.testing.assert_close(decoded[0], rows["codebooks.0.weight"][3])
    torch.testing.assert_close(decoded[1], rows["codebooks.1.weight"][7])
    torch.testing.assert_close(decoded[2], torch.zeros(16))
    assert not torch.equal(decoded[0], decoded[3])  # the published scripts decode -1 as code 0
    assert torch.equal(codes_NL, before)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        ([[256, 0]], r"expected codes in 0\.\.255 or -1, got 256"),
        ([[0, -2]], r"expected codes in 0\.\.255 or -1, got -2"),
        ([[1, 2, 3]], r"expected codes of shape \(N, 2\), got \(1, 3\)"),
        ([1, 2], r"expected codes of shape \(N, 2\), got \(2,\)"),
    ],
    ids=["too large", "too small", "three levels", "one axis"],
)
def test_codes_that_cannot_be_are_refused(codes: list[list[int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        drawn(256, 2, 4).decode(torch.tensor(codes))


def test_no_vectors_give_no_codes() -> None:
    quantizer = drawn(256, 2, 4)
    assert quantizer.encode(torch.empty(0, 4)).shape == (0, 2)
    assert quantizer.decode(torch.empty(0, 2, dtype=torch.int64)).shape == (0, 4)


def test_half_precision_vectors_are_compared_in_the_codebooks_precision() -> None:
    quantizer = drawn(256, 2, 16)
    z_ND = torch.from_numpy(np.random.Generator(np.random.Philox(3)).standard_normal((20, 16))).bfloat16()
    assert torch.equal(quantizer.encode(z_ND), quantizer.encode(z_ND.float()))
