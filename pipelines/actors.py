"""The Ray actors that own units, and the loop that hands units out.

Ray does the scheduling: it restarts an actor that died and runs its unit again, and asks an autoscaler for nodes
where actors do not fit. Tried against Ray Data over units; docs/design.md has the figures.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self

import ray
from ray.exceptions import ActorUnavailableError, RayActorError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from pipelines.cluster import Layout
from pipelines.encoders import CALLS_AT_ONCE, MAX_RETRIES, EncoderActor, RemoteTokenizer, TokenizerOrder, setup_errors
from pipelines.work import Job, Tokenizer, UnitWork
from samtok_data.outputs import UnitEntry

logger = logging.getLogger(__name__)

# Seconds without any actor after which the run says what it waits for: Ray itself says nothing of groups.
PATIENCE = 60
# Seconds that encoders are given to say what they did, when all is done.
_LAST_WORDS = 10
_OPTIONS: dict[str, Any] = {"max_restarts": -1, "max_task_retries": MAX_RETRIES}


class UnitActor:
    """Runs units, one after the other.

    Args:
        order: of the tokenizer.
        settings: of the units, by split.
        encoder: name of the actor that computes for this one; None: this one holds the tokenizer itself. No handle:
            Ray counts a handle as an object that may be lost, and cannot promise to restart who was made with it.
    """

    def __init__(self, order: TokenizerOrder, settings: Mapping[str, UnitWork], encoder: str | None = None) -> None:
        self.order, self.settings, self.encoder = order, settings, encoder
        self._tokenizer: Tokenizer | None = None

    def ready(self) -> None:
        """Opens the tokenizer, or waits until the encoder has.

        Not done by the constructor: Ray hands an error of a method to the driver whole, one of a constructor as text.
        """
        self._tokenizer = self._open()

    def run(self, job: Job) -> tuple[str, UnitEntry]:
        """Runs one unit; the result is its split and its manifest entry."""
        if self._tokenizer is None:  # this process replaces one that died
            self._tokenizer = self._open()
        return job.split, self.settings[job.split].run_job(job, self._tokenizer)

    def _open(self) -> Tokenizer:
        if self.encoder is None:
            return self.order.open()
        self.order.check_software()
        return RemoteTokenizer(ray.get_actor(self.encoder))


class Crews:
    """The actors of a run: made when a ``with`` block begins, gone when it ends.

    An encoder and its feeders are one crew and lie on one node: their placement group is one bundle. Ray makes groups
    when there is room for them, and asks an autoscaler for it; nothing here waits for a group.

    Args:
        order: of the tokenizer.
        settings: of the units, by split.
        layout: how many actors, and what each holds.
    """

    def __init__(self, order: TokenizerOrder, settings: Mapping[str, UnitWork], layout: Layout) -> None:
        self.order, self.settings, self.layout = order, settings, layout
        self._groups: list[PlacementGroup] = []
        self._encoders: list[Any] = []
        self._encoder_of: dict[Any, Any] = {}  # by the handles of those who run units
        self._started: set[Any] = set()

    def __enter__(self) -> Self:
        for feeders in self.layout.crews:
            if feeders:
                self._add_crew(feeders)
            else:
                options = {"num_cpus": self.layout.cpus, "num_gpus": self.layout.share, **_OPTIONS}
                actor: Any = ray.remote(**options)(UnitActor)
                self._encoder_of[actor.remote(self.order, self.settings)] = None
        return self

    def _add_crew(self, feeders: int) -> None:
        layout = self.layout
        bundle = {"CPU": round(layout.cpus * (1 + feeders), 4), **({"GPU": layout.share} if layout.share else {})}
        group = placement_group([bundle], strategy="STRICT_PACK")
        self._groups.append(group)
        options = {
            "num_cpus": layout.cpus,
            "scheduling_strategy": PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0),
            **_OPTIONS,
        }
        name = f"encoder-{uuid.uuid4().hex}"
        own = {"num_gpus": layout.share, "max_concurrency": CALLS_AT_ONCE, "name": name}
        holder: Any = ray.remote(**options, **own)(EncoderActor)
        encoder = holder.remote(self.order)
        self._encoders.append(encoder)
        feeder: Any = ray.remote(**options)(UnitActor)
        for _ in range(feeders):
            self._encoder_of[feeder.remote(self.order, self.settings, name)] = encoder

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in [*self._encoder_of, *self._encoders]:
            ray.kill(handle)
        for group in self._groups:
            remove_placement_group(group)

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[str, UnitEntry]]:
        """Runs units; yields (split, manifest entry) in the order in which they are finished.

        An actor gets its first unit when it is ready, so actors that the cluster has no room for yet hold up nothing.
        One unit is in flight for each actor, and jobs are drawn only when one is free: the driver's memory does not
        grow with their number. An actor whose node is lost gives its unit back: Ray's own retries are over before Ray
        has noticed, and the actor may have to wait for another node.

        Raises:
            SetupError: the output cannot be written, the tokenizer cannot be opened, or an actor died more often than
                its unit, or its call, is tried.
        """
        calls: dict[Any, tuple[Any, Job | None]] = {
            handle.ready.remote(): (handle, None) for handle in self._encoder_of
        }
        queue = _Queue(jobs)
        patience: float | None = PATIENCE
        with setup_errors():
            while queue.next is not None or any(job is not None for _, job in calls.values()):
                done, _ = ray.wait([*calls], num_returns=1, timeout=patience)
                patience = None
                if not done:
                    self._say_what_is_wanted()
                    continue
                handle, job = calls.pop(done[0])
                try:
                    finished = ray.get(done[0])
                except ActorUnavailableError:
                    if job is not None and not queue.takes_back(job):
                        raise
                    calls[handle.ready.remote()] = handle, None
                    continue
                self._started.add(self._encoder_of[handle])
                if queue.next is not None:
                    job = queue.draw()
                    calls[handle.run.remote(job)] = handle, job
                if finished is not None:
                    yield finished

    def usage(self) -> list[dict[str, float]]:
        """What each encoder did since it was started, as ``EncoderActor.usage``; of those that can be asked."""
        calls = [encoder.usage.remote() for encoder in self._encoders if encoder in self._started]
        done, _ = ray.wait(calls, num_returns=len(calls), timeout=_LAST_WORDS) if calls else ([], [])
        found = []
        for call in done:
            with contextlib.suppress(RayActorError):  # it died after its last call
                found.append(ray.get(call))
        return found

    def _say_what_is_wanted(self) -> None:
        layout = self.layout
        gpus = f" and {layout.share:g} GPU" if layout.share else ""
        cpus = layout.cpus * (1 + layout.crews[0])
        logger.warning(
            "No actor has started after %d s: each needs a node with %g CPUs%s free%s.",
            PATIENCE,
            cpus,
            gpus,
            ", fewer with a smaller --feeders" if layout.crews[0] else "",
        )


class _Queue:
    """Jobs that wait, drawn when they are needed; those that came back are the next.

    Attributes:
        next: the job that ``draw`` gives; None: there is none.
    """

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._jobs = iter(jobs)
        self._times_back: Counter[tuple[str, int]] = Counter()
        self.next = next(self._jobs, None)

    def draw(self) -> Job | None:
        job, self.next = self.next, next(self._jobs, None)
        return job

    def takes_back(self, job: Job) -> bool:
        """Whether a job that an actor could not end shall be drawn again: not if it came back too often."""
        self._times_back[job.split, job.index] += 1
        if self._times_back[job.split, job.index] > MAX_RETRIES:
            return False
        if self.next is not None:
            self._jobs = itertools.chain([self.next], self._jobs)
        self.next = job
        return True
