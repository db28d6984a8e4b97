"""A dataset of dialogues, planned: converter, units, fingerprint of each split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from converters.dialogues.registry import open_converter
from converters.dialogues.source import Converter, Plan, Unit
from pipelines.config import USUAL_SPLIT, RunConfig, usual_of
from pipelines.dialogue_units import DialogueUnits, mended
from pipelines.work import Preview, SplitRun, shared_fingerprint
from samtok_data.errors import IMAGE_REASONS, SetupError
from samtok_data.fingerprints import Fingerprint
from samtok_data.outputs import FORMAT_VERSION, SplitOutput, UnitEntry
from samtok_data.storage import Folder

if TYPE_CHECKING:
    from tokenizer_model import TokenizerIdentity


def converter_of(config: RunConfig) -> Converter:
    """The converter that the settings ask for.

    Raises:
        SetupError: an unknown dataset, partition or wording.
    """
    return open_converter(
        config.dataset,
        root=config.root,
        images_root=config.images_root,
        partition=config.partition,
        crowd=config.crowd,
        seed=config.seed,
        wording=config.wording,
    )


def plan_of(config: RunConfig, converter: Converter) -> Plan:
    """The dataset cut into units.

    Raises:
        SetupError: see ``Converter.plan``.
    """
    return converter.plan(splits=config.split or (USUAL_SPLIT,), unit_size=config.samples_per_shard, limit=config.limit)


class DialogueWork:
    """Work that makes shards of dialogues.

    Args:
        config: the settings.

    Raises:
        SetupError: the annotation files, the image folder or the wording cannot be used, or an option is for masks.
    """

    has_known_records = True

    def __init__(self, config: RunConfig) -> None:
        if config.option or config.retry_images:
            raise SetupError(f"--option and --retry-images are for sources of masks; {config.dataset} gives dialogues")
        if config.images_per_file != usual_of("images_per_file"):
            raise SetupError(f"--images-per-file is for sources of masks; {config.dataset} has --samples-per-shard")
        self._config = config
        self._converter = converter_of(config)
        self._plan = plan_of(config, self._converter)
        self._images_root = Folder(self._plan.images_root)
        self.name = self._converter.name

    def preview(self) -> Preview:
        """What a run would do."""
        splits: dict[str, dict[str, int]] = {}
        for unit in self._plan.units:
            numbers = splits.setdefault(unit.split, {"images": 0, "dialogues": 0, "masks": 0, "units": 0})
            numbers["images"] += unit.images
            numbers["dialogues"] += unit.records
            numbers["masks"] += unit.masks
            numbers["units"] += 1
        counts = [sentence for _, sentence in self.counts]
        return Preview(self.name, self._plan.images_root, splits, counts)

    @property
    def counts(self) -> list[tuple[bool, str]]:
        """Sentences by the dataset's tables against the files."""
        return [(expectation.met, expectation.sentence) for expectation in self._plan.expectations]

    def payload(self, unit: Unit) -> Any:
        """The unit's records."""
        return self._plan.payload(unit)

    def units_of(self, split: SplitRun, tokenizer: TokenizerIdentity) -> DialogueUnits:
        """How the units of a split are run."""
        return DialogueUnits(
            converter=self._converter,
            images_root=self._images_root,
            output=split.output,
            images=self._config.images,
            measure_iou=self._config.measure_iou,
            tokenizer={"name": tokenizer.name, "sha256": tokenizer.sha256},
            run=split.fingerprint.digest,
        )

    def is_stale(self, split: SplitRun, entry: UnitEntry) -> bool:
        """Whether images of the unit that could not be used have changed since."""
        if not entry.rejects.keys() & IMAGE_REASONS:
            return False
        try:
            return mended(split.output.rejects_of(entry.index), self._images_root)
        except (ValueError, KeyError):  # a damaged list is written again with its unit
            return True

    def begin(self, split: SplitRun) -> None:
        """Nothing: the annotation files are the plan."""

    def finished(self, split: SplitRun, entries: Sequence[UnitEntry]) -> list[tuple[bool, str]]:
        """Nothing: the annotation files said it before."""
        return []

    def split_runs(self, tokenizer: TokenizerIdentity, device: str) -> list[SplitRun]:
        """The plan's splits with their output folders, in the plan's order."""
        config, out = self._config, Folder(self._config.out)
        by_split: dict[str, list[Unit]] = {}
        for unit in self._plan.units:
            by_split.setdefault(unit.split, []).append(unit)
        shared: dict[str, Any] = {
            "format": FORMAT_VERSION,
            "dataset": self.name,
            "files": dict(self._plan.files),
            "converter": dict(self._converter.settings),
            "images": config.images,
            "samples_per_shard": config.samples_per_shard,
            **shared_fingerprint(config, tokenizer, device),
        }
        return [
            SplitRun(SplitOutput(out, self.name, split), Fingerprint({**shared, "split": split}), units)
            for split, units in by_split.items()
        ]
