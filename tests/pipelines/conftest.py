"""Fixtures of the pipeline tests: the bundled sample, one Ray cluster for the session, a fake tokenizer."""

from __future__ import annotations

import hashlib
import logging
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from numpy.typing import NDArray
from PIL import Image

from pipelines.config import RunConfig
from pipelines.run import Summary, tokenize
from samtok_data.masks import RLE
from samtok_data.words import MaskVocabulary

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def one_thread() -> Iterator[None]:
    """torch with one thread: several round differently, and parallel test processes get in each other's way."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def bundled() -> Path:
    """The root of the bundled gRefCOCO sample."""
    return PROJECT / "samples" / "gres"


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """A Ray cluster with room for four actors, whatever the machine."""
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield
    ray.shutdown()


def config_of(bundled: Path, out: Path, **changes: Any) -> RunConfig:
    usual: dict[str, Any] = {
        "dataset": "gres",
        "root": str(bundled),
        "out": str(out),
        "tokenizer": "small",
        "samples_per_shard": 1,
        "num_gpus_per_actor": 0,
        "actors": 2,
    }
    return RunConfig(**{**usual, **changes})


def digests(out: Path) -> dict[str, str]:
    """sha256 of every file of a run, bookkeeping included, except what holds times."""
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name != "summary.json"
    }


@pytest.fixture(scope="session")
def reference(cluster: None, bundled: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Summary]:
    """An undisturbed run by one actor."""
    out = tmp_path_factory.mktemp("reference")
    return out, tokenize(config_of(bundled, out, actors=1))


class FakeTokenizer:
    """Codes by checksum, IoUs of 0; counts what it is asked for."""

    vocabulary = MaskVocabulary()

    def __init__(self) -> None:
        self.num_images = self.num_masks = 0

    def prepare(self, image: Image.Image, regions: Sequence[RLE]) -> tuple[Image.Image, Sequence[RLE]]:
        return image, regions

    def encode_prepared(self, prepared: Sequence[Any]) -> list[NDArray[np.int64]]:
        self.num_images += len(prepared)
        self.num_masks += sum(len(rles) for _, rles in prepared)
        return [np.array([self._codes(rle) for rle in rles], np.int64).reshape(-1, 2) for _, rles in prepared]

    def measure_prepared(self, prepared: Sequence[Any]) -> tuple[list[NDArray[np.int64]], list[NDArray[np.float64]]]:
        return self.encode_prepared(prepared), [np.zeros(len(rles)) for _, rles in prepared]

    @staticmethod
    def _codes(rle: RLE) -> tuple[int, int]:
        checksum = zlib.crc32(rle.counts.encode())
        return checksum % 256, checksum // 256 % 256


@pytest.fixture
def fake_tokenizer() -> FakeTokenizer:
    return FakeTokenizer()
