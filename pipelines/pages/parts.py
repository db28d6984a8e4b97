"""Tables of a page, and the templates that all pages are built of.

base.html.jinja    style and skeleton; a page fills its blocks
parts.html.jinja   figures on top, charts, tables
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipelines.tables import share


@dataclass(frozen=True, slots=True)
class Table:
    """A table: the first ``num_names`` cells of a row are names, the others numbers."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    num_names: int = 1


def environment(folder: Path) -> Environment:
    """Finds templates in a folder and, after that, those of all pages.

    Args:
        folder: of the page's own template.
    """
    return Environment(
        loader=FileSystemLoader([folder, Path(__file__).parent]),
        autoescape=True,  # names come from foreign files
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def word_tables(words: Mapping[str, Mapping[str, Any]], *, of: str) -> Iterator[Table]:
    """Two tables: which codes are used, and which masks share a word.

    Args:
        words: ``WordStatistics.json`` by name.
        of: what the names are of.
    """
    yield Table(
        "Use of the codebook",
        (of, "level", "codes used", "of", "share", "perplexity"),
        tuple((name, *row) for name, found in words.items() for row in _levels(found)),
        num_names=2,
    )
    yield Table(
        "Collisions: different masks of one image with the same word",
        (of, "images with two masks or more", "with a collision", "share", "their masks", "involved", "share"),
        tuple((name, *_collisions(found["collisions"])) for name, found in words.items()),
    )


def _levels(words: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for level, found in enumerate(words["levels"], start=1):
        perplexity = "-" if found["perplexity"] is None else f"{found['perplexity']:.1f}"
        yield f"{level}", f"{found['used']:,}", f"{found['of']:,}", share(found["share"]), perplexity


def _collisions(found: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        f"{found['images']:,}",
        f"{found['images_with_collision']:,}",
        share(found["share_of_images"]),
        f"{found['masks']:,}",
        f"{found['masks_in_collision']:,}",
        share(found["share_of_masks"]),
    )
