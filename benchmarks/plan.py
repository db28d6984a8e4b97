"""Planning at the real size: `--dry-run` over 259,859 sentences, 20,000 images, 160,000 annotations.

    python -m benchmarks.plan [--out benchmarks/results/plan.json]

Writes generated files of gRefCOCO's size to a temporary folder, runs the command line on them in a process of its
own, and prints its wall time and peak memory. The goal is 60 s and 3 GB on two cores.
"""

from __future__ import annotations

import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

from tests.converters.grefs import write_full_size


@click.command()
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Also write the figures as JSON.")
def main(out: Path | None) -> None:
    """Measures one dry run over all splits."""
    with tempfile.TemporaryDirectory() as name:
        root = write_full_size(Path(name))
        size = sum(path.stat().st_size for path in (root / "grefcoco").iterdir())
        command = [sys.executable, "-m", "pipelines.cli", "tokenize", "--dataset", "gres", "--root", str(root)]
        command += ["--out", str(root / "out"), "--split", "all", "--dry-run", "--json"]
        start = time.perf_counter()
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    preview = json.loads(done.stdout)
    figures = {
        "command": "python -m benchmarks.plan",
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "annotation_bytes": size,
        "seconds": round(seconds, 2),
        "peak_bytes": peak,
        **{name: sum(split[name] for split in preview["splits"].values()) for name in ("images", "dialogues", "units")},
    }
    for name, value in figures.items():
        print(f"{name:>18}  {value}")
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
