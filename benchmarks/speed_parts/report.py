"""What every part writes: a table for people, and JSON with the machine that it was measured on."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_SOFTWARE = ("torch", "triton", "ray", "pillow", "pyarrow")


def machine() -> dict[str, Any]:
    """Processor, cores that this process may use, what else ran in the last minute, GPUs with driver, and versions."""
    software: dict[str, str | None] = {"python": platform.python_version()}
    for name in _SOFTWARE:
        try:
            software[name] = version(name)
        except PackageNotFoundError:
            software[name] = None
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load_of_last_minute": round(os.getloadavg()[0], 2),
        "gpus": gpus(),
        **software,
    }


def gpus() -> list[str]:
    """Name, driver and memory of each GPU, as nvidia-smi says them; empty where there is none."""
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"],
            check=True,
            capture_output=True,
            text=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return []
    return done.stdout.strip().splitlines()


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def write(out: Path | None, part: str, figures: Mapping[str, Any]) -> None:
    """Writes figures with machine, command and date; nothing where ``out`` is None."""
    if out is None:
        return
    value = {
        "part": part,
        "command": f"python -m benchmarks.speed {shlex.join(sys.argv[1:])}",
        "date": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "machine": machine(),
        **figures,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(value, indent=1) + "\n")


def show(rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints rows of the same fields as a table; fields that hold lists or objects are left out."""
    if not rows:
        return
    names = [name for name in rows[0] if not isinstance(rows[0][name], dict | list | tuple)]
    cells = [names, *([_shown(row.get(name)) for name in names] for row in rows)]
    widths = [max(len(line[place]) for line in cells) for place in range(len(names))]
    for line in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)).rstrip(), flush=True)


def show_figures(title: str, figures: Mapping[str, Any]) -> None:
    """Prints one figure a line; lists and objects are left out."""
    print(title)
    for name, value in figures.items():
        if not isinstance(value, dict | list | tuple):
            print(f"  {name:<38} {_shown(value)}", flush=True)


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
