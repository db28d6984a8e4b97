"""``samtok-data tokenize``: from settings to complete shards, or to a clear error with what was finished kept."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Literal

from converters.dialogues.source import Unit
from pipelines.actors import Crews
from pipelines.budget import Budget
from pipelines.cluster import gpu_share, joins, plan_crews, ray_session, start_cluster
from pipelines.config import RunConfig
from pipelines.datasets import plan_work
from pipelines.encoders import TokenizerOrder
from pipelines.progress import Progress
from pipelines.work import Job, SplitRun, Work, software
from samtok_data.errors import SetupError
from samtok_data.outputs import HIDDEN, Totals, UnitEntry
from samtok_data.storage import TEMPORARY, Folder
from tokenizer_model import TokenizerIdentity
from tokenizer_model.addresses import located

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run came to.

    Attributes:
        dataset: name in the output.
        out: the dataset's output folder.
        tokenizer: name and sha256 of the weights.
        splits: totals of each split.
        counts: sentences by the dataset's tables against the files, in words.
        new_units: units that this run made; the others were there.
        seconds: of this run's tokenising: from the start of its actors, when Ray itself is up, to the last file.
        images_per_second: of this run.
        masks_per_second: of this run.
        encoders: of a run on GPUs, what each encoder did: calls, images, masks, and the seconds in which it computed
            (``busy_s``) and waited for its feeders (``idle_s``).
    """

    dataset: str
    out: str
    tokenizer: dict[str, str]
    splits: dict[str, Totals]
    counts: list[str]
    new_units: int
    seconds: float
    images_per_second: float
    masks_per_second: float
    encoders: list[dict[str, float]]

    @property
    def json(self) -> dict[str, Any]:
        """The same as JSON values."""
        return asdict(self)


def tokenize(config: RunConfig) -> Summary:
    """Builds every shard of a dataset's splits that is not there yet.

    Raises:
        SetupError: nothing can be made with these settings, the output cannot be written, an actor kept dying,
            or more records were rejected than ``max_reject_rate`` allows. Finished shards stay.
    """
    work = plan_work(config)
    with ray_session():
        identity, share = _opened(config, work)
        if identity.warning:
            logger.warning("%s", identity.warning)
        _say(work.counts)
        run = _Run(config, work, identity, share)
        progress = run.make_missing()
    return run.summarise(progress)


def _opened(config: RunConfig, work: Work) -> tuple[TokenizerIdentity, float]:
    """The tokenizer, and GPUs of each actor. Where an output is new, and so will need them, Ray's processes start
    meanwhile: both take some seconds. Not with ``--actors``: without a GPU they say how many CPUs Ray is to count, and
    whether there is one only torch tells."""
    is_joined = joins(config)
    if is_joined or _is_begun(config, work) or config.actors is not None:
        share = gpu_share(config, is_joined=is_joined)
        return _identified(config.tokenizer), share
    # What can be refused at once is.
    if config.num_gpus_per_actor is not None:
        gpu_share(config, is_joined=False)
    located(config.tokenizer)
    with ThreadPoolExecutor(1) as aside:
        identified = aside.submit(_identified, config.tokenizer)
        start_cluster(config)
        return identified.result(), gpu_share(config, is_joined=False)


def _identified(spec: str) -> TokenizerIdentity:
    from tokenizer_model import identify_tokenizer  # imports torch, which takes seconds

    return identify_tokenizer(spec)


def _is_begun(config: RunConfig, work: Work) -> bool:
    """Whether an earlier run may have left something that this one goes on with."""
    return not config.overwrite and (Folder(config.out) / work.name).exists(HIDDEN)


def _say(counts: Sequence[tuple[bool, str]]) -> None:
    for is_met, sentence in counts:
        logger.log(logging.INFO if is_met else logging.WARNING, "%s", sentence)


class _Run:
    """One run over all its splits. Whatever can be refused is refused before anything is written or deleted.

    Args:
        config: the settings.
        work: the dataset, planned.
        identity: of the tokenizer.
        share: GPUs of each actor.
    """

    def __init__(self, config: RunConfig, work: Work, identity: TokenizerIdentity, share: float) -> None:
        self.config, self.work, self.identity, self.share = config, work, identity, share
        self.device: Literal["cuda", "cpu"] = "cuda" if share else "cpu"
        self.splits = work.split_runs(identity, self.device)
        self.finished: dict[str, frozenset[int]] = {}
        self.encoders: list[dict[str, float]] = []

    @property
    def tokenizer(self) -> dict[str, str]:
        """Which tokenizer it is, for manifests and summary."""
        return {"name": self.identity.name, "sha256": self.identity.sha256}

    def make_missing(self) -> Progress:
        """Runs the units that are not finished."""
        budget = Budget(self.config.max_reject_rate, self._records())
        done = 0 if self.config.overwrite else self._resume(budget)
        missing = [(split, unit) for split in self.splits for unit in split.units if not self._has(split, unit)]
        planned = {(unit.split, unit.index): unit.records for _, unit in missing}
        if not missing:
            budget.close()  # an earlier run may have ended here
            return Progress(0, 0, done=done)
        start_cluster(self.config, self.share)
        layout = plan_crews(self.config, self.share, len(missing))
        progress = Progress(len(missing), sum(planned.values()), done=done)
        for split in self.splits:
            split.output.begin(split.fingerprint, overwrite=self.config.overwrite)
            self.work.begin(split)
        jobs = (Job(unit.split, unit.index, unit.records, self.work.payload(unit)) for _, unit in missing)
        settings = {split.output.split: self.work.units_of(split, self.identity) for split in self.splits}
        with progress, Crews(self._order(), settings, layout) as crews:
            for split_name, entry in crews.run(jobs):
                progress.add(entry, planned[split_name, entry.index])
                budget.add(entry)
            self.encoders = crews.usage()
        budget.close()
        return progress

    def _records(self) -> int | None:
        """Of the whole run; None where only the units themselves will say."""
        if not self.work.has_known_records:
            return None
        return sum(unit.records for split in self.splits for unit in split.units)

    def summarise(self, progress: Progress) -> Summary:
        """Writes the manifests over what lies in the output now, and the summary.

        Raises:
            SetupError: a unit that was made is not there, or the output cannot be written.
        """
        totals, counts = {}, [sentence for _, sentence in self.work.counts]
        for split in self.splits:
            entries = self._complete(split)
            totals[split.output.split] = split.output.finish(split.fingerprint, entries)
            found = self.work.finished(split, entries)
            _say(found)
            counts += [sentence for _, sentence in found]
        folder = Folder(self.config.out) / self.work.name
        summary = Summary(
            dataset=self.work.name,
            out=str(folder),
            tokenizer=self.tokenizer,
            splits=totals,
            counts=counts,
            new_units=progress.num_units,
            seconds=round(progress.seconds, 3) if progress.num_units else 0.0,
            images_per_second=round(progress.num_images / progress.seconds, 2),
            masks_per_second=round(progress.num_masks / progress.seconds, 2),
            encoders=self.encoders,
        )
        if progress.num_units or not folder.exists(f"{HIDDEN}/summary.json"):
            folder.write(f"{HIDDEN}/summary.json", json.dumps(summary.json, indent=1).encode() + b"\n")
            folder.remove(TEMPORARY)
        return summary

    def _resume(self, budget: Budget) -> int:
        """Finds and counts what earlier runs finished, except units whose files have changed since.

        Only the numbers of units are kept: meanwhile this process holds nothing else that grows with what is finished.
        """
        for split in self.splits:
            split.output.check(split.fingerprint)
        kept = {split.output.split: self._kept(split) for split in self.splits}
        budget.resume(entry for entries in kept.values() for entry in entries)
        self.finished = {name: frozenset(entry.index for entry in entries) for name, entries in kept.items()}
        return sum(len(entries) for entries in kept.values())

    def _kept(self, split: SplitRun) -> list[UnitEntry]:
        finished = split.output.finished(split.fingerprint).values()
        return [entry for entry in finished if not self.work.is_stale(split, entry)]

    def _has(self, split: SplitRun, unit: Unit) -> bool:
        return unit.index in self.finished.get(split.output.split, ())

    def _complete(self, split: SplitRun) -> list[UnitEntry]:
        """The entries of all units of a split, in order."""
        entries = split.output.finished(split.fingerprint)
        lost = [unit.index for unit in split.units if unit.index not in entries]
        if lost:
            raise SetupError(
                f"{split.output.folder}: {len(lost)} units were made and are not there (the first is {lost[0]}): --out "
                "must be one storage that the driver and every node reach"
            )
        return [entries[unit.index] for unit in split.units]

    def _order(self) -> TokenizerOrder:
        spec = self.config.tokenizer
        return TokenizerOrder(
            spec=os.path.abspath(spec) if os.path.exists(spec) else spec,  # actors may work in another folder
            sha256=self.identity.sha256,
            precision=self.config.precision_on(self.device),
            device=self.device,
            software=software(),
        )
