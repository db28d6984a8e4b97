"""``samtok-data tokenize`` on made data, watched: rates over its tokenising, over the whole command, and in between."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.speed_parts.data import Data
from benchmarks.speed_parts.monitor import Monitor

_LINES_SHOWN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """How the command is run.

    Attributes:
        tokenizer: as ``--tokenizer`` takes it.
        precision: as ``--precision`` takes it.
        masks_per_image: of SA-1B; None: all.
        gpus: numbers of those to be seen; None: all.
        more: further options of the command, as words.
    """

    tokenizer: str
    precision: str = "fp32"
    masks_per_image: int | None = None
    gpus: tuple[int, ...] | None = None
    more: tuple[str, ...] = ()


@dataclass(slots=True)
class Ran:
    """A run of the command that ended well. Times are ``time.time()``.

    Attributes:
        start: of the process.
        end: of the process.
        summary: of the run, as its file holds it.
        units: when each unit was finished, with its images and masks; by time.
        begun: when the first file of the run was written.
        said: the lines of its log, with their times.
        monitor: what was watched.
    """

    start: float
    end: float
    summary: dict[str, Any]
    units: list[tuple[float, int, int]]
    begun: float
    said: list[tuple[float, str]]
    monitor: Monitor

    @property
    def seconds(self) -> float:
        """Of the whole command."""
        return self.end - self.start

    @property
    def images(self) -> int:
        """That were tokenised."""
        return sum(images for _, images, _ in self.units)

    @property
    def masks(self) -> int:
        """That were tokenised."""
        return sum(masks for _, _, masks in self.units)

    def figures(self) -> dict[str, Any]:
        """For a report. The span is from the first finished unit to the last; its masks those finished after the
        first, so with many units in flight it says a little too much, and with few, too little."""
        first, last = self.units[0][0], self.units[-1][0]
        span = max(last - first, 1e-9)
        later = self.units[1:]
        return {
            "images": self.images,
            "masks": self.masks,
            "tokenising_s": self.summary["seconds"],
            "images_per_second": round(self.images / self.summary["seconds"], 4),
            "masks_per_second": round(self.masks / self.summary["seconds"], 2),
            "command_s": round(self.seconds, 2),
            "command_images_per_second": round(self.images / self.seconds, 2),
            "command_masks_per_second": round(self.masks / self.seconds, 1),
            "to_first_unit_s": round(first - self.start, 2),
            "span_images_per_second": round(sum(images for _, images, _ in later) / span, 2) if later else None,
            "span_masks_per_second": round(sum(masks for _, _, masks in later) / span, 1) if later else None,
            **self.monitor.between(first if later else self.start, last),
            "summary": self.summary,
        }


def run_command(data: Data, root: Path, out: Path, settings: RunSettings) -> Ran:
    """Runs the command over all of a made dataset.

    Args:
        data: the dataset.
        root: where it lies.
        out: a folder that is not there yet.
        settings: the rest.

    Raises:
        RuntimeError: the command failed; the end of its log is in the message.
    """
    words = ["--dataset", data.kind, "--root", str(root), "--out", str(out), "--tokenizer", settings.tokenizer]
    words += ["--precision", settings.precision]
    if data.kind == "sa1b":
        words += ["--option", f"masks_per_image={json.dumps(settings.masks_per_image)}"]
    return run_words([*words, *settings.more], out, gpus=settings.gpus)


def run_words(words: Sequence[str], out: Path, *, gpus: Sequence[int] | None = None) -> Ran:
    """Runs ``samtok-data tokenize`` with these options; ``out`` is where they write. Raises as ``run_command``."""
    environment = dict(os.environ)
    if gpus is not None:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, gpus))
    start = time.time()
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", "tokenize", *words],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    said: list[tuple[float, str]] = []
    listener = threading.Thread(target=_listen, args=(process, said), daemon=True)
    with Monitor(process.pid) as monitor:
        listener.start()
        code = process.wait()
        end = time.time()
        listener.join()
    if code:
        text = "\n".join(line for _, line in said[-_LINES_SHOWN:])
        raise RuntimeError(f"samtok-data tokenize ended with {code}:\n{text}")
    (summary,) = out.glob("*/.samtok/summary.json")
    begun = min(path.stat().st_mtime for path in out.glob("*/*/.samtok/run.json"))
    return Ran(start, end, json.loads(summary.read_text()), _units(out), begun, said, monitor)


def _listen(process: subprocess.Popen[str], said: list[tuple[float, str]]) -> None:
    if process.stderr is not None:
        with process.stderr:
            for line in process.stderr:
                said.append((time.time(), line.rstrip()))


def _units(out: Path) -> list[tuple[float, int, int]]:
    found = []
    for path in out.glob("*/*/.samtok/units/*.json"):
        entry: Mapping[str, Any] = json.loads(path.read_text())
        found.append((path.stat().st_mtime, int(entry["images"]), int(entry["masks"])))
    return sorted(found)


def output_bytes(out: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
