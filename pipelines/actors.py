"""The Ray actor that owns units, and the pool of them.

Ray does the scheduling: ``ray.util.ActorPool`` hands a unit to whichever actor is free, Ray itself restarts an
actor that died and runs its unit again, and asks an autoscaler for nodes where actors do not fit. Tried against
Ray Data over units; docs/design.md has the figures.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import socket
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import ray
from ray.exceptions import RayActorError, RayTaskError
from ray.util import ActorPool

from converters.source import Payload
from pipelines.units import UnitSettings, run_unit
from samtok_data.errors import SetupError
from samtok_data.outputs import UnitEntry

if TYPE_CHECKING:
    from tokenizer_model import MaskTokenizer

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
    precision: Literal["fp32", "bf16"]
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
        self.order, self.settings = order, settings
        self._tokenizer: MaskTokenizer | None = None

    @property
    def tokenizer(self) -> MaskTokenizer:
        """Opened with the first unit: Ray hands an error of a method to the driver whole, one of __init__ as text."""
        if self._tokenizer is None:
            self._tokenizer = self._open()
        return self._tokenizer

    def _open(self) -> MaskTokenizer:
        import torch

        from tokenizer_model import open_tokenizer

        # One thread on a CPU, whatever the machine: sums that are split over threads round differently, and
        # the words must not depend on the number of cores or actors.
        torch.set_num_threads(1)
        tokenizer = open_tokenizer(self.order.spec, device=self.order.device, precision=self.order.precision)
        found = tokenizer.identity.sha256
        if found != self.order.sha256:
            raise SetupError(
                f"--tokenizer {self.order.spec}: this node holds other weights (sha256 {found[:12]}) than the driver "
                f"({self.order.sha256[:12]}); give every node the same file, or an address that all of them reach"
            )
        return tokenizer

    def run(self, job: Job) -> tuple[str, UnitEntry]:
        """Runs one unit; the result is its split and its manifest entry."""
        tokenizer = self.tokenizer  # first: a tokenizer that cannot be opened is the clearest error
        return job.split, run_unit(job.index, job.payload, self.settings[job.split], tokenizer)


def start_cluster(address: str | None, actors: int | None = None) -> None:
    """Joins a Ray cluster, or starts one on this machine; nothing happens where the process is in one already.

    Args:
        address: of the cluster; None: the one that RAY_ADDRESS names (as inside a Ray job), else a new one here.
        actors: that a new cluster must have room for, even with fewer cores.

    Raises:
        SetupError: nothing answers at the address.
    """
    if ray.is_initialized():
        return
    joined = address or os.environ.get("RAY_ADDRESS")
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if joined is None:
        ray.init(address="local", num_cpus=max(os.cpu_count() or 1, actors or 1), include_dashboard=False, **quiet)
        return
    try:
        _knock(joined)
        ray.init(address=joined, **quiet)
    except (OSError, ValueError) as error:
        raise SetupError(
            f"--address {joined}: no Ray cluster answers there; start one with 'ray start --head', or leave "
            "--address away to run on this machine"
        ) from error


@contextlib.contextmanager
def cluster(address: str | None, actors: int | None) -> Iterator[None]:
    """``start_cluster``, and the end of a cluster that was started here; Ray's notices are shortened meanwhile."""
    is_ours = not ray.is_initialized()
    with contextlib.redirect_stdout(_RayNotices()):
        start_cluster(address, actors)
        try:
            yield
        finally:
            if is_ours:
                ray.shutdown()


def _knock(address: str) -> None:
    """Fails where nothing listens at ``host:port``: Ray would end the whole process without an exception."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit() and "//" not in address:
        socket.create_connection((host, int(port)), timeout=10).close()


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
    fitting = max(1, int(gpus / share if share else resources.get("CPU", 1.0)))
    if actors is not None and actors > fitting:
        logger.warning("The cluster has room for %d of %d actors now; the others wait for nodes.", fitting, actors)
    return actors or fitting, share


def run_jobs(
    jobs: Iterable[Job], order: TokenizerOrder, settings: dict[str, UnitSettings], *, actors: int, num_gpus: float
) -> Generator[tuple[str, UnitEntry], None, None]:
    """Runs units on a pool of actors; yields (split, manifest entry) in the order in which they are finished.

    At most one unit is in flight for each actor, and jobs are drawn only when one is free: the driver's memory
    does not grow with their number.

    The actors are gone when the generator is exhausted or closed.

    Raises:
        SetupError: the output cannot be written, the tokenizer cannot be opened, or an actor died more often
            than Ray restarts it.
    """
    options = {"num_cpus": 1, "num_gpus": num_gpus, "max_restarts": MAX_RESTARTS, "max_task_retries": MAX_RESTARTS}
    actor_class: Any = ray.remote(**options)(UnitActor)
    handles = [actor_class.remote(order, settings) for _ in range(actors)]
    pool: Any = ActorPool(handles)
    try:
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
    """An actor that Ray gave up: it could not be made, or died too often."""
    text = str(error)
    if "creation task" in text:
        last = text.strip().splitlines()[-1].strip()
        return SetupError(
            f"An actor could not start: {last}. samtok-data must be installed on every node of the cluster"
        )
    return SetupError(
        f"An actor died {MAX_RESTARTS + 1} times and Ray gave it up; too little memory is the usual cause (Ray's logs "
        "on its node tell). Finished shards are kept: mend the cause and run again to resume"
    )


class _RayNotices(io.TextIOBase):
    """Takes Ray's own notices, a paragraph each on the standard output, and logs the first sentence of each once."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def write(self, text: str) -> int:
        first = _COLOUR.sub("", text).strip().removeprefix("(raylet) ").partition(". ")[0]
        if first and first not in self._seen and "ray.kill" not in text:  # that one is run_jobs' own doing
            self._seen.add(first)
            logger.warning("Ray: %s", first[:200])
        return len(text)
