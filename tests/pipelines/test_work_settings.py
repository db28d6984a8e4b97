"""What a run computes in where nobody says so."""

from __future__ import annotations

import pytest

from pipelines.config import RunConfig
from pipelines.work import shared_fingerprint
from tokenizer_model import identify_tokenizer


@pytest.mark.parametrize(
    ("precision", "device", "used"),
    [(None, "cuda", "fp16"), (None, "cpu", "fp32"), ("fp32", "cuda", "fp32"), ("bf16", "cuda", "bf16")],
)
def test_sixteen_bits_are_for_gpus(precision: str | None, device: str, used: str) -> None:
    config = RunConfig(dataset="gres", root="in", out="out", precision=precision)  # pyright: ignore[reportArgumentType]
    assert config.precision_on(device) == used
    assert shared_fingerprint(config, identify_tokenizer("small"), device)["precision"] == used
