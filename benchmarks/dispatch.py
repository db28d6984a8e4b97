"""Ray Data over units against Ray actors and ray.wait: the comparison behind pipelines/actors.py.

    python -m benchmarks.dispatch [--units 10000] [--out benchmarks/results/dispatch.json]

Both run empty units on two actors that hold one CPU each, and both leave restarts and retries to Ray. Printed are
the time to the first result, the time to the last, and the driver's peak memory; each variant runs in a process of
its own.
"""

from __future__ import annotations

import json
import logging
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import ray

ACTORS = 2
RESTARTS: dict[str, Any] = {"num_cpus": 1, "max_restarts": 3, "max_task_retries": 3}


class EmptyUnit:
    """What is left of a unit when all work is taken out."""

    def run(self, index: int) -> dict[str, int]:
        """One unit."""
        return {"unit": index}

    def __call__(self, row: dict[str, Any]) -> dict[str, int]:
        """The same for Ray Data."""
        return self.run(int(row["unit"]))


def by_data(units: int) -> Iterator[Any]:
    """Ray Data: one block a unit, mapped over an actor pool."""
    ray.data.DataContext.get_current().enable_progress_bars = False
    rows = ray.data.from_items([{"unit": index} for index in range(units)], override_num_blocks=units)
    strategy = ray.data.ActorPoolStrategy(size=ACTORS, max_tasks_in_flight_per_actor=2)
    unit: Any = EmptyUnit
    yield from rows.map(unit, compute=strategy, **RESTARTS).iter_rows()


def by_actors(units: int) -> Iterator[Any]:
    """Ray actors and ray.wait, one unit in flight for each, as the product does it."""
    actor: Any = ray.remote(**RESTARTS)(EmptyUnit)
    waiting = iter(range(units))
    running = {}
    for handle in [actor.remote() for _ in range(ACTORS)]:
        running[handle.run.remote(next(waiting))] = handle
    while running:
        (done, *_), _ = ray.wait([*running], num_returns=1)
        handle = running.pop(done)
        index = next(waiting, None)
        if index is not None:
            running[handle.run.remote(index)] = handle
        yield ray.get(done)


VARIANTS = {"Ray Data": by_data, "actors": by_actors}


def measure(variant: str, units: int) -> dict[str, Any]:
    """Runs one variant in this process."""
    ray.init(
        address="local", num_cpus=ACTORS, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False
    )
    start = time.perf_counter()
    first, done = 0.0, 0
    for _ in VARIANTS[variant](units):
        done += 1
        first = first or time.perf_counter() - start
    last = time.perf_counter() - start
    ray.shutdown()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return {"variant": variant, "units": done, "first_s": round(first, 2), "last_s": round(last, 2), "peak_MiB": peak}


@click.command()
@click.option("--units", default=10_000, show_default=True)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Also write the figures as JSON.")
@click.option("--variant", type=click.Choice(list(VARIANTS)), hidden=True)
def main(units: int, out: Path | None, variant: str | None) -> None:
    """Compares both variants."""
    if variant is not None:
        print(json.dumps(measure(variant, units)))
        return
    command = [sys.executable, "-m", "benchmarks.dispatch", "--units", str(units), "--variant"]
    rows = []
    for name in VARIANTS:
        done = subprocess.run([*command, name], check=True, capture_output=True, text=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print("  ".join(f"{key} {value}" for key, value in rows[-1].items()))
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        machine = f"{platform.machine()}, Python {platform.python_version()}, Ray {ray.__version__}"
        result = {"command": f"python -m benchmarks.dispatch --units {units}", "machine": machine, "results": rows}
        out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
