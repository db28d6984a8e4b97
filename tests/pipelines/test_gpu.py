"""Runs on GPUs: encoders hold one, or share one, each with its feeders, and the bytes do not tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from ray import cloudpickle

from pipelines import actors
from pipelines.config import RunConfig
from pipelines.run import tokenize
from pipelines.verify import find_outputs, verify
from samtok_data.errors import SetupError
from tests.pipelines import test_encoders
from tests.pipelines.conftest import config_of, digests

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def gpu_config(bundled: Path, out: Path, **changes: Any) -> RunConfig:
    return config_of(bundled, out, **{"actors": None, "num_gpus_per_actor": None, **changes})


def test_each_encoder_holds_a_gpu_by_itself(cluster: None, bundled: Path, tmp_path: Path) -> None:
    summary = tokenize(gpu_config(bundled, tmp_path))
    assert summary.splits["train"].samples == 67
    assert sum(one["images"] for one in summary.encoders) == summary.splits["train"].images
    (output,) = find_outputs(str(tmp_path))
    assert verify([output])[0].problems == []
    fingerprint = output.fingerprint()
    assert fingerprint is not None
    assert fingerprint.parts["device"] == "cuda"
    assert ray.cluster_resources()["GPU"] == torch.cuda.device_count()


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_the_bytes_do_not_depend_on_encoders_and_feeders(
    cluster: None, bundled: Path, tmp_path: Path, precision: str
) -> None:
    """Encoders, GPUs of each, feeders of each."""
    layouts = {"one": (1, 1.0, 1), "three": (1, 1.0, 3), "halves": (2, 0.5, 2), "quarters": (4, 0.25, None)}
    found = {}
    for name, (encoders, share, feeders) in layouts.items():
        settings = {"actors": encoders, "num_gpus_per_actor": share, "feeders": feeders, "precision": precision}
        tokenize(gpu_config(bundled, tmp_path / name, measure_iou=True, **settings))
        found[name] = digests(tmp_path / name)
    assert found["one"]
    assert found["one"] == found["three"] == found["halves"] == found["quarters"]


@pytest.mark.parametrize(
    ("name", "mortal"), [("EncoderActor", test_encoders.MortalEncoder), ("UnitActor", test_encoders.MortalFeeder)]
)
def test_an_encoder_or_a_feeder_that_dies_once_costs_nothing(
    cluster: None, bundled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, mortal: type
) -> None:
    cloudpickle.register_pickle_by_value(test_encoders)
    monkeypatch.setattr(test_encoders, "MARK", tmp_path / "died")
    tokenize(gpu_config(bundled, tmp_path / "undisturbed"))
    monkeypatch.setattr(actors, name, mortal)
    tokenize(gpu_config(bundled, tmp_path / "out"))
    assert (tmp_path / "died").exists()
    assert digests(tmp_path / "out") == digests(tmp_path / "undisturbed")


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_is_a_run_of_its_own(cluster: None, bundled: Path, tmp_path: Path, precision: str) -> None:
    summary = tokenize(gpu_config(bundled, tmp_path, precision=precision))
    assert summary.splits["train"].samples == 67
    (output,) = find_outputs(str(tmp_path))
    assert verify([output])[0].problems == []
    with pytest.raises(SetupError, match=f'precision was "{precision}", is "fp32"'):
        tokenize(gpu_config(bundled, tmp_path, precision="fp32"))
