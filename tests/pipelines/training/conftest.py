"""Fixtures of the training tests: one thread for torch, and an undisturbed run to compare others with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pipelines.training.run import train
from pipelines.training.settings import read_settings
from tests.pipelines.training.runs import write_run


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """On busy cores threads wait for each other, and sums are split differently on other machines."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a complete run of twelve steps."""
    folder = tmp_path_factory.mktemp("undisturbed")
    train(read_settings(str(write_run(folder))))
    return folder / "out"
