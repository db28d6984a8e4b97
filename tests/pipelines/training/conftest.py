"""Fixtures of the training tests: one thread for torch, and an undisturbed run to compare others with."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pipelines.training.run import train
from pipelines.training.settings import read_settings
from tests.pipelines.training.runs import write_run


@pytest.fixture(autouse=True, scope="session")
def _little_computing() -> Iterator[None]:
    """One thread: on busy cores threads wait for each other, and sums are split differently on other machines."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    # Loader processes and runs that are killed come from a server that has imported what they need.
    multiprocessing.set_forkserver_preload([
        "torch._dynamo",
        "torch.utils.tensorboard",
        "tests.pipelines.training.killed",
    ])
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a complete run of twelve steps."""
    folder = tmp_path_factory.mktemp("undisturbed")
    train(read_settings(str(write_run(folder))))
    return folder / "out"
