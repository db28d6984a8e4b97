"""A training run on many workers through Ray Train, which places them, joins them and replaces those that die."""

from __future__ import annotations

import dataclasses
import json
import logging
import signal
import tempfile
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeGuard

import ray
from ray import train as ray_train
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError, UserCallback
from ray.train.torch import TorchTrainer, get_device

from pipelines.cluster import join_cluster, ray_session
from pipelines.training.settings import TrainSettings
from pipelines.training.worker import Outcome, Worker
from samtok_data.errors import SetupError
from samtok_data.outputs import HIDDEN
from samtok_data.storage import Folder

logger = logging.getLogger(__name__)

# The workers are started anew so often when one of them dies (a node that goes, a GPU that fails); the run goes on
# from its last checkpoint.
MAX_FAILURES = 3

# What the first worker says at the end: Ray Train hands on figures only with a checkpoint of its own.
_OUTCOME = f"{HIDDEN}/outcome.json"


def train_on_ray(settings: TrainSettings, device: str) -> Outcome:
    """Trains on the workers that the settings ask for; the run's folder was begun before.

    Args:
        settings: of the run.
        device: ``cpu`` or ``cuda``.

    Raises:
        SetupError: the cluster has no room for the workers, or a worker put an end to the run.
        WorkerFault: the program is wrong.
        TrainingFailedError: workers died too often.
        KeyboardInterrupt: a person stopped it.
    """
    with ray_session(shown=("RayTrainWorker",)), tempfile.TemporaryDirectory() as storage, _interruptible():
        join_cluster(settings.address, num_cpus=settings.workers, with_output=True)
        _check_room(settings, device)
        trainer = _Trainer(
            _work,
            train_loop_config={"settings": dataclasses.replace(settings, overwrite=False)},
            scaling_config=ScalingConfig(num_workers=settings.workers, use_gpu=device == "cuda"),
            # Ray's own folder holds nothing of ours: checkpoints lie in the run's folder.
            run_config=RunConfig(
                name="tokenizer",
                storage_path=storage,
                failure_config=FailureConfig(max_failures=MAX_FAILURES),
                callbacks=[_EndOfRun()],
                **_quiet(),
            ),
        )
        try:
            trainer.fit()
        except TrainingFailedError as error:
            failures: Mapping[int, Exception] = getattr(error, "worker_failures", {})
            for cause in (getattr(error, "controller_failure", None), *failures.values()):
                if _is_lasting(cause):
                    raise cause from error
            raise
    return Outcome(**json.loads(Folder(settings.out).read(_OUTCOME)))


def _work(config: dict[str, Any]) -> None:
    """One worker of Ray Train's group, which made the process group."""
    settings: TrainSettings = config["settings"]
    logging.getLogger("ray.train").setLevel(logging.CRITICAL)  # what fails is told by the driver
    try:
        worker = Worker(settings, get_device())
        outcome = worker.run()
    except (SetupError, OSError, RuntimeError):
        raise
    except Exception as error:  # noqa: BLE001 - it ends the run as before, with its frames
        raise WorkerFault("".join(traceback.format_exception(error))) from None
    if worker.group.is_first:
        Folder(settings.out).write(_OUTCOME, json.dumps(outcome.json).encode())


class WorkerFault(Exception):
    """A fault of the program in a worker; its text is the traceback, which does not travel from process to process."""


class _EndOfRun(UserCallback):
    """Ends the run at an exception that would come again. Lives in Ray Train's controller.

    Ray Train starts the workers anew whatever ended them: it would try a source without masks four times.
    """

    def after_exception(self, run_context: Any, worker_exceptions: Mapping[int, Exception]) -> None:
        """Raises what ends the run, which Ray Train hands to the driver."""
        for error in worker_exceptions.values():
            if _is_lasting(error):
                raise error


def _is_lasting(error: Exception | None) -> TypeGuard[Exception]:
    """Whether another try would end the same way: not where a worker died, nor where (RuntimeError) its GPU failed or
    it lost the connection to a worker that died."""
    is_of_ray = type(error).__module__.startswith("ray.")  # not all of them have one public class above them
    return error is not None and not is_of_ray and not isinstance(error, RuntimeError)


class _Trainer(TorchTrainer):
    """Without the actor that frees the workers' places should Ray Train's controller die.

    On a cluster that ends with this process it is of no use. It asks Ray's dashboard, which is not started here, how
    the controller is, waits for an answer through the whole run, says so in a traceback and is waited for (12 s).
    """

    def _create_default_callbacks(self) -> list[Any]:
        callbacks: list[Any] = super()._create_default_callbacks()  # not in every version: never called then
        return [one for one in callbacks if type(one).__name__ != "PlacementGroupCleanerCallback"]


def _quiet() -> dict[str, Any]:
    """Ray Train's own lines go to its log files only; earlier versions have no such setting."""
    config = getattr(ray_train, "LoggingConfig", None)
    return {} if config is None else {"logging_config": config(log_level="CRITICAL")}


def _check_room(settings: TrainSettings, device: str) -> None:
    """Refuses more workers than this machine can ever place: Ray Train would wait for the rest without end."""
    kind = "GPU" if device == "cuda" else "CPU"
    fitting = int(ray.cluster_resources().get(kind, 0))
    if fitting >= settings.workers:
        return
    if settings.address is None:
        raise SetupError(f"workers {settings.workers}: the cluster has {fitting} {kind}s; lower workers")
    logger.warning(
        "The cluster has room for %d of %d workers now; the run begins when it grows.", fitting, settings.workers
    )


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C as everywhere: Ray Train's own handler ends the process without a word, and stays when it is done."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        raise KeyboardInterrupt from error
    finally:
        if before is not None and signal.getsignal(signal.SIGINT) is not before:
            signal.signal(signal.SIGINT, before)
