"""The report as one HTML page that needs nothing beside it: pictures and charts are inside."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

from markupsafe import Markup

from pipelines.evaluation.examples import KINDS, Example, Examples, Kind
from pipelines.evaluation.measurement import PUBLISHED, SIZE_CLASSES, VARIANTS, Measurement
from pipelines.evaluation.report import ALL, Report
from pipelines.pages.charts import code_chart, iou_chart
from pipelines.pages.parts import Table, environment, word_tables
from pipelines.tables import cell, share

_TEMPLATE = "page.html.jinja"
_TITLES: dict[Kind, str] = {"best": "Best", "worst": "Worst", "random": "Drawn by lot"}


def html(report: Report, examples: Examples) -> str:
    """The page.

    Args:
        report: the figures.
        examples: the pictures.
    """
    templates = environment(Path(__file__).parent)
    templates.filters["data_uri"] = _data_uri
    templates.filters["iou"] = cell
    return templates.get_template(_TEMPLATE).render(
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


def _tables(report: Report) -> Iterator[Table]:
    measurement = report.measurement
    variants = tuple(VARIANTS[variant] for variant in measurement.variants)
    sources: list[str | None] = [*measurement.sources, None]
    yield Table(
        "By source",
        ("source", "images", "masks", *variants),
        tuple((name or ALL, f"{measurement.num_images(name):,}", *_cells(measurement, name, None)) for name in sources),
    )
    yield Table(
        "By size of mask, as a share of its image",
        ("size", "masks", *variants),
        tuple((kind.label, *_cells(measurement, None, size)) for size, kind in enumerate(SIZE_CLASSES)),
    )
    yield Table(
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
    yield from word_tables(words, of="source")


def _cells(measurement: Measurement, source: str | None, size: int | None) -> Iterator[str]:
    yield f"{measurement.num_masks(source, size):,}"
    for variant in measurement.variants:
        yield cell(measurement.mean(variant, source=source, size=size))


def _galleries(measurement: Measurement, examples: Examples) -> Iterator[tuple[str, str, dict[Kind, list[Example]]]]:
    """Of each source its name, its r-IoU and its pictures."""
    for source in measurement.sources:
        found: dict[Kind, list[Example]] = {kind: examples.of(source, kind) for kind in KINDS}
        yield source, cell(measurement.mean(PUBLISHED, source=source)), found


def _data_uri(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode('ascii')}"
