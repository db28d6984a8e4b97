"""Watches a command while it runs: GPUs, processor time, memory, and which processes there were.

GPU figures are nvidia-smi's, one every 200 ms; its share of busy time is that in which some kernel ran. Processor time
and memory are those of the command's process and all its descendants, which Ray's are.
"""

from __future__ import annotations

import os
import re
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_GPU_EVERY_MS = 200
_PROCESSES_EVERY = 0.25
_MEMORY_EVERY = 1.0
_TICKS = os.sysconf("SC_CLK_TCK")
COMMAND = "command"
"""The name of the process that is watched itself."""
_RAY = re.compile(r"ray::[\w.]+")


@dataclass(slots=True)
class Process:
    """What was seen of a process.

    Attributes:
        titles: its names, with when each was seen first and last.
        seconds: processor seconds at each time.
    """

    titles: dict[str, list[float]] = field(default_factory=dict)
    seconds: list[tuple[float, float]] = field(default_factory=list)

    @property
    def title(self) -> str:
        """The last name, without the method that Ray's actors show."""
        return list(self.titles)[-1].partition(".")[0] if self.titles else "ended at once"

    def used(self, start: float, end: float) -> float:
        """Processor seconds between two times."""
        inside = [spent for at, spent in self.seconds if start <= at <= end]
        return inside[-1] - inside[0] if inside else 0.0


@dataclass(slots=True)
class Machine:
    """Processor seconds of the whole machine, and memory of the processes, at some times."""

    busy: list[tuple[float, float]] = field(default_factory=list)
    memory: list[tuple[float, int, dict[str, int]]] = field(default_factory=list)


class Monitor:
    """Watches a process and its descendants until it is closed. A context manager; times are ``time.time()``.

    Args:
        pid: of the process.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.processes: dict[int, Process] = defaultdict(Process)
        self.machine = Machine()
        self.gpu: list[tuple[float, int, float, float]] = []  # time, GPU, busy %, MiB
        self._stop = threading.Event()
        self._smi = _nvidia_smi()
        self._threads = [threading.Thread(target=self._watch_processes, daemon=True)]
        if self._smi is not None:
            self._threads.append(threading.Thread(target=self._watch_gpus, daemon=True))

    def __enter__(self) -> Monitor:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        if self._smi is not None:
            self._smi.terminate()
        for thread in self._threads:
            thread.join()
        if self._smi is not None:
            self._smi.wait()
            if self._smi.stdout is not None:
                self._smi.stdout.close()

    def between(self, start: float, end: float) -> dict[str, Any]:
        """Figures of a span, for a report; None where nothing was to be seen."""
        by_title: dict[str, float] = defaultdict(float)
        for process in self.processes.values():
            by_title[process.title] += process.used(start, end)
        seconds = max(end - start, 1e-9)
        busy = [spent for at, spent in self.machine.busy if start <= at <= end]
        memory = [(total, by) for at, total, by in self.machine.memory if at <= end]
        most = max(memory, key=lambda one: one[0], default=(None, {}))
        return {
            "span_s": round(seconds, 2),
            **self._gpu_between(start, end),
            "cpu_cores_used": round(sum(by_title.values()) / seconds, 2),
            "machine_cores_used": round((busy[-1] - busy[0]) / seconds, 2) if busy else None,
            "peak_memory_mib": most[0],
            "cores_by_process": {
                title: round(spent / seconds, 3)
                for title, spent in sorted(by_title.items(), key=lambda one: -one[1])
                if spent / seconds > 0.005
            },
            "memory_mib_by_process": most[1],
        }

    def _gpu_between(self, start: float, end: float) -> dict[str, Any]:
        inside = [(gpu, busy) for at, gpu, busy, _ in self.gpu if start <= at <= end]
        shares = {gpu: [busy for of, busy in inside if of == gpu] for gpu in sorted({gpu for gpu, _ in inside})}
        return {
            "gpu_busy_percent": round(sum(busy for _, busy in inside) / len(inside), 1) if inside else None,
            "gpu_busy_percent_each": {str(gpu): round(sum(of) / len(of), 1) for gpu, of in shares.items()},
            "gpu_peak_mib": max((mib for _, _, _, mib in self.gpu), default=None),
        }

    def timeline(self, start: float) -> list[dict[str, Any]]:
        """Names of processes with the seconds after ``start`` in which they were seen, by their first appearance."""
        seen: dict[str, list[float]] = {}
        for process in self.processes.values():
            for title, (first, last) in process.titles.items():
                known = seen.setdefault(title, [first, last])
                known[:] = min(known[0], first), max(known[1], last)
        return [
            {"process": title, "first_s": round(first - start, 2), "last_s": round(last - start, 2)}
            for title, (first, last) in sorted(seen.items(), key=lambda one: one[1])
        ]

    def _watch_gpus(self) -> None:
        if self._smi is None or self._smi.stdout is None:
            return
        for line in self._smi.stdout:
            with suppress(ValueError):  # "[N/A]" of a card that does not say it
                gpu, busy, mib = (float(word) for word in line.split(","))
                self.gpu.append((time.time(), int(gpu), busy, mib))

    def _watch_processes(self) -> None:
        asked = 0.0
        while not self._stop.wait(_PROCESSES_EVERY):
            now = time.time()
            alive = _descendants(self.pid)
            for pid, seconds in alive.items():
                process = self.processes[pid]
                process.seconds.append((now, seconds))
                title = COMMAND if pid == self.pid else _title(pid)
                if title is not None:
                    process.titles.setdefault(title, [now, now])[1] = now
            self.machine.busy.append((now, _machine_seconds()))
            if now - asked >= _MEMORY_EVERY:
                asked = now
                self._look_at_memory(now, alive)

    def _look_at_memory(self, now: float, alive: Mapping[int, float]) -> None:
        by_title: dict[str, int] = defaultdict(int)
        for pid in alive:
            if self.processes[pid].titles:
                by_title[self.processes[pid].title] += _memory_mib(pid)
        self.machine.memory.append((now, sum(by_title.values()), dict(by_title)))


def _nvidia_smi() -> subprocess.Popen[str] | None:
    query = "--query-gpu=index,utilization.gpu,memory.used"
    command = ["nvidia-smi", query, "--format=csv,noheader,nounits", "-lms", str(_GPU_EVERY_MS)]
    try:
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    except OSError:
        return None


def _descendants(root: int) -> dict[int, float]:
    """The process and what it started, directly or not, with the processor seconds of each."""
    parents: dict[int, int] = {}
    seconds: dict[int, float] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError, IndexError):  # it ended meanwhile
                # The name, in brackets, may hold spaces.
                words = (folder / "stat").read_text().rpartition(")")[2].split()
                parents[int(folder.name)] = int(words[1])
                seconds[int(folder.name)] = (int(words[11]) + int(words[12])) / _TICKS
    found = {root} & seconds.keys()
    while more := {pid for pid, parent in parents.items() if parent in found and pid not in found}:
        found |= more
    return {pid: seconds[pid] for pid in found}


def _title(pid: int) -> str | None:
    """What Ray calls its process, with the method that it runs; else the program or Python file that runs."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return None
    called = _RAY.match(words[0])
    if called:
        return called[0]
    scripts = [word for word in words if word.endswith(".py")]
    return os.path.basename(scripts[0] if scripts else words[0]) or None


def _memory_mib(pid: int) -> int:
    """Resident memory; what is shared counts for each of its owners in part, where the system says so."""
    for file, name in (("smaps_rollup", "Pss:"), ("status", "VmRSS:")):
        with suppress(OSError):
            for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
                if line.startswith(name):
                    return int(line.split()[1]) // 1024
    return 0


def _machine_seconds() -> float:
    """Processor seconds that were not idle, of all cores."""
    words = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    return (sum(words[:8]) - words[3] - words[4]) / _TICKS
