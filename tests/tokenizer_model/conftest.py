"""Fixtures of the tokenizer tests: one open ``small`` tokenizer, a file of it, one thread."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tokenizer_model import MaskTokenizer, open_tokenizer, save_tokenizer


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums over several threads round differently, and parallel test processes get in each other's way."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def small() -> MaskTokenizer:
    """The embedded tokenizer. Tests do not change it."""
    return open_tokenizer("small")


@pytest.fixture
def saved(small: MaskTokenizer, tmp_path: Path) -> Path:
    """Its file, as a user would save it."""
    path = tmp_path / "mine.safetensors"
    save_tokenizer(small, path, name="mine", trained=True)
    return path
