"""GPU-hours of the published tokenizer's 209.3 million masks, from measured files; and the demo on a processor."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.speed_parts.command import Ran, run_words

TRAINING_MASKS = 209_300_000
_DENSITIES = (20, 100)
_SECONDS_AN_HOUR = 3600


def projection(files: Sequence[Path]) -> list[dict[str, Any]]:
    """GPU-hours at 20 and at 100 masks an image, from runs of the part ``sa1b``.

    A run's rate is that between its first and last finished unit, as it starts once, however many hours it takes. A
    density that was measured is taken as it is, from the fastest run. Another is a straight line through the seconds an
    image of two densities, where there are two.

    Args:
        files: that ``python -m benchmarks.speed sa1b`` wrote, of one kind of machine.

    Raises:
        ValueError: a file is of another part, or no density is measured and no line can be drawn.
    """
    points: dict[int, tuple[float, str]] = {}  # seconds of a GPU for an image, by masks of it
    for file in files:
        value = json.loads(file.read_text())
        if value["part"] != "sa1b":
            raise ValueError(f"{file}: expected figures of the part sa1b, got {value['part']}")
        run = value["run"]
        gpus = max(len(value["machine"]["gpus"]), 1)
        seconds = gpus / (run.get("span_images_per_second") or run["images_per_second"])
        density = round(run["masks_per_image"])
        if density not in points or seconds < points[density][0]:
            points[density] = seconds, file.name
    rows = []
    for density in _DENSITIES:
        seconds, source = points.get(density) or _on_a_line(points, density)
        images = TRAINING_MASKS / density
        rows.append({
            "masks_per_image": density,
            "images": round(images),
            "masks_per_gpu_second": round(density / seconds, 1),
            "gpu_hours": round(images * seconds / _SECONDS_AN_HOUR, 2),
            "measured_in": source,
        })
    return rows


def _on_a_line(points: dict[int, tuple[float, str]], density: int) -> tuple[float, str]:
    if len(points) < 2:
        raise ValueError(f"{density} masks an image: neither measured, nor two densities to draw a line through")
    (few, (least, first)), (many, (most, second)) = min(points.items()), max(points.items())
    slope = (most - least) / (many - few)
    return least + slope * (density - few), f"a line through {first} ({few}) and {second} ({many})"


def demo(root: Path, tokenizer: str, runs: int) -> dict[str, Any]:
    """The tokenising part of ``make demo``, and the published way on the same files with the same weights.

    Args:
        root: of the bundled sample.
        tokenizer: of both.
        runs: of the command; the fastest counts, as it does of the published way's.
    """
    from benchmarks.speed_parts import published

    ran = []
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as name:
            out = Path(name) / "out"
            words = ["--dataset", "gres", "--root", str(root), "--out", str(out), "--split", "all"]
            ran.append(run_words([*words, "--tokenizer", tokenizer, "--samples-per-shard", "24"], out))
            shutil.rmtree(out)
    best = min(ran, key=lambda one: one.summary["seconds"])
    start = time.perf_counter()
    way = published.open_published(tokenizer, "cpu")
    opened = time.perf_counter() - start
    named = list(published.of_gres(root))
    way.encode(named[:1])
    spent = []
    for _ in range(max(1, runs - 1)):
        start = time.perf_counter()
        for one in named:
            way.encode([one])
        spent.append(time.perf_counter() - start)
    published_s, tokenising_s = min(spent), best.summary["seconds"]
    command_s = min(one.seconds for one in ran)
    working_s = _working_seconds(best)
    return {
        "images": best.images,
        "masks": best.masks,
        "mask_passes_published": len(named),
        "tokenising_s": tokenising_s,
        "command_s": round(command_s, 2),
        "working_s": working_s,
        "published_s": round(published_s, 2),
        "published_opening_s": round(opened, 2),
        "times_faster": round(published_s / tokenising_s, 2),
        "times_faster_at_work": round(published_s / working_s, 2) if working_s else None,
        "times_faster_whole_command": round((published_s + opened) / command_s, 2),
        "command_figures": best.figures(),
        "units_finished_s": [round(at - best.start, 2) for at, _, _ in best.units],
        "processes": best.monitor.timeline(best.start),
        "all_tokenising_s": [one.summary["seconds"] for one in ran],
        "all_published_s": [round(one, 2) for one in spent],
    }


def _working_seconds(ran: Ran) -> float | None:
    """From when actors were seen to run units until the last unit was finished: without the start of Ray and of the
    tokenizer, which ``tokenising_s`` holds. To a quarter of a second."""
    seen = [one["first_s"] for one in ran.monitor.timeline(ran.start) if one["process"] == "ray::UnitActor.run"]
    return round(ran.units[-1][0] - ran.start - min(seen), 2) if seen else None
