"""Several workers make the step that one makes with the images of all of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import two_trainers
from states import assert_equal_states

HYDRA = ("-W", "ignore:register_new_resolver() is deprecated:UserWarning")  # as in pyproject.toml
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What two processes came to, each with half of the images."""
    folder = tmp_path_factory.mktemp("workers")
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "GLOO_SOCKET_IFNAME": "lo"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", *HYDRA, two_trainers.__file__, str(rank), "2", str(folder)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        errors = [process.communicate(timeout=120)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.fixture(scope="module")
def alone() -> two_trainers.Outcome:
    """What one worker comes to with all images, three at a time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as every test; a fixture of a module comes before theirs
    try:
        return two_trainers.train(0, 1, images_per_pass=3)
    finally:
        torch.set_num_threads(threads)


def test_two_workers_report_what_one_does(workers: list[dict[str, Any]], alone: two_trainers.Outcome) -> None:
    assert [report["num_masks"] for report in alone.reports] == [9, 5, 4, 9]
    assert len({report["loss"] for report in alone.reports}) == 4
    for worker in workers:
        assert len(worker["reports"]) == 4
        for found, expected in zip(worker["reports"], alone.reports, strict=True):
            for name in ("loss", "bce", "dice", "commitment"):
                assert found[name] == pytest.approx(expected[name], rel=1e-5), name
            assert found["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-3)
            for name in ("learning_rate", "num_masks", "used", "counts", "restarted"):
                assert found[name] == expected[name], name


def test_two_workers_stay_equal_to_the_bit(workers: list[dict[str, Any]]) -> None:
    first, second = workers
    assert any("embed_ema" in name for name in first["state"]["model"])
    assert_equal_states(first["state"], second["state"])
    assert_equal_states(first["reports"], second["reports"])


def test_two_workers_have_nearly_the_weights_of_one(workers: list[dict[str, Any]], alone: two_trainers.Outcome) -> None:
    for name, tensor in alone.state["model"].items():
        # AdamW moves a weight by up to the learning rate, also where its gradient is nothing but rounding.
        torch.testing.assert_close(workers[0]["state"]["model"][name], tensor, rtol=1e-3, atol=4e-3, msg=name)


def test_an_image_of_one_worker_that_is_not_a_number_stops_both_and_nothing_was_changed(
    workers: list[dict[str, Any]], alone: two_trainers.Outcome
) -> None:
    assert alone.errors == [(3, "bce", (3,))]
    assert [worker["errors"] for worker in workers] == [[(3, "bce", ())], [(3, "bce", (1,))]]  # each names its own
    for outcome in (vars(alone), *workers):
        assert outcome["before_error"]["step"] == 3
        assert_equal_states(outcome["after_error"], outcome["before_error"])


def test_a_group_of_one_is_as_no_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: two_trainers.Outcome
) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    try:
        outcome = two_trainers.train(0, 1, images_per_pass=3)
    finally:
        dist.destroy_process_group()
    assert_equal_states(outcome.state, alone.state)
    assert_equal_states(outcome.reports, alone.reports)
