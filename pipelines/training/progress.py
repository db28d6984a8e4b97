"""Progress of a training run: one bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import TracebackType
from typing import SupportsFloat, TextIO

from tqdm import tqdm

from pipelines.progress import Display

# What is shown of the values that a step logs, in this order.
_SHOWN = {"loss": "loss {:.4g}", "masks_per_second": "{:,.0f} masks/s", "r_iou": "r-IoU {:.4f}"}


class TrainingProgress:
    """Shows the step, the last logged loss and speed, the last validation and the time left.

    Args:
        total_steps: of the whole training.
        done: steps that earlier starts of the run made.
        stream: where to write; a bar if it is a terminal.
    """

    def __init__(self, total_steps: int, *, done: int = 0, stream: TextIO = sys.stderr) -> None:
        self._total_steps, self._first, self._step = total_steps, done, done
        self._values: dict[str, float] = {}
        self._display = Display(total_steps, done=done, unit="step", stream=stream)

    def __enter__(self) -> TrainingProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._display.close(self._line() if self._step > self._first else None)

    def advance(self, step: int, values: Mapping[str, SupportsFloat] | None = None) -> None:
        """Tells that a step was made; cheap enough for every step.

        Args:
            step: the number of steps made so far; may be told twice, as when a validation follows the step.
            values: what the step logged, if anything; what is not shown is passed over.
        """
        self._values |= {name: float(value) for name, value in (values or {}).items() if name in _SHOWN}
        number, self._step = step - self._step, step
        is_last = step == self._total_steps  # whose line is said at the end, with its validation
        self._display.advance(number, text=self._text(), line=None if is_last else self._line)

    def _text(self) -> str:
        return ", ".join(form.format(self._values[name]) for name, form in _SHOWN.items() if name in self._values)

    def _line(self) -> str:
        parts = [f"step {self._step:,} of {self._total_steps:,}", self._text()]
        if self._step < self._total_steps:
            # Validations and checkpoints are part of the time, as they will be of what is left.
            seconds = self._display.seconds * (self._total_steps - self._step) / max(self._step - self._first, 1)
            parts.append(f"{tqdm.format_interval(seconds)} left")
        return ", ".join(part for part in parts if part)
