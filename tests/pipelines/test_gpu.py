"""Runs on GPUs: actors hold one, or share one, and the bytes do not tell."""

from __future__ import annotations

from pathlib import Path

import pytest
import ray
import torch

from pipelines.run import tokenize
from pipelines.verify import find_outputs, verify
from tests.pipelines.conftest import config_of, digests

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_each_actor_holds_a_gpu_by_itself(cluster: None, bundled: Path, tmp_path: Path) -> None:
    summary = tokenize(config_of(bundled, tmp_path, actors=None, num_gpus_per_actor=None))
    assert summary.splits["train"].samples == 67
    (output,) = find_outputs(str(tmp_path))
    assert verify([output])[0].problems == []
    fingerprint = output.fingerprint()
    assert fingerprint is not None
    assert fingerprint.parts["device"] == "cuda"
    assert ray.cluster_resources()["GPU"] == torch.cuda.device_count()


def test_the_bytes_do_not_depend_on_how_actors_share_gpus(cluster: None, bundled: Path, tmp_path: Path) -> None:
    layouts = {"one": (1, 1.0), "halves": (2, 0.5), "quarters": (4, 0.25)}
    found = {}
    for name, (actors, share) in layouts.items():
        tokenize(config_of(bundled, tmp_path / name, actors=actors, num_gpus_per_actor=share))
        found[name] = digests(tmp_path / name)
    assert found["one"]
    assert found["one"] == found["halves"] == found["quarters"]


def test_bf16_is_a_run_of_its_own(cluster: None, bundled: Path, tmp_path: Path) -> None:
    summary = tokenize(config_of(bundled, tmp_path, actors=1, num_gpus_per_actor=1.0, precision="bf16"))
    assert summary.splits["train"].samples == 67
    (output,) = find_outputs(str(tmp_path))
    assert verify([output])[0].problems == []
