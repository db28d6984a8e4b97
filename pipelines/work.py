"""What ``samtok-data tokenize`` does, whichever output it makes: splits of units, and how one unit is run.

    Work        on the driver: the splits with their units, what each unit is made from     (DialogueWork, MaskWork)
    UnitWork    in an actor: runs a unit                                              (DialogueUnits, MaskUnits)
    Tokenizer   where that actor has it: in its own process, or in an encoder         (MaskTokenizer, RemoteTokenizer)

Everything here is settled before the first file is written. Nothing here knows Ray.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from converters.dialogues.source import Unit
from pipelines.config import RunConfig
from samtok_data import __version__
from samtok_data.fingerprints import Fingerprint
from samtok_data.masks import RLE
from samtok_data.outputs import SplitOutput, UnitEntry
from samtok_data.words import MaskVocabulary

if TYPE_CHECKING:
    from tokenizer_model import TokenizerIdentity

# Their arithmetic or their decoders stand behind every byte of the output.
_SOFTWARE = ("torch", "sam2", "pillow", "pycocotools")


class Tokenizer(Protocol):
    """What a unit needs of ``tokenizer_model.MaskTokenizer``, wherever the network runs."""

    @property
    def vocabulary(self) -> MaskVocabulary:
        """The spelling of its words."""
        ...

    def prepare(self, image: Image.Image, regions: Sequence[RLE]) -> Any:
        """The part of the work that needs no network; called in threads."""
        ...

    def encode_prepared(self, prepared: Sequence[Any]) -> Sequence[NDArray[np.int64]]:
        """Codes (regions, depth) of every prepared image."""
        ...

    def measure_prepared(
        self, prepared: Sequence[Any]
    ) -> tuple[Sequence[NDArray[np.int64]], Sequence[NDArray[np.float64]]]:
        """Codes, and the IoU of each mask with what its word decodes to, at the image's size."""
        ...


def codes_of(
    prepared: Sequence[Any], tokenizer: Tokenizer, *, measure_iou: bool
) -> Iterator[list[tuple[tuple[int, ...], float | None]]]:
    """For each prepared image the codes of its masks, each with its IoU; None: not measured."""
    if not measure_iou:
        for codes_nL in tokenizer.encode_prepared(prepared):
            yield [(tuple(codes), None) for codes in codes_nL.tolist()]
        return
    for codes_nL, ious_n in zip(*tokenizer.measure_prepared(prepared), strict=True):
        # Rounded, so that the output's bytes do not carry noise of the last digits.
        rounded = [round(iou, 4) for iou in ious_n.tolist()]
        yield list(zip(map(tuple, codes_nL.tolist()), rounded, strict=True))


@dataclass(frozen=True, slots=True)
class Job:
    """One unit to be run.

    Attributes:
        split: which settings apply.
        index: of the unit in its split.
        records: that it holds, by the plan.
        payload: what it is made from, as JSON values.
    """

    split: str
    index: int
    records: int
    payload: Any


class UnitWork(Protocol):
    """What is the same for every unit of a split. Small, can be pickled."""

    def run_job(self, job: Job, tokenizer: Tokenizer) -> UnitEntry:
        """Tokenises a unit and writes its file, rejects and manifest entry.

        Raises:
            SetupError: a file cannot be read for another reason than its own, or the output cannot be written.
        """
        ...


@dataclass(frozen=True, slots=True)
class SplitRun:
    """One split of a run.

    Attributes:
        output: its folder.
        fingerprint: of everything that changes its bytes.
        units: all of them, in order.
    """

    output: SplitOutput
    fingerprint: Fingerprint
    units: Sequence[Unit]


@dataclass(frozen=True, slots=True)
class Preview:
    """A plan in numbers.

    Attributes:
        dataset: name in the output.
        images_root: where the images are.
        splits: what each split holds, by column: images and units, and what the plan knows besides.
        counts: the files against what is published, in words.
    """

    dataset: str
    images_root: str
    splits: dict[str, dict[str, int]]
    counts: list[str]

    @property
    def json(self) -> dict[str, Any]:
        """The same as JSON values."""
        return asdict(self)


class Work(Protocol):
    """A dataset, planned."""

    @property
    def name(self) -> str:
        """Of the dataset in the output."""
        ...

    @property
    def counts(self) -> Sequence[tuple[bool, str]]:
        """The files against what is published: whether they agree, and a sentence."""
        ...

    @property
    def has_known_records(self) -> bool:
        """Whether the plan knows how many records become samples or rejects."""
        ...

    def preview(self) -> Preview:
        """What a run would do."""
        ...

    def payload(self, unit: Unit) -> Any:
        """What a unit is made from, as JSON values."""
        ...

    def split_runs(self, tokenizer: TokenizerIdentity, device: str) -> list[SplitRun]:
        """Every split that is asked for, as this tokenizer makes it on this device. Nothing is written.

        Raises:
            SetupError: the output address is none, or a file that the run was begun with is gone.
        """
        ...

    def units_of(self, split: SplitRun, tokenizer: TokenizerIdentity) -> UnitWork:
        """How the units of a split are run."""
        ...

    def is_stale(self, split: SplitRun, entry: UnitEntry) -> bool:
        """Whether a finished unit should be made again, as the files that it was made from were mended."""
        ...

    def begin(self, split: SplitRun) -> None:
        """Called once the split's folder is this run's own, before its first unit."""
        ...

    def finished(self, split: SplitRun, entries: Sequence[UnitEntry]) -> Sequence[tuple[bool, str]]:
        """What can be said of the counts only when every unit is there, as ``counts``."""
        ...


def software() -> dict[str, str]:
    """Versions of what stands behind every byte of the output, on the machine that asks."""
    return {"samtok-data": __version__, **{name: version(name) for name in _SOFTWARE}}


def shared_fingerprint(config: RunConfig, tokenizer: TokenizerIdentity, device: str) -> dict[str, Any]:
    """What every run's fingerprint holds."""
    return {
        "tokenizer": tokenizer.fingerprint,
        "precision": config.precision_on(device),
        "device": device,
        "measure_iou": config.measure_iou,
        "limit": config.limit,
        "software": software(),
    }
