"""What a converter is: it plans a dataset into units, and turns a unit's records into Scenes.

    driver:  Converter.plan(...)  -> Plan: units, counts, fingerprints of the files   (reads annotation files)
    worker:  Converter.scenes(payload) -> Scenes and Rejects                        (decodes masks, builds dialogues)

A Converter is small and can be pickled; the annotation files are read by the plan alone, and each unit's
records travel to the worker as a plain payload.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from samtok_data.rejects import Reject
from samtok_data.scenes import Scene

Suffix = Literal["jpg", "png"]
Payload = list[dict[str, Any]]
"""A unit's records as JSON values (no tuples, no arrays): small, and the same on every Python."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetFile:
    """One file or folder that a dataset wants under its root.

    Attributes:
        path: relative to the root, forward slashes.
        content: what it is, in a few words.
    """

    path: str
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetInfo:
    """What a user wants to know before a run.

    Attributes:
        name: as ``--dataset`` takes it.
        title: as the authors write it.
        task: what its dialogues train.
        files: what lies where under ``--root``.
        licence: terms of annotations and images, in one sentence.
        home: where it is published.
        sentences: expected number of sentences a split; None where no table gives it.
        image_suffix: format of every image, as the members of its shards are called. One for all, because HF datasets
            refuses a dataset whose samples have different members.
    """

    name: str
    title: str
    task: str
    files: tuple[DatasetFile, ...]
    licence: str
    home: str
    sentences: Mapping[str, int | None]
    image_suffix: Suffix = "jpg"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A numbered run of records that becomes exactly one shard.

    Attributes:
        split: as the annotation file spells it.
        index: from 0 on, in each split.
        images: source images.
        records: sentences (or other records) that become samples or rejects: ``samples + rejects == records``.
        masks: distinct (image, annotation) pairs that the records name.
    """

    split: str
    index: int
    images: int
    records: int
    masks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """A count that the dataset's tables state, against what the files hold.

    Attributes:
        split: of the dataset.
        expected: sentences by the table.
        found: sentences in the file.
    """

    split: str
    expected: int
    found: int

    @property
    def met(self) -> bool:
        """Whether the file is as published."""
        return self.expected == self.found

    @property
    def sentence(self) -> str:
        """The comparison in words."""
        if self.met:
            return f"{self.split}: {self.found:,} sentences, as published"
        return f"{self.split}: {self.found:,} sentences, the published dataset has {self.expected:,}"


class Plan(Protocol):
    """A dataset's annotation files, read, joined and cut into units."""

    @property
    def images_root(self) -> str:
        """Address of the folder that ``Scene.image`` is relative to."""
        ...

    @property
    def files(self) -> Mapping[str, str]:
        """sha256 (hex) of every annotation file, by its name under the root."""
        ...

    @property
    def units(self) -> Sequence[Unit]:
        """All units, by split and index."""
        ...

    @property
    def expectations(self) -> Sequence[Expectation]:
        """Counts against the dataset's tables, for the splits that they cover; whole files only."""
        ...

    def payload(self, unit: Unit) -> Payload:
        """The unit's records."""
        ...


class Converter(Protocol):
    """One dataset under given options. Small, immutable, can be pickled."""

    @property
    def info(self) -> DatasetInfo:
        """What the dataset is."""
        ...

    @property
    def name(self) -> str:
        """Name of the output folder and first part of every key: lower-case ASCII letters, digits, hyphens."""
        ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """Every option that changes the output, as JSON values; part of the run fingerprint."""
        ...

    def plan(self, *, splits: Sequence[str], unit_size: int, limit: int | None) -> Plan:
        """Reads the annotation files.

        Args:
            splits: as the files spell them; ``all`` for every split that the file holds.
            unit_size: a unit is closed once it holds this many records.
            limit: only the first so many images of each split.

        Raises:
            SetupError: a file is missing, broken or another dataset's; the image root is not there; a split
                is not in the file.
        """
        ...

    def scenes(self, payload: Payload) -> Iterator[Scene | Reject]:
        """The Scenes of a unit, in order, and what could not become a dialogue. Images are not opened."""
        ...
