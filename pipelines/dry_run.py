"""``samtok-data tokenize --dry-run``: what a run would do, from the annotations alone."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pipelines.config import RunConfig
from pipelines.prepare import converter_of, plan_of
from pipelines.tables import columns


@dataclass(frozen=True, slots=True)
class Preview:
    """A plan in numbers.

    Attributes:
        dataset: name in the output.
        images_root: where the images are.
        splits: images, dialogues (records), masks and units of each split.
        counts: sentences by the dataset's tables against the files, in words.
    """

    dataset: str
    images_root: str
    splits: dict[str, dict[str, int]]
    counts: list[str]

    @property
    def json(self) -> dict[str, Any]:
        """The same as JSON values."""
        return asdict(self)

    @property
    def table(self) -> str:
        """The same for a terminal."""
        rows = [("split", "images", "dialogues", "masks", "units")]
        rows += [(split, *(f"{number:,}" for number in numbers.values())) for split, numbers in self.splits.items()]
        return "\n".join([columns(rows), *self.counts, f"images in {self.images_root}", "dry run: nothing was written"])


def preview(config: RunConfig) -> Preview:
    """Plans a run and writes nothing.

    Raises:
        SetupError: the annotation files, the image folder or the wording cannot be used. The tokenizer, the cluster and
            the output folder are not looked at.
    """
    converter = converter_of(config)
    plan = plan_of(config, converter)
    splits: dict[str, dict[str, int]] = {}
    for unit in plan.units:
        numbers = splits.setdefault(unit.split, {"images": 0, "dialogues": 0, "masks": 0, "units": 0})
        numbers["images"] += unit.images
        numbers["dialogues"] += unit.records
        numbers["masks"] += unit.masks
        numbers["units"] += 1
    counts = [expectation.sentence for expectation in plan.expectations]
    return Preview(converter.name, plan.images_root, splits, counts)
