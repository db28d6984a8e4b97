"""The log of a training run: ``metrics.csv``, TensorBoard events, ``curves.png`` and sheets of reconstructions.

OUT/metrics.csv                  one line a logged step; whole at any moment
OUT/curves.png                   the same as curves, drawn anew at each validation
OUT/sheets/step-00001000.png     reconstructions of the same few validation masks
OUT/tensorboard/events.out...    the same for TensorBoard, one file for each start of the run
"""

from __future__ import annotations

import importlib.util
import itertools
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import SupportsFloat

import numpy as np
from PIL import Image

from pipelines.drawing import png
from pipelines.training.metrics import STEP, Rows, format_rows, number_of, parse_rows
from samtok_data.errors import SetupError
from samtok_data.storage import Folder

logger = logging.getLogger(__name__)

METRICS = "metrics.csv"
CURVES = "curves.png"
SHEETS = "sheets"
EVENTS = "tensorboard"


class TrainingLog:
    """What a person sees of a training run; used by one process of it (rank 0).

    Rows are kept in memory and written by ``flush``. **Flush before a checkpoint is written**: a resumed run goes
    on from the rows that lie in the folder, so what was logged before its checkpoint must be there. It drops those
    that were logged after it, and so ends with the file of a run that was never interrupted (but for rates).

    Args:
        out: the run's folder, on a local disk or in an object store.
        resume_step: the step of the checkpoint that the run goes on from; 0: it begins, and a log that lies there
            is replaced (TensorBoard's events of an earlier start stay, and are not shown any more).
        codebook_size: codes of each level, drawn as a line beside the codes used; None: no line.

    Raises:
        SetupError: ``metrics.csv`` is damaged or cannot be read, or the extra ``train`` is not installed.
    """

    def __init__(self, out: Folder, *, resume_step: int, codebook_size: int | None = None) -> None:
        _require("matplotlib", "tensorboard")
        self._out = out
        self._codebook_size = codebook_size
        self._rows = _earlier_rows(out, resume_step)
        self._is_written = False
        # The first step that this start may log: TensorBoard hides what an earlier start logged from there on.
        self._events = _Events(out, purge_step=resume_step + 1 if resume_step else 0)

    def __enter__(self) -> TrainingLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def rows(self) -> Mapping[int, Mapping[str, float]]:
        """The logged values by step, those of earlier starts included."""
        return self._rows

    def add(self, step: int, values: Mapping[str, SupportsFloat]) -> None:
        """Logs values of a step; what was logged of the same step before stays beside them.

        Args:
            step: not below the last one, at least 0.
            values: by name; the names may differ from step to step. Tensors of one element are numbers too.

        Raises:
            ValueError: a step below the last one, or a value named ``step``.
        """
        last = next(reversed(self._rows), 0)
        if step < last:
            raise ValueError(f"expected a step from {last} on, got {step}")
        if STEP in values:
            raise ValueError(f"expected other names than {STEP!r}")
        numbers = {name: number_of(value) for name, value in values.items()}
        self._rows.setdefault(step, {}).update(numbers)
        self._is_written = False
        self._events.add_numbers(step, numbers)

    def add_sheet(self, step: int, sheet: Image.Image) -> None:
        """Writes a sheet of reconstructions to ``sheets/`` and shows it in TensorBoard.

        Raises:
            OSError: it could not be written.
        """
        self._out.write(f"{SHEETS}/step-{step:08d}.png", png(sheet))
        self._events.add_picture(step, "reconstructions", sheet)

    def flush(self) -> None:
        """Writes what was logged since the last flush.

        Raises:
            OSError: it could not be written; the older file is whole, and the next flush tries again.
        """
        if not self._is_written:
            self._out.write(METRICS, format_rows(self._rows))
            self._is_written = True
        self._events.flush()

    def curves(self) -> None:
        """Draws all rows as curves, to ``curves.png``; equal rows give equal bytes.

        Raises:
            OSError: it could not be written.
        """
        from pipelines.training.curves import curves_png  # matplotlib takes a second to load

        self._out.write(CURVES, curves_png(self._rows, codebook_size=self._codebook_size))

    def close(self) -> None:
        """Flushes, and ends TensorBoard's thread; a second call does nothing.

        Raises:
            OSError: the rows could not be written; the thread is ended all the same.
        """
        try:
            if not self._events.is_closed:
                self.flush()
        finally:
            self._events.close()


class _Events:
    """TensorBoard's event file of one start of a run.

    The library appends to a local file. For an object store that file lies in a temporary folder and is uploaded
    whole by ``flush``; a killed run loses the events since its last flush, as it does its rows.
    """

    def __init__(self, out: Folder, *, purge_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.is_closed = False
        self._out = out
        self._uploaded: dict[str, int] = {}
        self._temporary = None if out.is_local else tempfile.TemporaryDirectory(prefix="samtok-events-")
        self._folder = Path(out.path) / EVENTS if self._temporary is None else Path(self._temporary.name)
        try:
            self._writer = SummaryWriter(str(self._folder), purge_step=purge_step)
        except OSError as error:
            raise SetupError(f"--out {out}: TensorBoard's events cannot be written there: {error}") from error

    def add_numbers(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def add_picture(self, step: int, name: str, picture: Image.Image) -> None:
        self._writer.add_image(name, np.asarray(picture.convert("RGB")), step, dataformats="HWC")

    def flush(self) -> None:
        self._writer.flush()
        if self._temporary is None:
            return
        for path in sorted(self._folder.iterdir()):
            data = path.read_bytes()
            if self._uploaded.get(path.name) != len(data):  # the file only ever grows
                self._out.write(f"{EVENTS}/{path.name}", data)
                self._uploaded[path.name] = len(data)

    def close(self) -> None:
        self.is_closed = True
        self._writer.close()
        if self._temporary is not None:
            self._temporary.cleanup()


def _require(*packages: str) -> None:
    """Tells at the start what would otherwise end the run at its first validation."""
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise SetupError(f"training needs {' and '.join(missing)}: install the extra, pip install 'samtok-data[train]'")


def _earlier_rows(out: Folder, resume_step: int) -> Rows:
    """The rows up to the checkpoint; later ones were logged by a run that died before its next checkpoint."""
    if resume_step == 0:
        return {}
    try:
        rows = parse_rows(out.read(METRICS))
    except FileNotFoundError:
        logger.warning("%s holds no %s: its rows and curves begin at step %d", out, METRICS, resume_step)
        return {}
    except OSError as error:
        raise SetupError(f"{out}/{METRICS} cannot be read: {error}") from error
    except ValueError as error:
        raise SetupError(
            f"{out}/{METRICS} was cut or changed by something else: {error}; put a copy in its place, or remove it "
            f"and the run goes on with rows and curves from step {resume_step}"
        ) from error
    kept = {step: row for step, row in rows.items() if step <= resume_step}
    steps = [0, *kept]
    usual_gap = max((later - step for step, later in itertools.pairwise(steps)), default=0)
    if resume_step - steps[-1] > 2 * usual_gap:
        logger.warning("%s/%s lacks the rows from step %d to %d", out, METRICS, steps[-1], resume_step)
    return kept
