"""SIGKILL at any moment: the resumed run is the one that was never killed, to the last bit."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.training.export import export
from pipelines.training.run import train
from pipelines.training.settings import read_settings
from tests.pipelines.training.killed import MOMENTS, run_and_die
from tests.pipelines.training.runs import files_of, rows_of, state_of, write_run


def assert_same_run(out: Path, undisturbed: Path) -> None:
    """Log, checkpoints and exported weights; and nothing else lies there."""
    assert rows_of(out) == rows_of(undisturbed)
    assert list(files_of(out)) == list(files_of(undisturbed))
    assert_same(state_of(out), state_of(undisturbed))
    written = []
    for name, run in (("a", out), ("b", undisturbed)):
        path = out.parent / f"{name}.safetensors"
        export(str(run), str(path), name="same")
        written.append(path.read_bytes())
    assert written[0] == written[1]


def assert_same(found: Any, expected: Any) -> None:
    """Equal values all the way down, tensors bit by bit. (Files may differ: pickle writes texts once or twice.)"""
    assert type(found) is type(expected)
    if isinstance(expected, torch.Tensor):
        assert found.dtype == expected.dtype
        assert torch.equal(found, expected)
    elif isinstance(expected, Mapping):
        assert list(found) == list(expected)
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    else:
        assert found == expected


@pytest.mark.parametrize("moment", list(MOMENTS))
def test_a_killed_run_resumes_to_the_same_bytes(undisturbed: Path, tmp_path: Path, moment: str) -> None:
    config = str(write_run(tmp_path))
    # From a server process that has imported everything (see conftest.py): a run starts within a second.
    context = multiprocessing.get_context("forkserver")
    process = context.Process(target=run_and_die, args=(moment, config))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    outcome = train(read_settings(config))
    assert outcome.is_complete
    assert_same_run(tmp_path / "out", undisturbed)


def test_the_command_killed_from_outside_resumes_to_the_same_bytes(undisturbed: Path, tmp_path: Path) -> None:
    config, out = write_run(tmp_path), tmp_path / "out"
    command = [sys.executable, "-m", "pipelines.cli", "train-tokenizer", "--config", str(config), "--loaders", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not (out / "checkpoints" / "step-00000004.json").exists():
        assert process.poll() is None, process.stderr and process.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)  # a loader process that lived on would hold the pipe
    assert not (out / "checkpoints" / "step-00000012.json").exists()
    assert train(read_settings(str(config))).is_complete
    assert_same_run(out, undisturbed)
