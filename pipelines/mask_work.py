"""A mask source, planned: which parts make a unit, and what of its files may be added later."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from converters.dialogues.source import Unit
from converters.masks.registry import MASK_SOURCE_INFOS, open_mask_source, options_of
from converters.masks.source import LISTING, PortableSource
from pipelines.config import USUAL_SPLIT, RunConfig, usual_of
from pipelines.mask_units import MaskUnits
from pipelines.mixes import index_folder
from pipelines.work import Preview, SplitRun, shared_fingerprint
from samtok_data.errors import IMAGE_REASONS, SetupError
from samtok_data.fingerprints import Fingerprint
from samtok_data.outputs import FORMAT_VERSION, SplitOutput, Totals, UnitEntry
from samtok_data.storage import Folder

if TYPE_CHECKING:
    from tokenizer_model import TokenizerIdentity

# Of a source that has no splits, or of which all are taken together.
WHOLE = "masks"
_EVERY = ("all",)
_ROUNDING = 0.01
_GONE = -1
_NOT_FOR_MASKS = ("partition", "images_root", "wording", "images", "crowd", "samples_per_shard")
# Of ``open_mask_source`` itself, with what gives them.
_NO_OPTIONS = {"kind": "--dataset", "root": "--root", "index": "--out"}


class MaskWork:
    """Work that makes tables of masks.

    Args:
        config: the settings.

    Raises:
        SetupError: the source's files cannot be found or indexed, or an option is wrong or is for dialogues.
    """

    has_known_records = False

    def __init__(self, config: RunConfig) -> None:
        _refuse_others(config)
        self._config = config
        self._sources: dict[str, PortableSource] = {}
        self._plans: dict[str, list[str]] = {}
        self._places: dict[str, list[int]] = {}  # by unit of a plan that grows: which unit of the source
        for split in _splits(config):
            self._sources[split or WHOLE] = _open(config, split)
        self.name = next(iter(self._sources.values())).name

    @property
    def counts(self) -> list[tuple[bool, str]]:
        """Images or videos against what is published, where a row of the source is one and nothing is left out."""
        info = MASK_SOURCE_INFOS.get(self._config.dataset)
        if info is None or info.images is None or not self._is_whole:
            return []
        kind = "videos" if info.is_video else "images"
        return [
            _compared(split, source.num_units, info.images, kind)
            for split, source in self._sources.items()
            if source.listing is None
        ]

    @property
    def _is_whole(self) -> bool:
        """Whether the run is what the published counts are of."""
        config = self._config
        return config.limit is None and not config.option and _splits(config) == [_usual_split(config.dataset)]

    def preview(self) -> Preview:
        """What a run would do."""
        splits = {}
        for split, source in self._sources.items():
            if source.listing is None:
                units = self._fixed_units(split, source)
                splits[split] = {"images or videos": sum(unit.images for unit in units), "units": len(units)}
            else:
                splits[split] = {"files": source.num_units, "units": source.num_units}
        return Preview(self.name, self._config.root, splits, [sentence for _, sentence in self.counts])

    def payload(self, unit: Unit) -> Any:
        """What the parts of a unit are read from."""
        source, planned = self._sources[unit.split], self._plans.get(unit.split)
        if planned is not None:  # not source.listing, which is made anew for every unit that asks
            place = self._places[unit.split][unit.index]
            return {"records": source.records(range(place, place + 1)), "origin": planned[unit.index]}
        first = unit.index * self._config.images_per_file
        return {"records": source.records(range(first, first + unit.images)), "origin": None}

    def split_runs(self, tokenizer: TokenizerIdentity, device: str) -> list[SplitRun]:
        """A split for each source."""
        return [self._split_run(split, source, tokenizer, device) for split, source in self._sources.items()]

    def units_of(self, split: SplitRun, tokenizer: TokenizerIdentity) -> MaskUnits:
        """How the units of a split are run."""
        source = self._sources[split.output.split]
        return MaskUnits(
            source=source,
            output=split.output,
            limit=self._config.limit if source.listing is not None else None,
            measure_iou=self._config.measure_iou,
            tokenizer={"name": tokenizer.name, "sha256": tokenizer.sha256},
            run=split.fingerprint.digest,
        )

    def is_stale(self, split: SplitRun, entry: UnitEntry) -> bool:
        """Whether the unit's file is another by now, or images are to be tried again."""
        planned = self._plans.get(split.output.split)
        if planned is not None and self._places[split.output.split][entry.index : entry.index + 1] == [_GONE]:
            return False
        if self._config.retry_images and entry.rejects.keys() & IMAGE_REASONS:
            return True
        return planned is not None and planned[entry.index : entry.index + 1] != [entry.origin]

    def begin(self, split: SplitRun) -> None:
        """Keeps which file each unit is read from."""
        planned = self._plans.get(split.output.split)
        if planned is not None and planned != split.output.planned():
            split.output.write_plan(planned)

    def finished(self, split: SplitRun, entries: Sequence[UnitEntry]) -> list[tuple[bool, str]]:
        """Masks against what the published tokenizer was trained on; and a limit that one tar could not fill."""
        info, limit = MASK_SOURCE_INFOS.get(self._config.dataset), self._config.limit
        planned, images = self._plans.get(split.output.split, ()), Totals.of(entries).images
        if limit is not None and len(planned) > 1 and images < limit:
            first = _file(planned[0])
            return [(False, f"{split.output.split}: --limit {limit} reads {first} alone, which gave {images:,} images")]
        if info is None or info.masks is None or not self._is_whole:
            return []
        return [_compared(split.output.split, Totals.of(entries).masks, info.masks, "masks")]

    def _split_run(self, split: str, source: PortableSource, tokenizer: TokenizerIdentity, device: str) -> SplitRun:
        output = SplitOutput(Folder(self._config.out), self.name, split, "table")
        settings = {key: value for key, value in source.settings.items() if key != LISTING}
        fingerprint = Fingerprint({
            "format": FORMAT_VERSION,
            "dataset": self.name,
            "split": split,
            "source": settings,
            "images_per_file": None if source.listing is not None else self._config.images_per_file,
            **shared_fingerprint(self._config, tokenizer, device),
            "pyarrow": version("pyarrow"),
        })
        if source.listing is None:
            return SplitRun(output, fingerprint, self._fixed_units(split, source))
        planned: list[str] = []
        if not self._config.overwrite:
            output.check(fingerprint)  # another run's files may well be gone
            planned = output.planned()
        self._plans[split], self._places[split] = _grown(planned, source.listing)
        self._require(output, fingerprint, self._plans[split], self._places[split])
        number = len(self._plans[split]) if self._config.limit is None else 1
        return SplitRun(
            output,
            fingerprint,
            [Unit(split=split, index=index, images=1, records=1, masks=0) for index in range(number)],
        )

    def _require(self, output: SplitOutput, fingerprint: Fingerprint, planned: list[str], places: list[int]) -> None:
        """A file may go when its unit is finished: few disks hold all of SA-1B at once."""
        missing = [index for index, place in enumerate(places) if place == _GONE]
        finished = output.finished(fingerprint) if missing else {}
        lost = [_file(planned[index]) for index in missing if index not in finished]
        if lost:
            raise SetupError(
                f"{self._config.root}: {len(lost)} files that the run was begun with are gone before their units were "
                f"finished, the first is {lost[0]}; put them back, or begin anew with --overwrite"
            )

    def _fixed_units(self, split: str, source: PortableSource) -> list[Unit]:
        size, total = self._config.images_per_file, source.num_units
        if self._config.limit is not None:
            total = min(total, self._config.limit)
        starts = range(0, total, size)
        return [
            Unit(split=split, index=index, images=number, records=number, masks=0)
            for index, start in enumerate(starts)
            for number in (min(size, total - start),)
        ]


def _refuse_others(config: RunConfig) -> None:
    for name in _NOT_FOR_MASKS:
        if getattr(config, name) != usual_of(name):
            raise SetupError(
                f"--{name.replace('_', '-')} is for dialogues; {config.dataset} is a source of masks: its own options "
                "are given with --option NAME=VALUE"
            )


def _splits(config: RunConfig) -> list[str | None]:
    """The splits to open; None: the source as it opens without one."""
    usual = _usual_split(config.dataset)
    if config.split is None or (usual is None and config.split == _EVERY):
        return [usual]
    if "split" not in options_of(config.dataset):
        if config.split != (USUAL_SPLIT,):  # what these sources publish is for training
            raise SetupError(f"--split {' '.join(config.split)}: {config.dataset} has no splits; leave it away")
        return [None]
    if config.split == _EVERY:
        raise SetupError(f"--split all: name the splits of {config.dataset} one by one, e.g. --split train --split val")
    return list(dict.fromkeys(config.split))


def _usual_split(dataset: str) -> str | None:
    """What is opened where no split is asked for; None: the source as a whole."""
    option = options_of(dataset).get("split")
    return option and option.default


def _open(config: RunConfig, split: str | None) -> PortableSource:
    options = dict(config.option)
    for name, given_by in _NO_OPTIONS.items():
        if name in options:
            raise SetupError(f"--option {name}=...: {config.dataset} has no such option; {given_by} says it")
    if split is not None:
        if "split" in options:
            raise SetupError("--option split=...: give splits with --split")
        options["split"] = split
    if "seed" in options_of(config.dataset):
        options.setdefault("seed", config.seed)
    return open_mask_source(config.dataset, root=config.root, index=index_folder(Folder(config.out)), **options)


def _grown(planned: Sequence[str], listing: Sequence[str]) -> tuple[list[str], list[int]]:
    """The units of a plan with what was added, and where each lies in today's listing, or ``_GONE``.

    A file keeps its unit, so that units keep their bytes whatever is added; new files follow in the listing's order.
    """
    places = {_file(entry): place for place, entry in enumerate(listing)}
    known = {_file(entry) for entry in planned}
    added = [entry for entry in listing if _file(entry) not in known]
    order = [places.get(_file(entry), _GONE) for entry in (*planned, *added)]
    today = [
        entry if place == _GONE else listing[place] for entry, place in zip((*planned, *added), order, strict=True)
    ]
    return today, order


def _file(entry: str) -> str:
    return entry.rpartition(" ")[0]


def _compared(split: str, found: int, published: int, kind: str) -> tuple[bool, str]:
    """The published numbers are rounded, those of masks to thousands and more."""
    if abs(found - published) <= _ROUNDING * published:
        return True, f"{split}: {found:,} {kind}, as published ({published:,})"
    return False, f"{split}: {found:,} {kind}, published are {published:,}"
