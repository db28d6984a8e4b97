"""The report as one HTML page that needs nothing beside it: pictures and charts are inside."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipelines.evaluation.charts import code_chart, iou_chart
from pipelines.evaluation.examples import KINDS, Example, Examples, Kind
from pipelines.evaluation.measurement import PUBLISHED, SIZE_CLASSES, VARIANTS, Measurement
from pipelines.evaluation.report import ALL, Report, cell, share

_TEMPLATE = "page.html.jinja"
_TITLES: dict[Kind, str] = {"best": "Best", "worst": "Worst", "random": "Drawn by lot"}


@dataclass(frozen=True, slots=True)
class _Table:
    """A table: the first ``num_names`` cells of a row are names, the others numbers."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    num_names: int = 1


def html(report: Report, examples: Examples) -> str:
    """The page.

    Args:
        report: the figures.
        examples: the pictures.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # names come from foreign files
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_uri"] = _data_uri
    environment.filters["iou"] = cell
    return environment.get_template(_TEMPLATE).render(
        report=report,
        heads=_headlines(report),
        charts=_charts(report),
        tables=_tables(report),
        rejects={name: source.rejects for name, source in report.sources.items()},
        galleries=list(_galleries(report.measurement, examples)),
        kinds=_TITLES,
    )


def _headlines(report: Report) -> Iterator[tuple[str, str, str]]:
    """The figures on top: name, figure, what it means."""
    measurement = report.measurement
    collisions = measurement.words().json["collisions"]
    yield "r-IoU", cell(measurement.mean()), "mean over masks, logits cut at 0.5 as published"
    yield "r-IoU at 0", cell(measurement.mean("r_iou_at_0")), "the same logits cut at 0, SAM's own threshold"
    yield "before quantisation", cell(measurement.mean("unquantised")), "embeddings decoded directly: no codebook"
    yield "ceiling", cell(measurement.mean("ceiling_own")), "the true masks through a grid of the tokenizer's own side"
    if report.baseline is not None:
        yield "image-blind", cell(measurement.mean("baseline")), "two codes for the shape alone, made of training masks"
    yield "collisions", share(collisions["share_of_images"]), "of images have two different masks with one word"


def _charts(report: Report) -> Iterator[tuple[str, Markup]]:
    measurement = report.measurement
    blind = measurement.histogram("baseline") if report.baseline is not None else None
    yield "How many masks reach which r-IoU", Markup(iou_chart(measurement.histogram(), blind, name="iou"))
    for level, counts_K in enumerate(measurement.words().counts, start=1):
        yield f"Use of the codes of level {level}", Markup(code_chart(counts_K, name=f"level-{level}"))


def _tables(report: Report) -> Iterator[_Table]:
    measurement = report.measurement
    variants = tuple(VARIANTS[variant] for variant in measurement.variants)
    sources: list[str | None] = [*measurement.sources, None]
    yield _Table(
        "By source",
        ("source", "images", "masks", *variants),
        tuple((name or ALL, f"{measurement.num_images(name):,}", *_cells(measurement, name, None)) for name in sources),
    )
    yield _Table(
        "By size of mask, as a share of its image",
        ("size", "masks", *variants),
        tuple((kind.label, *_cells(measurement, None, size)) for size, kind in enumerate(SIZE_CLASSES)),
    )
    yield _Table(
        "By source and size",
        ("source", "size", "masks", *variants),
        tuple(
            (name, kind.label, *_cells(measurement, name, size))
            for name in measurement.sources
            for size, kind in enumerate(SIZE_CLASSES)
        ),
        num_names=2,
    )
    words = {name or ALL: measurement.words(name).json for name in sources}
    if report.baseline is not None:
        words["all, image-blind codebook"] = report.baseline.words.json
    yield _Table(
        "Use of the codebook",
        ("source", "level", "codes used", "of", "share", "perplexity"),
        tuple((name, *row) for name, found in words.items() for row in _levels(found)),
        num_names=2,
    )
    yield _Table(
        "Collisions: different masks of one image with the same word",
        ("source", "images with two masks or more", "with a collision", "share", "their masks", "involved", "share"),
        tuple((name, *_collisions(found["collisions"])) for name, found in words.items()),
    )


def _cells(measurement: Measurement, source: str | None, size: int | None) -> Iterator[str]:
    yield f"{measurement.num_masks(source, size):,}"
    for variant in measurement.variants:
        yield cell(measurement.mean(variant, source=source, size=size))


def _levels(words: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for level, found in enumerate(words["levels"], start=1):
        perplexity = "-" if found["perplexity"] is None else f"{found['perplexity']:.1f}"
        yield f"{level}", f"{found['used']:,}", f"{found['of']:,}", share(found["share"]), perplexity


def _collisions(found: dict[str, Any]) -> tuple[str, ...]:
    return (
        f"{found['images']:,}",
        f"{found['images_with_collision']:,}",
        share(found["share_of_images"]),
        f"{found['masks']:,}",
        f"{found['masks_in_collision']:,}",
        share(found["share_of_masks"]),
    )


def _galleries(measurement: Measurement, examples: Examples) -> Iterator[tuple[str, str, dict[Kind, list[Example]]]]:
    """Of each source its name, its r-IoU and its pictures."""
    for source in measurement.sources:
        found: dict[Kind, list[Example]] = {kind: examples.of(source, kind) for kind in KINDS}
        yield source, cell(measurement.mean(PUBLISHED, source=source)), found


def _data_uri(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode('ascii')}"
