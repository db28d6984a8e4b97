"""The figures of outputs as one HTML page that needs nothing beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from markupsafe import Markup

from pipelines.evaluation.measurement import SIZE_CLASSES
from pipelines.pages.charts import bar_chart, code_chart, fraction_chart, iou_chart
from pipelines.pages.parts import Table, environment, word_tables
from pipelines.stats.figures import AREA_EDGES
from pipelines.stats.report import OutputStats, incomplete, overview_row, size_row, tokenizer_text
from pipelines.tables import cell, share, size_text

_TEMPLATE = "page.html.jinja"


def html(stats: Sequence[OutputStats]) -> str:
    """The page.

    Args:
        stats: of outputs, at least one.
    """
    return (
        environment(Path(__file__).parent)
        .get_template(_TEMPLATE)
        .render(
            outputs=[
                (one.name, _caption(one), list(_headlines(one)), list(_charts(one, place)))
                for place, one in enumerate(stats)
            ],
            tables=list(_tables(stats)),
            warnings=incomplete(stats),
        )
    )


def _caption(one: OutputStats) -> str:
    totals = one.totals
    files = f"{totals.shards:,} {'tables' if one.form == 'table' else 'shards'}, {size_text(totals.bytes)}"
    return f"{files}; {totals.units:,} units; tokenizer {tokenizer_text(one)}"


def _headlines(one: OutputStats) -> Iterator[tuple[str, str, str]]:
    """The figures on top of an output: name, figure, what it means."""
    figures, collisions = one.figures, one.figures.words.json["collisions"]
    yield "masks", f"{figures.masks:,}", "each once for every view of its image"
    yield "images", f"{one.totals.images:,}", f"or frames; {figures.images:,} of them have a mask"
    if one.form == "shards":
        yield "dialogues", f"{one.totals.samples:,}", "samples in the shards"
    yield "rejects", f"{one.totals.num_rejects:,}", "listed beside the output, with their reasons"
    yield "collisions", share(collisions["share_of_images"]), "of images have two different masks with one word"
    if figures.measured:
        yield "r-IoU", cell(figures.mean_iou), f"mean over the {figures.measured:,} masks that were measured"


def _charts(one: OutputStats, place: int) -> Iterator[tuple[str, Markup]]:
    figures = one.figures
    if not figures.masks:
        return
    areas = fraction_chart(AREA_EDGES, figures.areas_B, name=f"area-{place}")
    yield "Size of masks, as a share of their image", Markup(areas)
    ends = {name.rpartition("-")[2]: number for name, number in figures.image_classes.items()}  # names are too long
    images = bar_chart(ends, label="masks of an image, up to", unit="images", name=f"images-{place}")
    yield "Masks of an image", Markup(images)
    if figures.measured:
        yield "How many masks reach which r-IoU", Markup(iou_chart(figures.ious_B, None, name=f"iou-{place}"))
    for level, counts_K in enumerate(figures.words.counts, start=1):
        yield f"Use of the codes of level {level}", Markup(code_chart(counts_K, name=f"level-{level}-{place}"))


def _tables(stats: Sequence[OutputStats]) -> Iterator[Table]:
    rows = tuple(overview_row(one) for one in stats)
    yield Table("Outputs", ("output", "images", "masks", "rejects", "masks of an image", "r-IoU"), rows)
    yield Table(
        "By size of mask, as a share of its image",
        ("output", *(kind.label for kind in SIZE_CLASSES)),
        tuple(size_row(one) for one in stats),
    )
    yield from word_tables({one.name: one.figures.words.json for one in stats}, of="output")
    rejects = tuple((one.name, reason, f"{number:,}") for one in stats for reason, number in one.totals.rejects.items())
    if rejects:
        yield Table("Rejects", ("output", "reason", "records"), rejects, num_names=2)
