"""Progress of a run: one bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

from tqdm import tqdm

from samtok_data.outputs import UnitEntry

LINE_EVERY_SECONDS = 10.0


class Display:
    """A bar on a terminal; elsewhere plain lines, one every ten seconds.

    Args:
        total: what there is to do, in ``unit``, with what was done before.
        done: what was done before.
        unit: its name for the bar.
        stream: where to write; a bar if it is a terminal.
    """

    def __init__(self, total: int, *, done: int, unit: str, stream: TextIO) -> None:
        self._stream = stream
        self._start = self._spoken = time.monotonic()
        self._bar = tqdm(total=total, initial=done, unit=unit, file=stream) if stream.isatty() else None

    @property
    def seconds(self) -> float:
        """Since the start, more than 0."""
        return max(time.monotonic() - self._start, 1e-9)

    def advance(self, number: int, *, text: str, line: Callable[[], str] | None) -> None:
        """Counts what was done.

        Args:
            number: done since the last call.
            text: stands behind the bar.
            line: makes the plain line, if one is due; None: none now.
        """
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(number)
        elif line is not None and time.monotonic() - self._spoken >= LINE_EVERY_SECONDS:
            self._spoken = time.monotonic()
            self._say(line())

    def close(self, line: str | None) -> None:
        """Ends the bar; elsewhere says a last line, or nothing."""
        if self._bar is not None:
            self._bar.close()
        elif line is not None:
            self._say(line)

    def _say(self, line: str) -> None:
        self._stream.write(f"{line}\n")  # not print, which Ray Train makes say it twice
        self._stream.flush()


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
        self._display = Display(units + done, done=done, unit="unit", stream=stream)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._display.close(self._line() if self.num_units else None)

    @property
    def seconds(self) -> float:
        """Since the start of this run."""
        return self._display.seconds

    def add(self, entry: UnitEntry, records: int) -> None:
        """Counts a finished unit, of which the plan expected so many records."""
        self.num_units += 1
        self.num_records += records
        self.num_images += entry.images
        self.num_masks += entry.masks
        self.num_rejects += sum(entry.rejects.values())
        is_last = self.num_units == self.units  # whose line is said at the end
        self._display.advance(1, text=self._rates(), line=None if is_last else self._line)

    def _rates(self) -> str:
        images, masks = self.num_images / self.seconds, self.num_masks / self.seconds
        return f"{images:.1f} images/s, {masks:.1f} masks/s, {self.num_rejects:,} rejects"

    def _line(self) -> str:
        left = self.seconds * (self.records - self.num_records) / max(self.num_records, 1)
        until = f", {tqdm.format_interval(left)} left" if self.num_units < self.units else ""
        return f"{self.num_units:,} of {self.units:,} units, {self._rates()}{until}"
