"""Progress of a training run: one bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TextIO

from tqdm import tqdm

from pipelines.progress import Display


class TrainingProgress:
    """Shows the step, the last logged loss and speed, the last validation and the time left.

    Args:
        total_steps: of the whole run.
        done: steps that earlier starts of the run made.
        stream: where to write; a bar if it is a terminal.
    """

    def __init__(self, total_steps: int, done: int = 0, stream: TextIO = sys.stderr) -> None:
        self._total_steps, self._first, self._step = total_steps, done, done
        self._values: dict[str, str] = {}
        self._display = Display(total_steps, done=done, unit="step", stream=stream)

    def __enter__(self) -> TrainingProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._display.close(self._line() if self._step > self._first else None)

    def update(self, step: int, *, loss: float, masks_per_second: float) -> None:
        """Shows a logged step.

        Args:
            step: steps made so far, of all starts.
            loss: of that step.
            masks_per_second: since the last one.
        """
        number, self._step = step - self._step, step
        self._values |= {"loss": f"loss {loss:.4g}", "speed": f"{masks_per_second:,.0f} masks/s"}
        self._show(number)

    def validated(self, r_iou: float) -> None:
        """Shows the result of a validation from now on."""
        self._values["r_iou"] = f"r-IoU {r_iou:.4f}"
        self._show(0)

    def _show(self, number: int) -> None:
        is_last = self._step == self._total_steps  # whose line is said at the end, with its validation
        self._display.advance(number, text=self._text(), line=None if is_last else self._line)

    def _text(self) -> str:
        return ", ".join(self._values[name] for name in ("loss", "speed", "r_iou") if name in self._values)

    def _line(self) -> str:
        parts = [f"step {self._step:,} of {self._total_steps:,}", self._text()]
        if self._step < self._total_steps:
            # Validations and checkpoints are part of the time, as they will be of what is left.
            seconds = self._display.seconds * (self._total_steps - self._step) / max(self._step - self._first, 1)
            parts.append(f"{tqdm.format_interval(seconds)} left")
        return ", ".join(part for part in parts if part)
