"""What an evaluation found: as JSON, which holds no times, and as a table for a terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from pipelines.evaluation.measurement import SIZE_CLASSES, VARIANTS, Measurement
from pipelines.evaluation.rejects import RejectLog
from pipelines.evaluation.words import WordStatistics
from pipelines.tables import cell, columns, word_lines
from samtok_data import __version__
from tokenizer_model.identity import TokenizerIdentity

FORMAT = 1
ALL = "all"

# For terminals, where VARIANTS' names are too long.
_HEADINGS = {
    "r_iou": "r-IoU",
    "r_iou_at_0": "at 0",
    "unquantised": "unquantised",
    "ceiling_256": "256x256",
    "ceiling_own": "own side",
    "baseline": "blind",
}


@dataclass(frozen=True, slots=True)
class SourceReport:
    """One source beside its figures.

    Attributes:
        settings: of the source.
        rejects: what could not be measured.
    """

    settings: Mapping[str, Any]
    rejects: RejectLog


@dataclass(frozen=True, slots=True)
class BaselineReport:
    """The image-blind codebook beside its IoU, which is a variant of the measurement.

    Attributes:
        sources: settings of the training sources by name.
        rows: of a level.
        levels: codes of a mask.
        side: of its grid.
        masks: that it was made of.
        seen: that these were drawn from.
        rejects: of the training sources.
        words: use of its codes and collisions, on the masks that were measured.
    """

    sources: Mapping[str, Mapping[str, Any]]
    rows: int
    levels: int
    side: int
    masks: int
    seen: int
    rejects: RejectLog
    words: WordStatistics

    @property
    def json(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return {
            "sources": {name: dict(settings) for name, settings in self.sources.items()},
            "rows": self.rows,
            "levels": self.levels,
            "side": self.side,
            "masks": self.masks,
            "masks_seen": self.seen,
            "rejects": self.rejects.json,
            "codebook": self.words.json["levels"],
            "collisions": self.words.json["collisions"],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """An evaluation.

    Attributes:
        tokenizer: which one.
        settings: of the run, as JSON values.
        measurement: the figures.
        sources: by name.
        baseline: None: none was asked for.
        seconds: that measuring took; not part of the JSON.
    """

    tokenizer: TokenizerIdentity
    settings: Mapping[str, Any]
    measurement: Measurement
    sources: Mapping[str, SourceReport]
    baseline: BaselineReport | None
    seconds: float

    @property
    def json(self) -> dict[str, Any]:
        """All of it as JSON values; equal for equal runs."""
        measured = self.measurement.json
        return {
            "format": FORMAT,
            "tokenizer": self.tokenizer.json,
            "settings": dict(self.settings),
            "versions": {"samtok-data": __version__, **{name: version(name) for name in ("torch", "sam2", "pillow")}},
            "names": {"variants": VARIANTS, "sizes": {kind.key: kind.label for kind in SIZE_CLASSES}},
            "measured": measured,
            "sources": {
                name: {"settings": dict(source.settings), "rejects": source.rejects.json}
                for name, source in self.sources.items()
            },
            "baseline": None if self.baseline is None else self.baseline.json,
        }

    @property
    def text(self) -> str:
        """``json`` as text."""
        return dumped(self.json)


def dumped(values: Any) -> str:
    """JSON text. Records of rejects come from foreign files: what is no JSON there is written as its text."""
    return json.dumps(values, indent=1, default=str)


def report_table(report: Report, out: str) -> str:
    """The report for a terminal."""
    measurement = report.measurement
    sources: list[str | None] = [*measurement.sources]
    if len(sources) > 1:
        sources.append(None)
    lines = [
        columns([_heading("source", measurement), *(_row(measurement, name or ALL, source=name) for name in sources)]),
        "",
        columns([
            _heading("size of mask", measurement),
            *(_row(measurement, kind.label, size=size) for size, kind in enumerate(SIZE_CLASSES)),
        ]),
        "",
        *word_lines("codes", measurement.words().json),
    ]
    if report.baseline is not None:
        lines += word_lines("image-blind codebook", report.baseline.words.json)
    for name, source in report.sources.items():
        if len(source.rejects):
            lines.append(f"rejected in {name}: {source.rejects.text} (listed in {out}/report.json)")
    number = measurement.num_masks()
    lines.append(f"tokenizer: {report.tokenizer.name} (sha256 {report.tokenizer.sha256[:12]})")
    lines.append(f"{number:,} masks in {report.seconds:.1f} s: {number / max(report.seconds, 1e-9):.1f} masks/s")
    lines.append(f"output: {out}/index.html, {out}/report.json")
    return "\n".join(lines)


def _heading(first: str, measurement: Measurement) -> Sequence[str]:
    return (first, "images", "masks", *(_HEADINGS[variant] for variant in measurement.variants if variant in _HEADINGS))


def _row(measurement: Measurement, name: str, *, source: str | None = None, size: int | None = None) -> Sequence[str]:
    means = (
        measurement.mean(variant, source=source, size=size) for variant in measurement.variants if variant in _HEADINGS
    )
    images = f"{measurement.num_images(source):,}" if size is None else ""
    return (name, images, f"{measurement.num_masks(source, size):,}", *(cell(mean) for mean in means))
