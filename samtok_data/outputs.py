"""The output folder of one split: its files in the open, all bookkeeping in a dot folder.

    OUT/gres/train/gres-train-000017.tar
    OUT/gres/train/.samtok/run.json                fingerprint of the run, written first
    OUT/gres/train/.samtok/units/000017.json       manifest entry of one unit, written last: it commits the unit
    OUT/gres/train/.samtok/rejects/000017.jsonl    rejects of that unit; absent where there are none
    OUT/gres/train/.samtok/manifest.json           all entries and totals, written when every unit is there
    OUT/sa1b/masks/sa1b-masks-000017.parquet       a mask source gives tables in place of shards; the rest is the same
    OUT/sa1b/masks/.samtok/plan.json               which file each unit is read from, where files may be added later

Readers that take every tar of a folder never meet the bookkeeping (HF datasets and webdataset skip dot folders).
A unit whose every record was rejected has an entry but no file.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from samtok_data.errors import SetupError
from samtok_data.fingerprints import Fingerprint
from samtok_data.manifests import json_bytes, manifest_bytes
from samtok_data.rejects import Reject, count, from_lines, to_lines
from samtok_data.shards import ShardFile, unit_name
from samtok_data.storage import TEMPORARY, Folder

FORMAT_VERSION = 1
HIDDEN = ".samtok"
Form = Literal["shards", "table"]
ENDINGS: dict[Form, str] = {"shards": ".tar", "table": ".parquet"}
_PLAN = f"{HIDDEN}/plan.json"
_RUN = f"{HIDDEN}/run.json"
_MANIFEST = f"{HIDDEN}/manifest.json"
_UNITS = f"{HIDDEN}/units"
_REJECTS = f"{HIDDEN}/rejects"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitEntry:
    """What became of one unit.

    Attributes:
        index: of the unit in its split.
        shard: the written file, a shard or a table; None where every record was rejected.
        images: source images that gave at least one sample.
        samples: dialogues in the shard, rows of the table.
        masks: (view, region) pairs that were tokenised.
        records: source records of the unit; ``samples`` plus all ``rejects``.
        rejects: records that could not become samples, by reason.
        tokenizer: name and weights of the tokenizer that made the words.
        run: digest of the run's fingerprint.
        origin: the file that the unit was read from, with its size, where files may be added later; else None.
    """

    index: int
    shard: ShardFile | None
    images: int
    samples: int
    masks: int
    records: int
    rejects: Mapping[str, int]
    tokenizer: Mapping[str, str]
    run: str
    origin: str | None = None

    @classmethod
    def of_json(cls, fields: dict[str, Any]) -> UnitEntry:
        """Reads what ``asdict`` gave to JSON.

        Raises:
            KeyError, TypeError: a field is missing or unknown.
        """
        shard = fields["shard"]
        return cls(**{**fields, "shard": None if shard is None else ShardFile(**shard)})


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over units, in the same terms as ``UnitEntry``."""

    units: int = 0
    shards: int = 0
    bytes: int = 0
    images: int = 0
    samples: int = 0
    masks: int = 0
    records: int = 0
    rejects: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, entries: Iterable[UnitEntry]) -> Totals:
        """The sums of some units."""
        known = list(entries)
        shards = [entry.shard for entry in known if entry.shard is not None]
        rejects: Counter[str] = Counter()
        for entry in known:
            rejects.update(entry.rejects)
        return cls(
            units=len(known),
            shards=len(shards),
            bytes=sum(shard.bytes for shard in shards),
            images=sum(entry.images for entry in known),
            samples=sum(entry.samples for entry in known),
            masks=sum(entry.masks for entry in known),
            records=sum(entry.records for entry in known),
            rejects=dict(sorted(rejects.items(), key=lambda item: (-item[1], item[0]))),
        )

    @property
    def num_rejects(self) -> int:
        """Rejected records, all reasons."""
        return sum(self.rejects.values())


class SplitOutput:
    """The output folder of one split of one dataset. It can be pickled.

    Args:
        out: the folder that the user gave.
        dataset: the dataset's name in the output.
        split: as the source spells it.
        form: what a unit becomes.
    """

    def __init__(self, out: Folder, dataset: str, split: str, form: Form = "shards") -> None:
        self.dataset, self.split = dataset, split
        self.form: Form = form
        self.folder = out / dataset / split

    def shard_of(self, index: int) -> str:
        """Name of a unit's file in the split's folder."""
        return unit_name(self.dataset, self.split, index, ENDINGS[self.form])

    @classmethod
    def at(cls, folder: Folder) -> SplitOutput:
        """The output that lies in a folder; its run file says which dataset and split it is.

        Raises:
            SetupError: no run lies there, or its file is damaged.
        """
        run = cls._read_run(folder)
        if run is None:
            raise SetupError(f"{folder}: no run of samtok-data lies here (no {_RUN})")
        output = cls.__new__(cls)
        output.folder, output.dataset, output.split = folder, str(run["dataset"]), str(run["split"])
        output.form = run.get("form", "shards")
        return output

    def check(self, fingerprint: Fingerprint) -> None:
        """Whether this run may use the folder: empty, or begun earlier under the same fingerprint. Writes nothing.

        A run that was begun and made nothing binds nobody.

        Raises:
            SetupError: the folder holds another run or files of unknown origin, or cannot be read.
        """
        try:
            earlier = self.fingerprint()
            files = self.folder.names(ENDINGS[self.form])
            is_empty = not files and not (self.folder / _UNITS).names()
        except OSError as error:
            raise self._unusable(error) from error
        if earlier is not None and not is_empty:
            fingerprint.require_same(earlier, str(self.folder))
        if earlier is None and files:
            raise SetupError(
                f"{self.folder} holds {files[0]} without the run that made it: "
                f"choose another --out, or --overwrite to delete every {ENDINGS[self.form]} there"
            )

    def begin(self, fingerprint: Fingerprint, *, overwrite: bool) -> None:
        """Makes the folder this run's own. One driver at a time may write to a split.

        Args:
            fingerprint: of the run.
            overwrite: delete an earlier run first, whatever it was.

        Raises:
            SetupError: see ``check``; or the folder cannot be written.
        """
        if overwrite:
            try:
                self.clear()
            except OSError as error:
                raise self._unusable(error) from error
        self.check(fingerprint)
        self._remove(TEMPORARY)  # what a killed run left half written
        if self.fingerprint() == fingerprint:
            return
        self._remove(HIDDEN)  # of a run that made nothing, or of a killed --overwrite: entries without their run
        run = {
            "format": FORMAT_VERSION,
            "dataset": self.dataset,
            "split": self.split,
            "form": self.form,
            "digest": fingerprint.digest,
            "fingerprint": fingerprint.parts,
        }
        self._write(_RUN, json_bytes(run))

    def clear(self) -> None:
        """Deletes the split's files and bookkeeping; other files stay."""
        for name in self.folder.names(ENDINGS[self.form]):
            self.folder.remove(name)
        self.folder.remove(HIDDEN)
        self.folder.remove(TEMPORARY)

    def fingerprint(self) -> Fingerprint | None:
        """The fingerprint that the folder's run was begun with; None where there is none.

        Raises:
            SetupError: it cannot be read.
        """
        run = self._read_run(self.folder)
        return None if run is None else Fingerprint(run["fingerprint"])

    @staticmethod
    def _read_run(folder: Folder) -> dict[str, Any] | None:
        if not folder.exists(_RUN):
            return None
        try:
            run = json.loads(folder.read(_RUN))
            if not {"dataset", "split", "fingerprint"} <= set(run) or run.get("form", "shards") not in ENDINGS:
                raise KeyError("a field is missing")
        except (ValueError, KeyError, TypeError) as error:
            raise SetupError(f"{folder}/{_RUN} is damaged: --overwrite deletes the run") from error
        return run

    def finished(self, fingerprint: Fingerprint) -> dict[int, UnitEntry]:
        """Entries of the run's units that are complete, by index and in order.

        Complete: the entry can be read and is of this run, its shard is there with the entry's size, and so is its
        list of rejects.
        """
        sizes = self.folder.sizes()
        lists = set((self.folder / _REJECTS).names())
        entries = _entries((self.folder / _UNITS).read_each(".json"))
        return {
            entry.index: entry
            for entry in sorted(entries, key=lambda entry: entry.index)
            if entry.run == fingerprint.digest
            and (entry.shard is None or sizes.get(entry.shard.name) == entry.shard.bytes)
            and (not entry.rejects or f"{entry.index:06d}.jsonl" in lists)
        }

    def commit(
        self,
        index: int,
        *,
        content: bytes | None,
        samples: int,
        rejects: Sequence[Reject],
        images: int,
        masks: int,
        tokenizer: Mapping[str, str],
        run: str,
        origin: str | None = None,
    ) -> UnitEntry:
        """Writes a unit: its file, rejects, and last the entry that makes it count.

        What an earlier, killed try at the unit left and this one does not write is removed.

        Args:
            index: of the unit.
            content: of the file; None where there is no sample.
            samples: in it; the other numbers as in ``UnitEntry``.
            rejects: of the unit, in order.
            images: see ``UnitEntry``.
            masks: see ``UnitEntry``.
            tokenizer: see ``UnitEntry``.
            run: see ``UnitEntry``.
            origin: see ``UnitEntry``.

        Raises:
            SetupError: the folder cannot be written.
        """
        shard, rejects_name = None, f"{_REJECTS}/{index:06d}.jsonl"
        if content is not None:
            self._write(self.shard_of(index), content)
            shard = ShardFile(self.shard_of(index), len(content), hashlib.sha256(content).hexdigest())
        else:
            self._remove(self.shard_of(index), is_file=True)
        if rejects:
            self._write(rejects_name, to_lines(rejects))
        else:
            self._remove(rejects_name, is_file=True)
        entry = UnitEntry(
            index=index,
            shard=shard,
            images=images,
            samples=samples,
            masks=masks,
            records=samples + len(rejects),
            rejects=count(rejects),
            tokenizer=tokenizer,
            run=run,
            origin=origin,
        )
        self._write(f"{_UNITS}/{index:06d}.json", json_bytes(asdict(entry)))
        return entry

    def rejects(self) -> list[Reject]:
        """Every listed reject, by unit and in order."""
        return [reject for data in (self.folder / _REJECTS).read_all(".jsonl") for reject in from_lines(data)]

    def rejects_of(self, index: int) -> list[Reject]:
        """The listed rejects of one unit that has some."""
        return from_lines((self.folder / _REJECTS).read(f"{index:06d}.jsonl"))

    def finish(self, fingerprint: Fingerprint, entries: Sequence[UnitEntry]) -> Totals:
        """Writes the manifest over all units, in order.

        Raises:
            SetupError: the folder cannot be written.
        """
        totals = Totals.of(entries)
        head = {
            "format": FORMAT_VERSION,
            "dataset": self.dataset,
            "split": self.split,
            "run": fingerprint.digest,
            "fingerprint": fingerprint.parts,
            "totals": asdict(totals),
        }
        self._write(_MANIFEST, manifest_bytes(head, (asdict(entry) for entry in entries)))
        self._remove(TEMPORARY)  # empty by now
        return totals

    def manifest(self) -> dict[str, Any] | None:
        """The manifest; None while the run is not complete.

        Raises:
            ValueError: it is damaged.
        """
        return json.loads(self.folder.read(_MANIFEST)) if self.folder.exists(_MANIFEST) else None

    def planned(self) -> list[str]:
        """The files of the units, by index, of a run to which files may be added; none where nothing was made by it.

        Raises:
            SetupError: the plan is damaged.
        """
        is_bound = self.folder.names(ENDINGS[self.form]) or (self.folder / _UNITS).names()
        if not is_bound or not self.folder.exists(_PLAN):
            return []
        try:
            units = json.loads(self.folder.read(_PLAN))["units"]
            return [str(unit) for unit in units]
        except (ValueError, KeyError, TypeError) as error:
            raise SetupError(f"{self.folder}/{_PLAN} is damaged: --overwrite deletes the run") from error

    def write_plan(self, units: Sequence[str]) -> None:
        """Keeps which file each unit is read from.

        Raises:
            SetupError: the folder cannot be written.
        """
        self._write(_PLAN, json_bytes({"units": list(units)}))

    def _write(self, name: str, data: bytes) -> None:
        try:
            self.folder.write(name, data)
        except OSError as error:
            raise self._unwritable(name, error) from error

    def _remove(self, name: str, *, is_file: bool = False) -> None:
        try:
            (self.folder.remove_file if is_file else self.folder.remove)(name)
        except OSError as error:
            raise self._unwritable(name, error) from error

    def _unusable(self, error: OSError) -> SetupError:
        return SetupError(
            f"{self.folder} cannot be used: {error.strerror or error}. "
            "Check the address, the permissions and, for an object store, the credentials"
        )

    def _unwritable(self, name: str, error: OSError) -> SetupError:
        return SetupError(
            f"{self.folder}/{name} could not be written: {error.strerror or error}. "
            "What was finished stays; mend the folder and run again to resume"
        )


def _entries(contents: Iterable[bytes]) -> Iterator[UnitEntry]:
    """Entries, but for damaged ones, whose units are made again. They share what is equal in all of a run."""
    shared: dict[Any, Any] = {}
    for data in contents:
        try:
            fields = json.loads(data)
            for name in ("run", "tokenizer", "rejects"):
                fields[name] = shared.setdefault(repr(fields[name]), fields[name])
            yield UnitEntry.of_json(fields)
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
