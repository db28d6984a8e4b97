"""All quantisers by their one interface: what training takes from them, and files and words of each kind."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pictures import disc, drawn_image
from quantizer_rules import coded, numbers, residual, state_of
from safetensors.torch import load_file, save_file

from samtok_data.errors import SetupError
from tokenizer_model import SMALL, MaskTokenizer, open_tokenizer, save_tokenizer
from tokenizer_model.quantizers import FiniteScalarQuantizer, Quantizer, ResidualQuantizer, build_quantizer

KINDS: dict[str, dict[str, Any]] = {
    "residual": {"depth": 3},
    "shared": {"depth": 3, "shared": True},
    "vq": {"depth": 1, "quantizer": "vq"},
    "fsq": {"depth": 1, "quantizer": "fsq", "codebook_size": 84, "fsq_levels": (3, 4, 7)},
}
STATE = {
    "residual": [f"codebooks.{n}.{part}" for n in range(3) for part in ("weight", "cluster_size_ema", "embed_ema")],
    "shared": [f"codebooks.0.{part}" for part in ("weight", "cluster_size_ema", "embed_ema")],
    "vq": [f"codebooks.0.{part}" for part in ("weight", "cluster_size_ema", "embed_ema")],
    "fsq": [f"fsq.project_{side}.{part}" for side in ("in", "out") for part in ("weight", "bias")],
}
EACH_KIND = pytest.mark.parametrize("kind", KINDS)
SIZES = pytest.mark.parametrize(
    ("codebook_size", "depth", "shared"),
    [(256, 2, False), (3, 1, False), (17, 3, False), (17, 4, True), (1, 2, False)],
    ids=["256x2", "3x1", "17x3", "17x4 shared", "1x2"],
)


def built(kind: str) -> Quantizer:
    torch.manual_seed(3)
    return build_quantizer(replace(SMALL, **({"codebook_size": 17} | KINDS[kind])))


def vectors(seed: int, count: int = 40) -> torch.Tensor:
    return torch.from_numpy(numbers(seed, count, SMALL.hidden_size))


# --- every kind


@EACH_KIND
def test_the_configuration_chooses_the_quantizer_and_the_names_of_its_state(kind: str) -> None:
    quantizer = built(kind)
    assert isinstance(quantizer, FiniteScalarQuantizer if kind == "fsq" else ResidualQuantizer)
    assert (quantizer.depth, quantizer.channels) == (KINDS[kind]["depth"], SMALL.hidden_size)
    assert quantizer.codebook_size == (84 if kind == "fsq" else 17)
    assert list(quantizer.state_dict()) == STATE[kind]


@EACH_KIND
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_training_sees_what_encode_and_decode_give(kind: str, dtype: torch.dtype) -> None:
    quantizer, z_ND = built(kind).to(dtype), vectors(1).to(dtype)
    given = z_ND.clone()
    quantized, codes_NL = quantizer.quantize(z_ND), quantizer.encode(z_ND)
    assert torch.equal(quantized.codes_NL, codes_NL)
    assert torch.equal(quantized.embedding_ND, quantizer.decode(codes_NL))
    assert (codes_NL.dtype, codes_NL.shape) == (torch.int64, (40, quantizer.depth))
    assert 0 <= int(codes_NL.min()) <= int(codes_NL.max()) < quantizer.codebook_size
    assert codes_NL.unique().numel() > 5  # not all the same
    assert (quantized.embedding_ND.dtype, quantized.commitment_N.dtype) == (dtype, dtype)
    assert quantized.commitment_N.shape == (40,)
    assert torch.equal(z_ND, given)


@EACH_KIND
def test_quantising_changes_no_state_in_training_mode_either(kind: str) -> None:
    quantizer = built(kind).train()
    before = state_of(quantizer)
    quantizer.quantize(vectors(1).float().requires_grad_()).embedding_ND.sum().backward()
    for name, array in state_of(quantizer).items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)


@EACH_KIND
def test_autocast_makes_no_difference(kind: str) -> None:
    quantizer, z_ND = built(kind), vectors(1, 400).float()  # enough that rounding would change a code
    plain, use = quantizer.quantize(z_ND), quantizer.update(z_ND, seed=1)
    quantizer = built(kind)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast, cast_use = quantizer.quantize(z_ND), quantizer.update(z_ND, seed=1)
    assert cast.embedding_ND.dtype == torch.float32
    assert torch.equal(cast.embedding_ND, plain.embedding_ND)
    assert torch.equal(cast.commitment_N, plain.commitment_N)
    assert torch.equal(cast_use.counts_LK, use.counts_LK)


@EACH_KIND
def test_half_precision_vectors_get_their_gradient(kind: str) -> None:
    quantizer = built(kind)
    z_ND = vectors(1).bfloat16().requires_grad_()
    quantized = quantizer.quantize(z_ND)
    assert torch.equal(quantized.embedding_ND, quantizer.quantize(z_ND.detach().float()).embedding_ND)
    quantized.embedding_ND.square().sum().backward()
    assert z_ND.grad is not None
    assert z_ND.grad.dtype == torch.bfloat16
    assert bool((z_ND.grad != 0).any())


@EACH_KIND
def test_no_vectors_are_no_error(kind: str) -> None:
    quantizer = built(kind)
    before = state_of(quantizer)
    quantized = quantizer.quantize(torch.empty(0, SMALL.hidden_size))
    assert (quantized.embedding_ND.shape, quantized.commitment_N.shape) == ((0, SMALL.hidden_size), (0,))
    use = quantizer.update(torch.empty(0, SMALL.hidden_size), seed=0)
    nothing = (0,) * quantizer.depth
    assert (use.used, use.perplexity, use.restarted) == (nothing, nothing, nothing)
    for name, array in state_of(quantizer).items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)


@EACH_KIND
def test_an_update_reports_the_codes_of_its_batch(kind: str) -> None:
    quantizer, z_ND = built(kind).double(), vectors(2)
    codes_NL = quantizer.encode(z_ND).numpy()
    use = quantizer.update(z_ND, seed=4)
    for level in range(quantizer.depth):
        codes, counts = np.unique(codes_NL[:, level], return_counts=True)
        shares = counts / counts.sum()
        assert use.used[level] == len(codes)
        assert use.perplexity[level] == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-12)
    # 40 vectors move no count to 1 in one step, so each row starts anew.
    assert use.restarted == (0 if kind == "fsq" else 17,) * quantizer.depth


@EACH_KIND
def test_a_saved_tokenizer_of_each_kind_comes_back_with_its_words(kind: str, tmp_path: Path) -> None:
    config = replace(SMALL, **KINDS[kind])
    torch.manual_seed(5)
    model = MaskTokenizer(config)
    model.quantizer.update(vectors(3).float(), seed=1)
    path = tmp_path / "mine.safetensors"
    save_tokenizer(model, path, name="mine", trained=True)
    opened = open_tokenizer(str(path))
    assert opened.config == config
    theirs = opened.state_dict()
    assert list(theirs) == list(model.state_dict())
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in model.state_dict().items())

    image = drawn_image(64, 64)
    ((codes_L,),) = opened.encode([image], [[disc(64, 64, 0.5, 0.5, 9)]])
    word = opened.vocabulary.format(codes_L.tolist())
    assert opened.vocabulary.parse(word) == tuple(codes_L)
    assert len(opened.vocabulary.tokens) == 2 + config.codebook_size * config.depth
    (logits_NPP,) = opened.decode_logits([image], [codes_L[None]])
    assert logits_NPP.shape == (1, config.logit_side, config.logit_side)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shared": True}, "expected 1 codebooks, got 2"),
        ({"quantizer": "vq", "depth": 1}, "expected 1 codebooks, got 2"),
        ({"quantizer": "fsq", "depth": 1, "fsq_levels": [8, 8, 4]}, "expected 0 codebooks, got 2"),
        ({"quantizer": "fsq", "depth": 1}, "fsq_levels must be one or more, each at least 3"),
    ],
    ids=["shared", "vq", "fsq", "fsq without levels"],
)
def test_a_file_with_the_codebooks_of_another_quantizer_is_refused(
    small: MaskTokenizer, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = tmp_path / "mine.safetensors"
    save_tokenizer(small, path, name="mine", trained=True)
    header = json.dumps({"name": "mine", "trained": True, "config": SMALL.json | change})
    save_file(load_file(path), path, metadata={"samtok_config": header})
    with pytest.raises(SetupError, match=message):
        open_tokenizer(str(path))


# --- the residual one


@SIZES
def test_the_gradient_of_the_embedding_is_that_of_z(codebook_size: int, depth: int, shared: bool) -> None:
    quantizer = residual(codebook_size, depth, 8, shared=shared).requires_grad_(True)
    z_ND = torch.from_numpy(numbers(1, 30, 8)).float().requires_grad_()
    gradient_ND = torch.from_numpy(numbers(2, 30, 8)).float()
    quantizer.quantize(z_ND).embedding_ND.backward(gradient_ND)
    assert z_ND.grad is not None
    assert torch.equal(z_ND.grad, gradient_ND)
    assert all(parameter.grad is None for parameter in quantizer.parameters())


@SIZES
def test_the_commitment_is_the_mean_over_levels_of_the_distance_to_the_sums(
    codebook_size: int, depth: int, shared: bool
) -> None:
    quantizer = residual(codebook_size, depth, 8, shared=shared).double().requires_grad_(True)
    z_ND = torch.from_numpy(numbers(1, 30, 8)).requires_grad_()
    commitment_N = quantizer.quantize(z_ND).commitment_N
    commitment_N.sum().backward()
    assert z_ND.grad is not None

    state, plain_ND = state_of(quantizer), z_ND.detach().numpy()
    codes_NL, _ = coded(state, depth, plain_ND)
    for z_D, code_L, commitment, gradient_D in zip(
        plain_ND, codes_NL, commitment_N.tolist(), z_ND.grad.numpy(), strict=True
    ):
        sum_D, expected, slope_D = np.zeros(8), 0.0, np.zeros(8)
        for level, code in enumerate(code_L):
            sum_D = sum_D + state[f"codebooks.{0 if shared else level}.weight"][code]
            expected += ((z_D - sum_D) ** 2).mean() / depth
            slope_D = slope_D + 2 * (z_D - sum_D) / (8 * depth)
        assert commitment == pytest.approx(expected, rel=1e-12)
        np.testing.assert_allclose(gradient_D, slope_D, rtol=0, atol=1e-12)
    assert all(parameter.grad is None for parameter in quantizer.parameters())


def test_a_shared_codebook_serves_every_level() -> None:
    quantizer, z_ND = residual(17, 4, 8, shared=True), torch.from_numpy(numbers(1, 50, 8)).float()
    rows_KD = quantizer.state_dict()["codebooks.0.weight"]
    codes_NL = quantizer.encode(z_ND)
    np.testing.assert_array_equal(codes_NL, coded(state_of(quantizer), 4, z_ND.double().numpy())[0])
    torch.testing.assert_close(quantizer.decode(codes_NL), rows_KD[codes_NL].sum(dim=1))


def test_codebooks_ask_for_no_gradient() -> None:
    assert not any(parameter.requires_grad for parameter in ResidualQuantizer(5, 2, 4).parameters())


# --- finite scalar quantisation


def scalars(quantizer: FiniteScalarQuantizer, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Scalars over the whole range, (N, S), and vectors whose projections they are, (N, D)."""
    wanted_NS = torch.from_numpy(1.5 * numbers(6, count, 3))
    state = quantizer.state_dict()
    weight_SD, bias_S = state["fsq.project_in.weight"], state["fsq.project_in.bias"]
    return wanted_NS, (wanted_NS - bias_S) @ torch.linalg.pinv(weight_SD).T


def test_fsq_codes_are_numbers_of_cells_and_each_can_be_reached() -> None:
    quantizer = FiniteScalarQuantizer((3, 4, 5), 16).double()
    wanted_NS, z_ND = scalars(quantizer, 3000)
    codes = quantizer.encode(z_ND)[:, 0].tolist()
    assert set(codes) == set(range(60))
    for x_S, code in zip(wanted_NS.numpy(), codes, strict=True):
        expected, place = 0, 1
        for x, level in zip(x_S, (3, 4, 5), strict=True):  # arXiv 2309.15505, appendix A.1
            half, offset = (level - 1) * 1.001 / 2, 0.5 if level % 2 == 0 else 0.0
            bounded = np.tanh(x + np.arctanh(offset / half)) * half - offset
            expected += place * (round(float(bounded)) + level // 2)
            place *= level
        assert code == expected


def test_fsq_decodes_a_code_as_the_projection_of_its_cell() -> None:
    quantizer = FiniteScalarQuantizer((3, 4, 5), 16).double()
    codes_N1 = torch.arange(60).unsqueeze(1)
    cells = [[code % 3 - 1, (code // 3 % 4 - 2) / 2, (code // 12 - 2) / 2] for code in range(60)]
    expected_ND = quantizer.fsq.project_out(torch.tensor(cells, dtype=torch.float64))
    torch.testing.assert_close(quantizer.decode(codes_N1), expected_ND, rtol=0, atol=1e-12)


def test_fsq_decodes_a_missing_code_as_nothing_and_refuses_what_is_no_code() -> None:
    quantizer = FiniteScalarQuantizer((3, 4, 5), 16)
    codes_N1 = torch.tensor([[-1], [0], [59]])
    decoded_ND = quantizer.decode(codes_N1)
    assert torch.equal(decoded_ND[0], torch.zeros(16))
    assert bool((decoded_ND[1:] != 0).any(dim=1).all())
    assert codes_N1.tolist() == [[-1], [0], [59]]
    with pytest.raises(ValueError, match=r"expected codes in 0\.\.59 or -1, got 60"):
        quantizer.decode(torch.tensor([[60]]))
    with pytest.raises(ValueError, match=r"expected codes of shape \(N, 1\), got \(1, 2\)"):
        quantizer.decode(torch.tensor([[1, 2]]))


def test_fsq_passes_gradients_to_z_and_to_its_projections_and_commits_to_nothing() -> None:
    quantizer = FiniteScalarQuantizer((3, 4, 5), 16).double()
    z_ND = torch.from_numpy(numbers(1, 30, 16)).requires_grad_()
    gradient_ND = torch.from_numpy(numbers(2, 30, 16))
    quantized = quantizer.quantize(z_ND)
    quantized.embedding_ND.backward(gradient_ND)
    assert torch.equal(quantized.commitment_N, torch.zeros(30, dtype=torch.float64))
    for parameter in quantizer.parameters():
        assert parameter.grad is not None
        assert bool((parameter.grad != 0).any())

    # Rounding passes gradients as they are: what remains is projection, tanh and projection.
    smooth_ND = z_ND.detach().clone().requires_grad_()
    levels = torch.tensor([3, 4, 5])
    half, offset = (levels - 1).double() * 1.001 / 2, torch.where(levels % 2 == 0, 0.5, 0.0).double()
    bounded_NS = torch.tanh(quantizer.fsq.project_in(smooth_ND) + torch.atanh(offset / half)) * half - offset
    quantizer.fsq.project_out(bounded_NS / (levels // 2)).backward(gradient_ND)
    assert z_ND.grad is not None
    assert smooth_ND.grad is not None
    torch.testing.assert_close(z_ND.grad, smooth_ND.grad, rtol=1e-5, atol=1e-7)  # shifts are float32


def test_fsq_without_its_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vector_quantize_pytorch", None)
    with pytest.raises(SetupError, match=r"the quantizer fsq needs vector-quantize-pytorch.*'samtok-data\[train\]'"):
        built("fsq")
    built("residual")  # the others do not need it
