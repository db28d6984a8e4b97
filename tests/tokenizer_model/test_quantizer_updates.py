"""What training makes of codebooks: moving averages, restarts, and the same on every worker."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import two_workers
from quantizer_rules import codebooks, coded, numbers, residual, set_averages, state_of, updated

CASES = pytest.mark.parametrize(
    ("codebook_size", "depth", "shared", "num_vectors", "decay"),
    [
        (17, 2, False, 60, 0.99),
        (17, 1, False, 60, 0.9),
        (9, 4, False, 40, 0.9),
        (17, 3, True, 40, 0.9),
        (17, 2, False, 5, 0.9),  # fewer vectors than codes
        (17, 2, True, 5, 0.9),
        (1, 2, False, 3, 0.5),
        (4, 1, False, 4, 0.0),
    ],
    ids=["17x2", "17x1", "9x4", "17x3 shared", "few", "few shared", "1x2", "decay 0"],
)


@CASES
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)], ids=str)
def test_updates_follow_the_rule(
    codebook_size: int,
    depth: int,
    shared: bool,
    num_vectors: int,
    decay: float,
    dtype: torch.dtype,
    tolerance: float,
) -> None:
    quantizer = residual(codebook_size, depth, 8, shared=shared).to(dtype)
    set_averages(quantizer, [6.3, 0.2, 1.7])  # some rows will be restarted in the first step, some later, some never
    padding = [codebook.weight[-1].clone() for codebook in codebooks(quantizer)]
    seen = []
    for step in range(5):
        z_ND = torch.from_numpy(numbers(step, num_vectors, 8)).to(dtype)
        given, before = z_ND.clone(), state_of(quantizer)
        use = quantizer.update(z_ND, decay=decay, seed=step)
        expected = updated(before, depth, z_ND.double().numpy(), decay, step)
        after = state_of(quantizer)
        assert list(after) == list(before)
        for name, array in expected.state.items():
            np.testing.assert_allclose(after[name], array, rtol=tolerance, atol=tolerance, err_msg=f"{step}: {name}")
        assert use.restarted == tuple(expected.restarted * (depth if shared else 1))
        assert torch.equal(z_ND, given)
        seen.append(use.restarted)
    assert all(
        torch.equal(codebook.weight[-1], row) for codebook, row in zip(codebooks(quantizer), padding, strict=True)
    )
    numbers_seen = {number for restarted in seen for number in restarted}
    assert codebook_size == 1 or any(0 < number < codebook_size for number in numbers_seen)  # some, but not all


def test_rows_without_history_become_distinct_inputs_of_their_level() -> None:
    quantizer = residual(16, 2, 8).double()
    for codebook in codebooks(quantizer):
        codebook.cluster_size_ema.zero_()
    z_ND = torch.from_numpy(numbers(1, 40, 8))
    _, inputs = coded(state_of(quantizer), 2, z_ND.numpy())
    assert quantizer.update(z_ND, seed=5).restarted == (16, 16)
    chosen = []
    for level in range(2):
        rows_KD = quantizer.state_dict()[f"codebooks.{level}.embed_ema"].numpy()
        chosen.append([int(np.abs(inputs[level] - row).sum(axis=1).argmin()) for row in rows_KD])
        np.testing.assert_allclose(inputs[level][chosen[level]], rows_KD, rtol=0, atol=1e-15)
        assert len(set(chosen[level])) == 16
        np.testing.assert_allclose(quantizer.state_dict()[f"codebooks.{level}.weight"][:-1], rows_KD, rtol=1e-12)
    assert chosen[0] != chosen[1]  # each level draws for itself


def test_fewer_inputs_than_rows_are_repeated_with_a_little_noise() -> None:
    quantizer = residual(16, 1, 4).double()
    codebooks(quantizer)[0].cluster_size_ema.zero_()
    z_ND = numbers(1, 5, 4)
    quantizer.update(torch.from_numpy(z_ND), seed=5)
    rows_KD = quantizer.state_dict()["codebooks.0.embed_ema"].numpy()
    nearest_K = np.array([np.abs(z_ND - row).sum(axis=1).argmin() for row in rows_KD])
    noise_KD = rows_KD - z_ND[nearest_K]
    assert noise_KD.min() >= 0
    assert noise_KD.max() < 0.01 / 2
    assert 0.5 < noise_KD.mean() / (0.01 / 4) < 1.5
    assert len(np.unique(rows_KD, axis=0)) == 16
    assert np.bincount(nearest_K, minlength=5).max() <= 4  # sixteen rows from four copies of five


def test_the_seed_decides_what_is_drawn_and_the_callers_generator_is_left_alone() -> None:
    quantizers = [residual(16, 2, 8) for _ in range(3)]
    torch.manual_seed(1)
    before = torch.get_rng_state()
    rows = []
    for quantizer, seed in zip(quantizers, (1, 1, 2), strict=True):
        quantizer.update(torch.from_numpy(numbers(1, 40, 8)), seed=seed)
        rows.append(quantizer.state_dict()["codebooks.1.weight"])
    assert torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[0], rows[2])
    assert torch.equal(torch.get_rng_state(), before)


def test_updates_leave_no_graph_and_work_on_vectors_and_rows_with_gradients() -> None:
    quantizer = residual(16, 2, 8).requires_grad_(True)
    z_ND = torch.from_numpy(numbers(1, 40, 8)).float().requires_grad_()
    quantized = quantizer.quantize(z_ND)
    quantizer.update(z_ND, seed=1)
    quantized.commitment_N.sum().backward()  # what was quantised before the update can still go back
    assert z_ND.grad is not None
    for tensor in quantizer.state_dict(keep_vars=True).values():
        assert tensor.grad_fn is None
        assert tensor.grad is None


@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
def test_training_finds_the_clusters_of_its_vectors(shared: bool) -> None:
    """Sums of one of four far and one of four near centres, so two levels of sixteen rows suffice."""
    far, near = 10 * numbers(1, 4, 8), numbers(2, 4, 8)
    quantizer = residual(16, 2, 8, shared=shared)
    draw, errors = np.random.Generator(np.random.Philox(9)), []
    for step in range(100):
        z_ND = far[draw.integers(0, 4, 256)] + near[draw.integers(0, 4, 256)] + 0.01 * numbers(step, 256, 8)
        errors.append(float(quantizer.quantize(torch.from_numpy(z_ND)).commitment_N.mean()))
        quantizer.update(torch.from_numpy(z_ND), decay=0.9, seed=step)
    assert errors[0] > 60
    assert errors[-1] < 0.3


# --- several workers

HYDRA = ("-W", "ignore:register_new_resolver() is deprecated:UserWarning")  # as in pyproject.toml


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Any]]]:
    """What two processes have after the same steps, each with its own share of the vectors."""
    folder = tmp_path_factory.mktemp("workers")
    paths = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "GLOO_SOCKET_IFNAME": "lo"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", *HYDRA, two_workers.__file__, str(rank), "2", str(folder)],
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


@pytest.mark.parametrize("kind", ["residual", "shared", "vq", "fsq"])
def test_two_workers_have_the_codebooks_of_one_with_the_vectors_of_both(
    workers: list[dict[str, dict[str, Any]]], kind: str
) -> None:
    first, second = (worker[kind] for worker in workers)
    alone = two_workers.train((0, 1))[kind]
    assert list(first["state"]) == list(alone.state)
    for name, tensor in alone.state.items():
        assert torch.equal(first["state"][name], second["state"][name]), name
        assert torch.equal(first["state"][name], tensor), name
    for worker in (first, second):
        assert worker["used"] == alone.used
        assert worker["perplexity"] == alone.perplexity
        assert worker["restarted"] == alone.restarted
    restarted = {number for step in alone.restarted for number in step}
    assert kind == "fsq" or any(0 < number < 16 for number in restarted)


def test_a_worker_alone_has_other_codebooks() -> None:
    """So that the test above can fail: the shares matter."""
    both, one = two_workers.train((0, 1)), two_workers.train((0,))
    assert not torch.equal(both["residual"].state["codebooks.0.weight"], one["residual"].state["codebooks.0.weight"])
    assert both["fsq"].used != one["fsq"].used


def test_a_group_of_one_is_as_no_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    expected = two_workers.train((0, 1))["residual"].state
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    try:
        state = two_workers.train((0, 1))["residual"].state
    finally:
        dist.destroy_process_group()
    for name, tensor in expected.items():
        assert torch.equal(state[name], tensor), name


# --- on a GPU


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype:UserWarning")
@pytest.mark.parametrize("kind", ["residual", "shared", "vq", "fsq"])
def test_a_step_on_a_gpu_waits_for_nothing_and_repeats_to_the_bit(kind: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    z_ND = torch.from_numpy(numbers(1, 1000, two_workers.CHANNELS)).float()
    moved_ND, states, uses = z_ND.cuda().requires_grad_(), [], []
    for _ in range(2):
        quantizer = two_workers.quantizers()[kind].cuda()
        quantizer.quantize(moved_ND)  # libraries set themselves up on first use
        torch.cuda.set_sync_debug_mode("error")
        try:
            quantizer.quantize(moved_ND)
            uses = [quantizer.update(moved_ND, decay=0.9, seed=step) for step in range(5)]
        finally:
            torch.cuda.set_sync_debug_mode("default")
        states.append(quantizer.state_dict())
    on_cpu = two_workers.quantizers()[kind]
    cpu_uses = [on_cpu.update(z_ND, decay=0.9, seed=step) for step in range(5)]
    assert [use.used for use in uses] == [use.used for use in cpu_uses]
    for name, tensor in on_cpu.state_dict().items():
        assert torch.equal(states[0][name], states[1][name]), name
        torch.testing.assert_close(states[0][name].cpu(), tensor, rtol=1e-5, atol=1e-5)
