"""Progress of a run: one bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TextIO

from tqdm import tqdm

from samtok_data.outputs import UnitEntry

LINE_EVERY_SECONDS = 10.0


class Progress:
    """Counts finished units and shows rates and the time left.

    Args:
        units: to be run now.
        records: in those units.
        done: units that an earlier run finished.
        stream: where to write; a bar if it is a terminal.
    """

    def __init__(self, units: int, records: int, *, done: int = 0, stream: TextIO = sys.stderr) -> None:
        self.units, self.records = units, records
        self.num_units = self.num_records = self.num_images = self.num_masks = self.num_rejects = 0
        self._stream = stream
        self._start = self._spoken = time.monotonic()
        self._bar = tqdm(total=units + done, initial=done, unit="unit", file=stream) if stream.isatty() else None

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self.num_units:
            self._speak()

    @property
    def seconds(self) -> float:
        """Since the start of this run."""
        return max(time.monotonic() - self._start, 1e-9)

    def add(self, entry: UnitEntry) -> None:
        """Counts a finished unit."""
        self.num_units += 1
        self.num_records += entry.records
        self.num_images += entry.images
        self.num_masks += entry.masks
        self.num_rejects += sum(entry.rejects.values())
        if self._bar is not None:
            self._bar.set_postfix_str(self._rates(), refresh=False)
            self._bar.update()
        elif time.monotonic() - self._spoken >= LINE_EVERY_SECONDS and self.num_units < self.units:
            self._spoken = time.monotonic()
            self._speak()

    def _rates(self) -> str:
        images, masks = self.num_images / self.seconds, self.num_masks / self.seconds
        return f"{images:.1f} images/s, {masks:.1f} masks/s, {self.num_rejects:,} rejects"

    def _speak(self) -> None:
        left = self.seconds * (self.records - self.num_records) / max(self.num_records, 1)
        until = f", {tqdm.format_interval(left)} left" if self.num_units < self.units else ""
        print(f"{self.num_units:,} of {self.units:,} units, {self._rates()}{until}", file=self._stream, flush=True)
