"""``samtok-data tokenize``: from settings to complete shards, or to a clear error with what was finished kept."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from dataclasses import asdict, dataclass
from typing import Any, Literal

from converters.source import Converter, Plan, Unit
from pipelines.actors import Job, TokenizerOrder, run_jobs
from pipelines.cluster import gpu_share, num_actors, ray_session, start_cluster
from pipelines.config import RunConfig
from pipelines.prepare import SplitRun, converter_of, plan_of, software, split_runs
from pipelines.progress import Progress
from pipelines.units import UnitSettings, mended
from samtok_data.errors import IMAGE_REASONS, SetupError
from samtok_data.outputs import HIDDEN, Totals, UnitEntry
from samtok_data.storage import TEMPORARY, Folder
from tokenizer_model import TokenizerIdentity, identify_tokenizer

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
        seconds: of this run's tokenising.
        images_per_second: of this run.
        masks_per_second: of this run.
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
    converter = converter_of(config)
    plan = plan_of(config, converter)
    identity = identify_tokenizer(config.tokenizer)
    if identity.warning:
        logger.warning("%s", identity.warning)
    for expectation in plan.expectations:
        logger.log(logging.INFO if expectation.met else logging.WARNING, "%s", expectation.sentence)
    with ray_session():
        run = _Run(config, converter, plan, identity, gpu_share(config))
        progress = run.make_missing()
    return run.summarise(progress)


class _Run:
    """One run over all its splits. Whatever can be refused is refused before anything is written or deleted.

    Args:
        config: the settings.
        converter: of the dataset.
        plan: its units.
        identity: of the tokenizer.
        share: GPUs of each actor.
    """

    def __init__(
        self, config: RunConfig, converter: Converter, plan: Plan, identity: TokenizerIdentity, share: float
    ) -> None:
        self.config, self.converter, self.plan, self.identity, self.share = config, converter, plan, identity, share
        self.device: Literal["cuda", "cpu"] = "cuda" if share else "cpu"
        self.images_root = Folder(plan.images_root)
        self.splits = split_runs(config, converter, plan, identity, self.device)
        self.finished: dict[str, dict[int, UnitEntry]] = {}

    @property
    def tokenizer(self) -> dict[str, str]:
        """Which tokenizer it is, for manifests and summary."""
        return {"name": self.identity.name, "sha256": self.identity.sha256}

    def make_missing(self) -> Progress:
        """Runs the units that are not finished."""
        if not self.config.overwrite:
            for split in self.splits:
                split.output.check(split.fingerprint)
            self.finished = {split.output.split: self._kept(split) for split in self.splits}
        missing = [(split, unit) for split in self.splits for unit in split.units if not self._has(split, unit)]
        records = sum(unit.records for _, unit in missing)
        progress = Progress(len(missing), records, done=sum(len(entries) for entries in self.finished.values()))
        budget = _Budget(
            self.config.max_reject_rate, sum(unit.records for split in self.splits for unit in split.units)
        )
        for entries in self.finished.values():
            for entry in entries.values():
                budget.add(entry)
        if not missing:
            return progress
        start_cluster(self.config)
        actors = num_actors(self.config, self.share, len(missing))
        for split in self.splits:
            split.output.begin(split.fingerprint, overwrite=self.config.overwrite)
        jobs = (Job(unit.split, unit.index, unit.records, self.plan.payload(unit)) for _, unit in missing)
        settings = {split.output.split: self._settings(split) for split in self.splits}
        results = run_jobs(jobs, self._order(), settings, actors=actors, num_gpus=self.share)
        with progress, contextlib.closing(results):
            for _, entry in results:
                progress.add(entry)
                budget.add(entry)
        return progress

    def summarise(self, progress: Progress) -> Summary:
        """Writes the manifests over what lies in the output now, and the summary.

        Raises:
            SetupError: a unit that was made is not there, or the output cannot be written.
        """
        totals = {split.output.split: self._finish(split) for split in self.splits}
        summary = Summary(
            dataset=self.converter.name,
            out=str(Folder(self.config.out) / self.converter.name),
            tokenizer=self.tokenizer,
            splits=totals,
            counts=[expectation.sentence for expectation in self.plan.expectations],
            new_units=progress.num_units,
            seconds=round(progress.seconds, 3) if progress.num_units else 0.0,
            images_per_second=round(progress.num_images / progress.seconds, 2),
            masks_per_second=round(progress.num_masks / progress.seconds, 2),
        )
        folder = Folder(self.config.out) / self.converter.name
        if progress.num_units or not folder.exists(f"{HIDDEN}/summary.json"):
            folder.write(f"{HIDDEN}/summary.json", json.dumps(summary.json, indent=1).encode() + b"\n")
            folder.remove(TEMPORARY)
        return summary

    def _kept(self, split: SplitRun) -> dict[int, UnitEntry]:
        """Finished units, except those with images that could not be used and have changed since."""
        kept = split.output.finished(split.fingerprint)
        for index, entry in list(kept.items()):
            if not entry.rejects.keys() & IMAGE_REASONS:
                continue
            try:
                is_stale = mended(split.output.rejects_of(index), self.images_root)
            except (ValueError, KeyError):  # a damaged list is written again with its unit
                is_stale = True
            if is_stale:
                del kept[index]
        return kept

    def _has(self, split: SplitRun, unit: Unit) -> bool:
        return unit.index in self.finished.get(split.output.split, {})

    def _finish(self, split: SplitRun) -> Totals:
        entries = split.output.finished(split.fingerprint)
        lost = [unit.index for unit in split.units if unit.index not in entries]
        if lost:
            raise SetupError(
                f"{split.output.folder}: {len(lost)} units were made and are not there (the first is {lost[0]}): --out "
                "must be one storage that the driver and every node reach"
            )
        return split.output.finish(split.fingerprint, [entries[unit.index] for unit in split.units])

    def _settings(self, split: SplitRun) -> UnitSettings:
        return UnitSettings(
            converter=self.converter,
            images_root=self.images_root,
            output=split.output,
            images=self.config.images,
            measure_iou=self.config.measure_iou,
            tokenizer=self.tokenizer,
            run=split.fingerprint.digest,
        )

    def _order(self) -> TokenizerOrder:
        spec = self.config.tokenizer
        return TokenizerOrder(
            spec=os.path.abspath(spec) if os.path.exists(spec) else spec,  # actors may work in another folder
            sha256=self.identity.sha256,
            precision=self.config.precision,
            device=self.device,
            software=software(),
        )


class _Budget:
    """Stops a run as soon as its rejects can no longer stay within the allowed rate.

    Args:
        rate: allowed fraction of all records.
        records: of the whole run; the verdict does not depend on the order in which units finish.
    """

    def __init__(self, rate: float, records: int) -> None:
        self._rate, self._records, self._rejects = rate, records, 0
        self._reasons: dict[str, int] = {}

    def add(self, entry: UnitEntry) -> None:
        for reason, number in entry.rejects.items():
            self._reasons[reason] = self._reasons.get(reason, 0) + number
        self._rejects = sum(self._reasons.values())
        if self._rejects > self._rate * self._records:
            reasons = ", ".join(f"{number:,} {reason}" for reason, number in sorted(self._reasons.items()))
            raise SetupError(
                f"{self._rejects:,} of {self._records:,} records were rejected ({reasons}), more than "
                f"--max-reject-rate {self._rate:g} allows. Finished shards are kept; the rejects are listed in "
                f"the {HIDDEN}/rejects folders of the output. Mend the images or raise the rate and run again to "
                "resume; after a change of the annotation files, begin anew with --overwrite"
            )
