"""Filling a tokenizer from SAM 2.1's own checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from weight_files import State

from samtok_data.errors import SetupError
from tokenizer_model import MaskTokenizer, TokenizerConfig, load_sam2_weights

TINY_SAM2 = TokenizerConfig(backbone="tiny", image_size=256, hidden_size=256, codebook_size=4, depth=1)


@pytest.fixture
def tiny() -> MaskTokenizer:
    return MaskTokenizer(TINY_SAM2)


def sam2_state(model: MaskTokenizer) -> State:
    """What SAM 2.1's file would hold for the model's backbone, video parts included."""
    state = {
        key: torch.full_like(tensor, 0.5)
        for key, tensor in model.network.state_dict().items()
        if not key.startswith("sam_mask_encoder.")
    }
    return state | {"memory_encoder.fuser.weight": torch.zeros(2), "maskmem_tpos_enc": torch.zeros(7)}


def test_sam2_weights_fill_what_sam2_has(tiny: MaskTokenizer, tmp_path: Path) -> None:
    before = {key: tensor.clone() for key, tensor in tiny.state_dict().items()}
    torch.save({"model": sam2_state(tiny)}, tmp_path / "sam2.1_hiera_tiny.pt")
    load_sam2_weights(tiny, tmp_path / "sam2.1_hiera_tiny.pt")
    for key, tensor in tiny.state_dict().items():
        if key.startswith(("quantizer.", "model.sam2_model.sam_mask_encoder.")):
            assert torch.equal(tensor, before[key]), key
        else:
            assert bool((tensor == 0.5).all()), key


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda state: state, "expected a checkpoint of SAM 2.1, a state dict under the key 'model'"),
        (lambda state: {"model": state | {"head": torch.zeros(1)}}, "1 key unexpected: head"),
        (
            lambda state: {"model": {key: state[key] for key in state if key != "no_mem_embed"}},
            "1 key missing: no_mem_embed",
        ),
        (
            lambda state: {"model": state | {"no_mem_embed": torch.zeros(1, 1, 2)}},
            r"no_mem_embed \(expected \(1, 1, 256\), got \(1, 1, 2\)\)",
        ),
    ],
    ids=["layout", "unexpected", "missing", "shape"],
)
def test_sam2_weights_that_do_not_fit_change_nothing(
    tiny: MaskTokenizer, tmp_path: Path, content: Callable[[State], Any], message: str
) -> None:
    before = tiny.network.no_mem_embed.clone()
    torch.save(content(sam2_state(tiny)), tmp_path / "sam2.pt")
    with pytest.raises(SetupError, match=message):
        load_sam2_weights(tiny, tmp_path / "sam2.pt")
    assert torch.equal(tiny.network.no_mem_embed, before)
