"""Runs of the command beside each other: on one GPU and on all, on more and more work, and from its very start."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.speed_parts.command import Ran, RunSettings, run_command
from benchmarks.speed_parts.data import Data, make
from benchmarks.speed_parts.density import files_to_files
from benchmarks.speed_parts.monitor import COMMAND

_MIB_OF = {"driver": COMMAND, "actors": "ray::"}


def on_gpus(data: Data, root: Path, folder: Path, settings: RunSettings, gpus: int) -> dict[str, Any]:
    """The same files on one GPU and on all; the ratios of the rates.

    Args:
        data: the dataset.
        root: where it lies.
        folder: for outputs.
        settings: of the command.
        gpus: that the machine has.
    """
    rows = []
    for number in sorted({1, max(gpus, 1)}):
        figures, _ = files_to_files(data, root, folder, replace(settings, gpus=tuple(range(number))))
        rows.append({"gpus": number, **figures})
    found: dict[str, Any] = {"runs": rows}
    if gpus < 2:
        found["skipped"] = f"GPUs of this machine: {gpus}; there is nothing to compare one with"
        return found
    for name in ("masks_per_second", "command_masks_per_second", "span_masks_per_second"):
        found[f"times_{name}"] = round(rows[1][name] / rows[0][name], 3)
    return found


def growth(start: Data, folder: Path, settings: RunSettings, doublings: int, masks: Sequence[int]) -> dict[str, Any]:
    """Seconds and memory as one thing grows and the others stay: images, masks of an image, pixels of an image.

    Args:
        start: the smallest dataset.
        folder: for data and outputs.
        settings: of the command.
        doublings: of the images.
        masks: of an image, one series.
    """
    middle = replace(start, images=start.images * 2 ** (doublings // 2))
    series = {
        "images": [replace(start, images=start.images * 2**power) for power in range(doublings + 1)],
        "masks": [replace(middle, masks=number) for number in masks],
        "pixels": [
            replace(middle, height=int(start.height * scale), width=int(start.width * scale)) for scale in (0.5, 1, 2)
        ],
    }
    return {name: [_grown(data, folder, settings) for data in of] for name, of in series.items()}


def _grown(data: Data, folder: Path, settings: RunSettings) -> dict[str, Any]:
    root = folder / "data"
    make(data, root)
    try:
        figures, ran = files_to_files(data, root, folder, settings)
    finally:
        shutil.rmtree(root)
    return {
        "images": data.images,
        "masks_per_image": data.masks,
        "height": data.height,
        "width": data.width,
        "tokenising_s": figures["tokenising_s"],
        "command_s": figures["command_s"],
        "ms_an_image": round(1000 * figures["tokenising_s"] / max(ran.images, 1), 2),
        "span_images_per_second": figures["span_images_per_second"],
        "span_masks_per_second": figures["span_masks_per_second"],
        **_memory(ran),
        "gpu_peak_mib": figures["gpu_peak_mib"],
    }


def _memory(ran: Ran) -> dict[str, int]:
    """Peak memory of the command's own process, of all its actors, and of everything."""
    seen = [by_title for _, _, by_title in ran.monitor.machine.memory]
    found = {
        f"{name}_mib": max((sum(mib for of, mib in one.items() if of.startswith(title)) for one in seen), default=0)
        for name, title in _MIB_OF.items()
    }
    return {**found, "all_mib": max((total for _, total, _ in ran.monitor.machine.memory), default=0)}


def startup(data: Data, root: Path, settings: RunSettings, runs: int) -> list[dict[str, Any]]:
    """From the command to the first finished unit, some times over; the first may find nothing cached.

    Args:
        data: the dataset.
        root: where it lies.
        settings: of the command.
        runs: how often.
    """
    rows = []
    for number in range(runs):
        with tempfile.TemporaryDirectory() as name:
            ran = run_command(data, root, Path(name) / "out", settings)
        first_images = ran.units[0][1]
        rows.append({
            "run": number + 1,
            "ray_s": _first_seen(ran, "raylet"),
            "planned_s": round(ran.begun - ran.start, 2),
            "actors_s": _first_seen(ran, "ray::"),
            "first_unit_s": round(ran.units[0][0] - ran.start, 2),
            "images_of_unit": first_images,
            "command_s": round(ran.seconds, 2),
            "processes": ran.monitor.timeline(ran.start),
            "said": [[round(at - ran.start, 2), line] for at, line in ran.said],
        })
    return rows


def _first_seen(ran: Ran, prefix: str) -> float | None:
    """Seconds until a process of a name was there; Ray's idle workers are none."""
    times = [
        one["first_s"]
        for one in ran.monitor.timeline(ran.start)
        if one["process"].startswith(prefix) and "IDLE" not in one["process"] and "Agent" not in one["process"]
    ]
    return min(times, default=None)
