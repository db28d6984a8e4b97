"""``samtok-data tokenize``: from settings to complete shards, or to a clear error with what was finished kept."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from converters.source import Plan
from pipelines.actors import Job, TokenizerOrder, cluster, cluster_layout, run_jobs
from pipelines.config import RunConfig
from pipelines.prepare import SplitRun, converter_of, device_of, plan_of, split_runs
from pipelines.progress import Progress
from pipelines.units import UnitSettings
from samtok_data.errors import SetupError
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
    device = device_of(config)
    runs = split_runs(config, converter, plan, identity, device)
    for run in runs:
        run.output.begin(run.fingerprint, overwrite=config.overwrite)
    settings = {run.output.split: _settings(run, plan, config, identity) for run in runs}
    finished = {run.output.split: run.output.finished() for run in runs}
    order = TokenizerOrder(spec=config.tokenizer, sha256=identity.sha256, precision=config.precision, device=device)
    progress = _make_missing(config, plan, runs, finished, settings, order)
    totals = {}
    for run in runs:
        entries = finished[run.output.split]
        totals[run.output.split] = run.output.finish(run.fingerprint, [entries[unit.index] for unit in run.units])
    summary = Summary(
        dataset=converter.name,
        out=str(Folder(config.out) / converter.name),
        tokenizer={"name": identity.name, "sha256": identity.sha256},
        splits=totals,
        counts=[expectation.sentence for expectation in plan.expectations],
        new_units=progress.num_units,
        seconds=round(progress.seconds, 3) if progress.num_units else 0.0,
        images_per_second=round(progress.num_images / progress.seconds, 2),
        masks_per_second=round(progress.num_masks / progress.seconds, 2),
    )
    if progress.num_units:
        folder = Folder(config.out) / converter.name
        folder.write(f"{HIDDEN}/summary.json", json.dumps(summary.json, indent=1).encode() + b"\n")
        folder.remove(TEMPORARY)
    return summary


def _settings(run: SplitRun, plan: Plan, config: RunConfig, identity: TokenizerIdentity) -> UnitSettings:
    return UnitSettings(
        converter=converter_of(config),
        images_root=Folder(plan.images_root),
        output=run.output,
        images=config.images,
        measure_iou=config.measure_iou,
        tokenizer={"name": identity.name, "sha256": identity.sha256},
        run=run.fingerprint.digest,
    )


def _make_missing(
    config: RunConfig,
    plan: Plan,
    runs: Sequence[SplitRun],
    finished: dict[str, dict[int, UnitEntry]],
    settings: dict[str, UnitSettings],
    order: TokenizerOrder,
) -> Progress:
    """Runs the units that lack an entry and adds their entries to ``finished``."""
    missing = [unit for run in runs for unit in run.units if unit.index not in finished[run.output.split]]
    num_done = sum(len(entries) for entries in finished.values())
    budget = _Budget(config.max_reject_rate, sum(unit.records for run in runs for unit in run.units))
    for entries in finished.values():
        for entry in entries.values():
            budget.add(entry)
    progress = Progress(len(missing), sum(unit.records for unit in missing), done=num_done)
    if not missing:
        return progress
    jobs: Iterator[Job] = (Job(unit.split, unit.index, plan.payload(unit)) for unit in missing)
    with progress, cluster(config.address, config.actors):
        actors, num_gpus = cluster_layout(config.actors, config.num_gpus_per_actor)
        results = run_jobs(jobs, order, settings, actors=min(actors, len(missing)), num_gpus=num_gpus)
        with contextlib.closing(results):
            for split, entry in results:
                finished[split][entry.index] = entry
                progress.add(entry)
                budget.add(entry)
    return progress


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
                f"the {HIDDEN}/rejects folders of the output. Mend the source, or raise the rate and run again"
            )
