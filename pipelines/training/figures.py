"""The figures of a run while it trains: rates, the lines of its log, and its progress."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from types import TracebackType

from PIL import Image

from pipelines.training.logs import TrainingLog
from pipelines.training.progress import TrainingProgress
from pipelines.training.settings import TrainSettings
from samtok_data.storage import Folder
from tokenizer_model.training.optimiser import StepReport


class Figures:
    """Rates, and what the first worker shows of the run; on the others only the rates.

    Args:
        settings: of the run.
        out: its folder.
        first: steps that an earlier start made.
        steps: of the whole run.
        is_first: whether this worker shows anything.
    """

    def __init__(self, settings: TrainSettings, out: Folder, first: int, steps: int, *, is_first: bool) -> None:
        size = settings.recipe.config.codebook_size
        self._log = TrainingLog(out, resume_step=first, codebook_size=size) if is_first else None
        self._progress = TrainingProgress(steps, first) if is_first else None
        self._masks = self._steps = 0
        self._busy = self._stretch = 0.0  # seconds in steps: of this start, and since the last line
        self._since = time.monotonic()

    def __enter__(self) -> Figures:
        if self._progress is not None:
            self._progress.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.__exit__(kind, error, trace)
        if self._log is not None:
            self._log.close()

    @property
    def seconds(self) -> float:
        """In steps since this start; validation and saving do not count."""
        return self._busy

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """A block whose time does not count."""
        self._lap()
        try:
            yield
        finally:
            self._lap(counts=False)

    def count(self, report: StepReport) -> None:
        """Notes a step."""
        self._masks += report.num_masks
        self._steps += 1
        self._lap()

    def add(self, step: int, report: StepReport) -> None:
        """A line of the log."""
        row = {
            "loss": report.terms["loss"],
            **{f"loss_{name}": report.terms[name] for name in ("bce", "dice", "commitment")},
            "learning_rate": report.learning_rate,
            "grad_norm": report.grad_norm,
            "masks_per_second": self._masks / max(self._stretch, 1e-9),
            "steps_per_second": self._steps / max(self._stretch, 1e-9),
        }
        use = report.use
        for name, values in (("used", use.used), ("perplexity", use.perplexity), ("restarted", use.restarted)):
            row |= {f"{name}_{level}": value for level, value in enumerate(values)}
        if self._log is not None:
            self._log.add(step, row)
        if self._progress is not None:
            self._progress.update(step, loss=row["loss"], masks_per_second=row["masks_per_second"])
        self._masks, self._steps, self._stretch = 0, 0, 0.0

    def add_validation(self, step: int, measured: Mapping[str, float], sheet: Image.Image | None) -> None:
        """The figures of a validation, its sheet, and the curves drawn anew."""
        if self._log is None or self._progress is None:
            return
        self._log.add(step, measured)
        if sheet is not None:
            self._log.add_sheet(step, sheet)
        self._log.flush()
        self._log.curves()
        self._progress.validated(measured["r_iou"])

    def flush(self) -> None:
        """Writes the log."""
        if self._log is not None:
            self._log.flush()

    def draw(self) -> None:
        """Draws the curves anew, where no validation does."""
        if self._log is not None:
            self._log.curves()

    def _lap(self, *, counts: bool = True) -> None:
        now = time.monotonic()
        if counts:
            self._busy += now - self._since
            self._stretch += now - self._since
        self._since = now
