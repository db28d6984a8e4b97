"""Progress of an evaluation: how far the source is that is measured now."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TextIO

from tqdm import tqdm

from pipelines.progress import Display


class SourceProgress:
    """Shows rates and the time left for one source.

    How many images a source holds is not known before it is read, so units are counted, or images where a limit
    says how many there will be.

    Args:
        name: what is measured, e.g. ``bsds500 (1 of 2)``.
        total: units, or images.
        unit: ``unit`` or ``image``.
        stream: where to write; a bar if it is a terminal.
    """

    def __init__(self, name: str, *, total: int, unit: str, stream: TextIO = sys.stderr) -> None:
        self._name, self._total, self._unit = name, total, unit
        self.num_done = self.num_images = self.num_masks = self.num_rejects = 0
        self._shown = 0
        self._display = Display(total, done=0, unit=unit, stream=stream)

    def __enter__(self) -> SourceProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._display.close(self._line() if self.num_images or self.num_rejects else None)

    @property
    def seconds(self) -> float:
        """Since the start of this source."""
        return self._display.seconds

    def did(self, number: int = 1) -> None:
        """Counts units or images that were read, whatever became of them; shown with the next image."""
        self.num_done += number

    def add(self, masks: int) -> None:
        """Counts a measured image."""
        self.num_images += 1
        self.num_masks += masks
        advanced, self._shown = self.num_done - self._shown, self.num_done
        self._display.advance(advanced, text=f"{self._name}: {self._rates()}", line=self._line)

    def _rates(self) -> str:
        images, masks = self.num_images / self.seconds, self.num_masks / self.seconds
        return f"{images:.1f} images/s, {masks:.1f} masks/s, {self.num_rejects:,} rejects"

    def _line(self) -> str:
        left = self.seconds * (self._total - self.num_done) / max(self.num_done, 1)
        until = f", {tqdm.format_interval(left)} left" if 0 < self.num_done < self._total else ""
        return f"{self._name}: {self.num_done:,} of {self._total:,} {self._unit}s, {self._rates()}{until}"
