"""A training run from its settings to its end: in this process, or on many workers through Ray Train."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from typing import Any

import torch

from pipelines.mixes import open_sources
from pipelines.training.beginning import begin
from pipelines.training.settings import TrainSettings
from pipelines.training.worker import Outcome, Worker
from samtok_data.errors import SetupError
from samtok_data.outputs import HIDDEN
from samtok_data.storage import Folder

# A worker that dies (a node that goes) is replaced so often; the run goes on from its last checkpoint.
MAX_FAILURES = 3

# What the first worker says at the end: Ray Train hands on figures only with a checkpoint of its own.
_OUTCOME = f"{HIDDEN}/outcome.json"


def train(settings: TrainSettings) -> Outcome:
    """Trains, or goes on with a run that was interrupted.

    Raises:
        SetupError: it cannot start, or an end was put to it; the message says what to do.
    """
    device = settings.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available() and settings.address is None:
        raise SetupError("device cuda: this machine has no CUDA device; take cpu")
    begin(settings, open_sources(settings.mix, Folder(settings.out)))
    if settings.validation is not None:
        open_sources(settings.validation, Folder(settings.out))
    if settings.workers == 1 and settings.address is None:
        return Worker(settings, torch.device(device)).run()
    return _train_on_ray(settings, device)


def _train_on_ray(settings: TrainSettings, device: str) -> Outcome:
    from ray.train import FailureConfig, RunConfig, ScalingConfig, WorkerGroupError
    from ray.train.torch import TorchTrainer

    from pipelines.cluster import join_cluster, ray_session

    with ray_session(), tempfile.TemporaryDirectory() as storage:
        join_cluster(settings.address, num_cpus=settings.workers + 1, with_output=True)
        trainer = TorchTrainer(
            _work,
            train_loop_config={"settings": dataclasses.replace(settings, overwrite=False)},
            scaling_config=ScalingConfig(num_workers=settings.workers, use_gpu=device == "cuda"),
            # Ray's own folder holds nothing of ours: checkpoints lie in the run's folder.
            run_config=RunConfig(
                name="tokenizer", storage_path=storage, failure_config=FailureConfig(max_failures=MAX_FAILURES)
            ),
        )
        try:
            trainer.fit()
        except WorkerGroupError as error:
            for failure in error.worker_failures.values():
                for cause in (failure, failure.__cause__):
                    if isinstance(cause, SetupError):
                        raise cause from error
            raise
    return Outcome(**json.loads(Folder(settings.out).read(_OUTCOME)))


def _work(config: dict[str, Any]) -> None:
    """One worker of Ray Train's group, which made the process group."""
    from ray import train as ray_train
    from ray.train.torch import get_device

    settings: TrainSettings = config["settings"]
    worker = Worker(settings, get_device(), report=ray_train.report)
    outcome = worker.run()
    if worker.group.is_first:
        Folder(settings.out).write(_OUTCOME, json.dumps(outcome.json).encode())
