"""Texts for people: summaries as aligned columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from samtok_data.outputs import HIDDEN

if TYPE_CHECKING:
    from pipelines.run import Summary
    from pipelines.training.worker import Outcome
    from pipelines.verify import Verdict
    from pipelines.work import Preview


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells, aligned; the first column to the left, numbers to the right."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]

    def line(row: Sequence[str]) -> str:
        numbers = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        return "  ".join([row[0].ljust(widths[0]), *numbers])

    return "\n".join(line(row) for row in rows)


def size_text(num_bytes: float) -> str:
    """Bytes in the unit that a person would use."""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} TB"


def cell(number: float | None) -> str:
    """An IoU, or a dash where nothing was measured."""
    return "-" if number is None else f"{number:.3f}"


def share(number: float | None) -> str:
    """A share as percent, or a dash."""
    return "-" if number is None else f"{100 * number:.1f} %"


def word_lines(name: str, words: Mapping[str, Any]) -> list[str]:
    """Use of the codes, and collisions, in a line each.

    Args:
        name: of the codebook.
        words: ``WordStatistics.json``.
    """
    levels = (
        f"{level['used']} of {level['of']} used, perplexity {level['perplexity'] or 0:.0f}" for level in words["levels"]
    )
    collisions = words["collisions"]
    return [
        f"{name}: {'; '.join(levels)}",
        f"{name}: two masks with one word in {share(collisions['share_of_images'])} of {collisions['images']:,} images "
        f"with two masks or more ({share(collisions['share_of_masks'])} of their masks)",
    ]


def summary_table(summary: Summary) -> str:
    """What a run came to, for a terminal."""
    rows = [("split", "shards", "size", "images", "samples", "masks", "rejects")]
    for split, totals in summary.splits.items():
        numbers = (totals.shards, totals.images, totals.samples, totals.masks, totals.num_rejects)
        shards, images, samples, masks, rejects = (f"{number:,}" for number in numbers)
        rows.append((split, shards, size_text(totals.bytes), images, samples, masks, rejects))
    lines = [columns(rows)]
    for split, totals in summary.splits.items():
        lines += (f"rejected in {split}: {number:,} {reason}" for reason, number in totals.rejects.items())
    if any(totals.rejects for totals in summary.splits.values()):
        lines.append(f"rejects are listed in {summary.out}/<split>/{HIDDEN}/rejects")
    lines.append(f"tokenizer: {summary.tokenizer['name']} (sha256 {summary.tokenizer['sha256'][:12]})")
    if summary.new_units:
        rates = f"{summary.images_per_second:.1f} images/s, {summary.masks_per_second:.1f} masks/s"
        lines.append(f"{summary.new_units:,} units in {summary.seconds:.1f} s: {rates}")
    else:
        lines.append("nothing to do: every shard was there")
    lines.append(f"output: {summary.out}")
    return "\n".join(lines)


def preview_table(found: Preview) -> str:
    """A plan, for a terminal."""
    named = next(iter(found.splits.values()), {})
    rows = [("split", *named)]
    rows += [(split, *(f"{number:,}" for number in numbers.values())) for split, numbers in found.splits.items()]
    return "\n".join([columns(rows), *found.counts, f"images in {found.images_root}", "dry run: nothing was written"])


def verdict_table(verdicts: Sequence[Verdict]) -> str:
    """What verify found, for a terminal."""
    rows = [("output", "shards", "samples", "masks", "rejects", "problems")]
    for verdict in verdicts:
        totals = verdict.totals
        numbers = (totals.shards, totals.samples, totals.masks, totals.num_rejects, len(verdict.problems))
        shards, samples, masks, rejects, problems = (f"{number:,}" for number in numbers)
        rows.append((verdict.name, shards, samples, masks, rejects, problems))
    problems = [f"{verdict.name}: {problem}" for verdict in verdicts for problem in verdict.problems]
    return "\n".join([columns(rows), *problems])


def training_text(outcome: Outcome, out: str) -> str:
    """What a start of a training run came to, for a terminal."""
    rate = outcome.masks / outcome.seconds if outcome.seconds else 0.0
    lines = [f"{outcome.step:,} of {outcome.steps:,} steps, {outcome.masks:,} masks in this start, {rate:,.0f} masks/s"]
    if outcome.r_iou is not None:
        lines.append(f"r-IoU of the last validation: {outcome.r_iou:.4f}")
    if outcome.rejects:
        named = ", ".join(f"{reason} {count:,}" for reason, count in outcome.rejects.items())
        lines.append(f"rejects: {named} (listed in {out}/rejects.jsonl)")
    if outcome.is_complete:
        lines.append(f"complete; write the tokenizer with: samtok-data export-tokenizer {out} --out FILE.safetensors")
    else:
        lines.append("not complete; the same command goes on")
    return "\n".join(lines)
