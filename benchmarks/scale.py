"""The mask sources at full size: planning, units, resume, the store's requests, bytes on the way.

    python -m benchmarks.scale [--out benchmarks/results/scale.json]
    python -m benchmarks.scale PART                              one part alone, in this process

Each part runs in a process of its own, on generated files; what it measured is printed as JSON. Wall times are of a
machine that does nothing else; CPU times count less what else it does. Nothing needs a network or a GPU.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import ray

from benchmarks import scale_parts as parts

Part = Callable[[Path], dict[str, Any]]

PARTS: dict[str, Part] = {
    "tars": parts.plan_tars,
    "pictures": parts.index_pictures,
    "units-1000": lambda folder: parts.run_units(folder, 1_000),
    "units-10000": lambda folder: parts.run_units(folder, 10_000),
    "waiting": parts.wait_among,
    "store": parts.count_requests,
    "reads": parts.count_reads,
    "payload": parts.measure_payloads,
    "table": parts.measure_tables,
}


def run_part(name: str) -> dict[str, Any]:
    """One part in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.scale", name]
    environment = {**os.environ, "RAY_DEDUP_LOGS": "0"}
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise click.ClickException(f"{name} failed:\n{done.stderr}")
    found = {"command": f"python -m benchmarks.scale {name}", **json.loads(done.stdout.splitlines()[-1])}
    print(f"{name} ({time.perf_counter() - start:.0f} s)")
    for label, value in found.items():
        print(f"  {label:<34} {value}")
    return found


@click.command()
@click.argument("part", type=click.Choice(list(PARTS)), required=False)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Also write the figures as JSON.")
def main(part: str | None, out: Path | None) -> None:
    """Measures one PART, or each in turn."""
    if part is not None:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(PARTS[part](Path(folder))))
        return
    versions = f"Python {platform.python_version()}, Ray {ray.__version__}"
    figures: dict[str, Any] = {
        "command": "python -m benchmarks.scale",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {versions}",
        **{name: run_part(name) for name in PARTS},
    }
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
