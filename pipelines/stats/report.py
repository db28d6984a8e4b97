"""What was counted in outputs: as JSON, as a table for a terminal, and the run of the whole."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.evaluation.measurement import SIZE_CLASSES
from pipelines.evaluation.progress import SourceProgress
from pipelines.stats.figures import Figures
from pipelines.stats.reading import shard_images, table_images
from pipelines.tables import cell, columns, share, word_lines
from samtok_data.errors import SetupError
from samtok_data.fingerprints import Fingerprint
from samtok_data.outputs import HIDDEN, SplitOutput, Totals, UnitEntry
from samtok_data.storage import Folder
from samtok_data.words import MaskVocabulary

FORMAT = 1
# In the dot folder: where a folder holds one tar without a split's name, HF datasets takes a JSON file for the data.
JSON_NAME = f"{HIDDEN}/stats.json"
PAGE_NAME = "stats.html"


@dataclass(frozen=True, slots=True)
class OutputStats:
    """One output, counted.

    Attributes:
        name: ``<dataset>/<split>``.
        form: ``shards`` or ``table``.
        is_complete: whether every unit is there; else the finished ones were counted.
        tokenizer: name and sha256.
        totals: of the units that were counted.
        figures: of their masks.
    """

    name: str
    form: str
    is_complete: bool
    tokenizer: Mapping[str, str]
    totals: Totals
    figures: Figures

    @property
    def json(self) -> dict[str, Any]:
        """All of it as JSON values; equal for equal outputs."""
        return {
            "name": self.name,
            "form": self.form,
            "complete": self.is_complete,
            "tokenizer": dict(self.tokenizer),
            "units": self.totals.units,
            "files": self.totals.shards,
            "bytes": self.totals.bytes,
            "images": self.totals.images,
            "samples": self.totals.samples,
            "masks": self.totals.masks,
            "records": self.totals.records,
            "rejects": dict(self.totals.rejects),
            **self.figures.json,
        }


def count_output(output: SplitOutput) -> OutputStats:
    """Reads an output's files once, from front to back; of a run that is not complete, its finished units.

    Raises:
        SetupError: a file is damaged or is not what its unit's entry says.
    """
    name = f"{output.dataset}/{output.split}"
    fingerprint, is_complete, entries = _entries(output, name)
    try:
        config = fingerprint.parts["tokenizer"]["config"]
        vocabulary = MaskVocabulary(config["codebook_size"], config["depth"])
        tokenizer = {"name": "", "sha256": str(fingerprint.parts["tokenizer"]["sha256"])}
    except (ValueError, KeyError, TypeError) as error:
        raise SetupError(f"{name}: the run file does not say which tokenizer it is of ({error!r})") from error
    tokenizer.update(entries[0].tokenizer if entries else {})
    figures = Figures(vocabulary.codebook_size, vocabulary.depth)
    with SourceProgress(name, total=len(entries), unit="unit") as progress:
        for entry in entries:
            progress.num_rejects += sum(entry.rejects.values())
            _count_unit(output, entry, vocabulary, figures, progress)
            progress.did()
    return OutputStats(name, output.form, is_complete, tokenizer, Totals.of(entries), figures)


def _entries(output: SplitOutput, name: str) -> tuple[Fingerprint, bool, list[UnitEntry]]:
    fingerprint = output.fingerprint()
    if fingerprint is None:
        raise SetupError(f"{name}: the run file is gone")
    try:
        manifest = output.manifest()
        listed = {entry.index: entry for entry in map(UnitEntry.of_json, manifest["units"] if manifest else [])}
    except (ValueError, KeyError, TypeError) as error:
        raise SetupError(f"{name}: the manifest is damaged ({error}): run tokenize again") from error
    # A run to which files were added may have units that are newer than its manifest; what only the manifest lists
    # is damaged, and is named when it is read.
    entries = {**listed, **output.finished(fingerprint)}
    is_complete = manifest is not None and entries == listed
    return fingerprint, is_complete, [entries[index] for index in sorted(entries)]


def _count_unit(
    output: SplitOutput, entry: UnitEntry, vocabulary: MaskVocabulary, figures: Figures, progress: SourceProgress
) -> None:
    if entry.shard is None:
        return
    before = figures.masks
    try:
        if output.form == "table":
            with output.folder.open(entry.shard.name) as file:
                for image in table_images(file, vocabulary):
                    _count_image(image, figures, progress)
        else:
            for image in shard_images(output.folder, entry.shard.name, vocabulary):
                _count_image(image, figures, progress)
        if figures.masks - before != entry.masks:
            raise ValueError(f"{entry.masks:,} masks in its entry, {figures.masks - before:,} in the file")
    except (ValueError, FileNotFoundError) as error:
        where = f"{output.folder}/{entry.shard.name}"
        raise SetupError(f"{where}: {error}. 'samtok-data verify' says all that is wrong") from error


def _count_image(image: list[Any], figures: Figures, progress: SourceProgress) -> None:
    figures.add(image)
    progress.add(sum(len(view.identities) for view in image))


def write_stats(out: str, stats: Sequence[OutputStats]) -> str:
    """Writes JSON and page below an output folder.

    Returns:
        The JSON text.

    Raises:
        OSError: they could not be written.
    """
    from pipelines.stats.page import html

    folder = Folder(out)
    text = json.dumps({"format": FORMAT, "outputs": [one.json for one in stats]}, indent=1) + "\n"
    folder.write(JSON_NAME, text.encode())
    folder.write(PAGE_NAME, html(stats).encode(errors="backslashreplace"))
    return text


def stats_table(stats: Sequence[OutputStats], out: str) -> str:
    """The figures for a terminal."""
    lines = [columns([heads, *rows]) + "\n" for heads, rows in (_overview(stats), _sizes(stats))]
    for one in stats:
        lines += word_lines(one.name, one.figures.words.json)
    for one in stats:
        lines += (f"rejected in {one.name}: {number:,} {reason}" for reason, number in one.totals.rejects.items())
    lines += incomplete(stats)
    lines += (f"tokenizer of {one.name}: {tokenizer_text(one)}" for one in stats)
    lines.append(f"output: {out}/{PAGE_NAME}, {out}/{JSON_NAME}")
    return "\n".join(lines)


def incomplete(stats: Iterable[OutputStats]) -> list[str]:
    """A sentence for each output that is not complete."""
    return [
        f"{one.name} is not complete: the {one.totals.units:,} units that are finished were counted"
        for one in stats
        if not one.is_complete
    ]


def tokenizer_text(one: OutputStats) -> str:
    """Which tokenizer made the words of an output."""
    return f"{one.tokenizer['name'] or '-'} (sha256 {one.tokenizer['sha256'][:12]})"


def overview_row(one: OutputStats) -> tuple[str, ...]:
    """Images, masks, rejects, masks of an image, and mean r-IoU of an output."""
    figures = one.figures
    per_image = "-" if figures.masks_per_image is None else f"{figures.masks_per_image:.1f}"
    numbers = (one.totals.images, figures.masks, one.totals.num_rejects)
    return (one.name, *(f"{number:,}" for number in numbers), per_image, cell(figures.mean_iou))


def size_row(one: OutputStats) -> tuple[str, ...]:
    """Share of an output's masks in each class of size."""
    number = max(one.figures.masks, 1)
    return (one.name, *(share(int(masks) / number) for masks in one.figures.classes_C))


def _overview(stats: Sequence[OutputStats]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    return ("output", "images", "masks", "rejects", "per image", "r-IoU"), [overview_row(one) for one in stats]


def _sizes(stats: Sequence[OutputStats]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    return ("masks by share of the image", *(kind.label for kind in SIZE_CLASSES)), [size_row(one) for one in stats]
