"""The Ray actor that owns units, and the loop that hands them out.

Ray does the scheduling: it restarts an actor that died and runs its unit again, and asks an autoscaler for nodes
where actors do not fit. Tried against Ray Data over units; docs/design.md has the figures.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import ray
from ray.exceptions import RayActorError, RayTaskError

from pipelines.work import Job, UnitWork, software
from samtok_data.errors import SetupError
from samtok_data.outputs import UnitEntry

if TYPE_CHECKING:
    from tokenizer_model import MaskTokenizer

# How often one unit is run again when its actor dies. Restarts of actors are not counted: on nodes that come and go,
# an actor may well die often without a fault of its own.
MAX_RETRIES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerOrder:
    """What an actor computes with; one that finds something else refuses to work.

    Attributes:
        spec: as ``--tokenizer`` takes it.
        sha256: of its weights as the driver read them.
        precision: ``fp32`` or ``bf16``.
        device: ``cuda`` or ``cpu``.
        software: versions on the driver, as they stand in the run's fingerprint.
    """

    spec: str
    sha256: str
    precision: Literal["fp32", "bf16"]
    device: Literal["cuda", "cpu"]
    software: Mapping[str, str]


class UnitActor:
    """Holds a tokenizer and runs units, one after the other."""

    def __init__(self, order: TokenizerOrder, settings: Mapping[str, UnitWork]) -> None:
        self.order, self.settings = order, settings
        self._tokenizer: MaskTokenizer | None = None

    def ready(self) -> None:
        """Opens the tokenizer.

        Not done by the constructor: Ray hands an error of a method to the driver whole, one of a constructor as text.
        """
        self._tokenizer = self._open()

    def run(self, job: Job) -> tuple[str, UnitEntry]:
        """Runs one unit; the result is its split and its manifest entry."""
        if self._tokenizer is None:  # this process replaces one that died
            self._tokenizer = self._open()
        return job.split, self.settings[job.split].run_job(job, self._tokenizer)

    def _open(self) -> MaskTokenizer:
        import torch

        from tokenizer_model import open_tokenizer

        here = software()
        if here != self.order.software:
            differences = ", ".join(
                f"{name} {here[name]} instead of {version}"
                for name, version in self.order.software.items()
                if here[name] != version
            )
            raise SetupError(f"a node has other software than the driver: {differences}; install the same everywhere")
        # One thread on a CPU, whatever the machine: sums that are split over threads round differently, and
        # the words must not depend on the number of cores or actors.
        torch.set_num_threads(1)
        tokenizer = open_tokenizer(self.order.spec, device=self.order.device, precision=self.order.precision)
        found = tokenizer.identity.sha256
        if found != self.order.sha256:
            raise SetupError(
                f"--tokenizer {self.order.spec}: a node holds other weights (sha256 {found[:12]}) than the driver "
                f"({self.order.sha256[:12]}); give every node the same file, or an address that all of them reach"
            )
        return tokenizer


def run_jobs(
    jobs: Iterable[Job],
    order: TokenizerOrder,
    settings: Mapping[str, UnitWork],
    *,
    actors: int,
    num_gpus: float,
) -> Generator[tuple[str, UnitEntry], None, None]:
    """Runs units on actors; yields (split, manifest entry) in the order in which they are finished.

    An actor gets its first unit when it is ready, so actors that the cluster has no room for yet hold up nothing.
    One unit is in flight for each actor, and jobs are drawn only when one is free: the driver's memory does not
    grow with their number. The actors are gone when the generator is exhausted or closed.

    Raises:
        SetupError: the output cannot be written, the tokenizer cannot be opened, or a unit's actor died more often
            than the unit is tried.
    """
    options: dict[str, Any] = {"max_restarts": -1, "max_task_retries": MAX_RETRIES}
    actor_class: Any = ray.remote(num_cpus=1, num_gpus=num_gpus, **options)(UnitActor)
    handles = [actor_class.remote(order, settings) for _ in range(actors)]
    starting = {handle.ready.remote(): handle for handle in handles}
    running: dict[Any, Any] = {}
    waiting = iter(jobs)
    job = next(waiting, None)
    try:
        while job is not None or running:
            (done, *_), _ = ray.wait([*starting, *running], num_returns=1)
            handle = starting.pop(done, None) or running.pop(done)
            finished = ray.get(done)
            if job is not None:
                running[handle.run.remote(job)] = handle
                job = next(waiting, None)
            if finished is not None:
                yield finished
    except RayTaskError as error:
        if isinstance(error.cause, SetupError):
            raise SetupError(*error.cause.args) from error
        raise
    except RayActorError as error:
        raise _death(error) from error
    finally:
        for handle in handles:
            ray.kill(handle)


def _death(error: RayActorError) -> SetupError:
    """An actor that could not be made, or that died with one unit too often."""
    text = str(error)
    if "creation task" in text:
        last = text.strip().splitlines()[-1].strip()
        return SetupError(
            f"An actor could not start: {last}. samtok-data must be installed on every node of the cluster"
        )
    detail = next((line.strip() for line in text.splitlines() if "exit" in line), text.splitlines()[0]).partition(
        ". Some "
    )[0]
    return SetupError(
        f"An actor died {MAX_RETRIES + 1} times at the same work; too little memory is the usual cause. Finished "
        f"shards are kept: mend the cause and run again to resume. Ray says: {detail[:300]}"
    )
