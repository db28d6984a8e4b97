"""The Ray actor that owns units, and the pool of them.

Ray does the scheduling: ``ray.util.ActorPool`` hands a unit to whichever actor is free, Ray itself restarts an
actor that died and runs its unit again, and asks an autoscaler for nodes where actors do not fit. Tried against
Ray Data over units; docs/design.md has the figures.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import ray
from ray.exceptions import RayActorError, RayTaskError
from ray.util import ActorPool

from converters.source import Payload
from pipelines.units import UnitSettings, run_unit
from samtok_data.errors import SetupError
from samtok_data.outputs import UnitEntry

logger = logging.getLogger(__name__)

_COLOUR = re.compile(r"\x1b\[\d+m")

# How often Ray restarts one actor, and runs one unit again, before the run ends with an error.
MAX_RESTARTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerOrder:
    """Which tokenizer an actor opens.

    Attributes:
        spec: as ``--tokenizer`` takes it.
        sha256: of its weights as the driver read them; an actor that finds others refuses to work.
        precision: ``fp32`` or ``bf16``.
        device: ``cuda`` or ``cpu``.
    """

    spec: str
    sha256: str
    precision: str
    device: str


@dataclass(frozen=True, slots=True)
class Job:
    """One unit to be run.

    Attributes:
        split: which settings apply.
        index: of the unit in its split.
        payload: its records.
    """

    split: str
    index: int
    payload: Payload


class UnitActor:
    """Holds a tokenizer and runs units, one after the other."""

    def __init__(self, order: TokenizerOrder, settings: dict[str, UnitSettings]) -> None:
        import torch

        from tokenizer_model import open_tokenizer

        # One thread on a CPU, whatever the machine: sums that are split over threads round differently, and
        # the words must not depend on the number of cores or actors.
        torch.set_num_threads(1)
        self.tokenizer = open_tokenizer(order.spec, device=order.device, precision=order.precision)
        found = self.tokenizer.identity.sha256
        if found != order.sha256:
            raise SetupError(
                f"--tokenizer {order.spec}: this node holds other weights (sha256 {found[:12]}) than the driver "
                f"({order.sha256[:12]}); give every node the same file, or an address that all of them reach"
            )
        self.settings = settings

    def run(self, job: Job) -> tuple[str, UnitEntry]:
        """Runs one unit; the result is its split and its manifest entry."""
        return job.split, run_unit(job.index, job.payload, self.settings[job.split], self.tokenizer)


def start_cluster(address: str | None) -> None:
    """Joins a Ray cluster, or starts one on this machine; nothing happens where the process is in one already.

    Raises:
        SetupError: nothing answers at the address.
    """
    if ray.is_initialized():
        return
    try:
        ray.init(
            address=address or "local",
            include_dashboard=False if address is None else None,
            logging_level=logging.ERROR,
            log_to_driver=False,
            runtime_env=None,
        )
    except ConnectionError as error:
        raise SetupError(
            f"--address {address}: no Ray cluster answers there; start one with 'ray start --head', or leave "
            "--address away to run on this machine"
        ) from error


def cluster_layout(actors: int | None, num_gpus_per_actor: float | None) -> tuple[int, float]:
    """(number of actors, GPUs of each) for the cluster that this process has joined.

    Raises:
        SetupError: GPUs were asked for and the cluster has none.
    """
    resources = ray.cluster_resources()
    gpus = resources.get("GPU", 0.0)
    share = num_gpus_per_actor if num_gpus_per_actor is not None else (1.0 if gpus else 0.0)
    if share and not gpus:
        raise SetupError(f"--num-gpus-per-actor {share:g}: this cluster has no GPU; give 0 to run on CPUs")
    fitting = gpus / share if share else resources.get("CPU", 1.0)
    return actors or max(1, int(fitting)), share


def run_jobs(
    jobs: Iterable[Job], order: TokenizerOrder, settings: dict[str, UnitSettings], *, actors: int, num_gpus: float
) -> Iterator[tuple[str, UnitEntry]]:
    """Runs units on a pool of actors; yields (split, manifest entry) in the order in which they are finished.

    At most one unit is in flight for each actor, and jobs are drawn only when one is free: the driver's memory
    does not grow with their number.

    Raises:
        SetupError: the output cannot be written, the tokenizer cannot be opened, or an actor died more often
            than Ray restarts it.
    """
    pool_class = ray.remote(num_cpus=1, num_gpus=num_gpus, max_restarts=MAX_RESTARTS, max_task_retries=MAX_RESTARTS)(
        UnitActor
    )
    shared = ray.put(settings)
    handles = [pool_class.remote(order, shared) for _ in range(actors)]
    pool = ActorPool(handles)
    try:
        with contextlib.redirect_stdout(_RayNotices()):
            for job in jobs:
                if not pool.has_free():
                    yield pool.get_next_unordered()
                pool.submit(lambda actor, one: actor.run.remote(one), job)
            while pool.has_next():
                yield pool.get_next_unordered()
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
    """An actor that will not come back: by an error of its own in the constructor, or killed from outside."""
    detail = " ".join(str(error).split())[:300]
    return SetupError(
        f"An actor died {MAX_RESTARTS + 1} times in a row and Ray gave it up. Finished shards are kept: mend the "
        f"cause (often too little memory: see the logs under /tmp/ray/session_latest/logs) and run again to resume. "
        f"Ray says: {detail}"
    )


class _RayNotices(io.TextIOBase):
    """Takes Ray's own notices, which it prints to the standard output, and keeps the first sentence of each."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def write(self, text: str) -> int:
        first = _COLOUR.sub("", text).strip().removeprefix("(raylet) ").partition(". ")[0]
        if first and first not in self._seen:
            self._seen.add(first)
            logger.warning("Ray: %s", first[:200])
        return len(text)
