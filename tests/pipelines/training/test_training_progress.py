"""Progress of a training run on a terminal and elsewhere."""

from __future__ import annotations

import io

import pytest

from pipelines import progress
from pipelines.training.progress import TrainingProgress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that the test moves."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_lines_where_there_is_no_terminal(clock: list[float]) -> None:
    stream = io.StringIO()
    with TrainingProgress(60_000, 1000, stream) as shown:
        clock[0] += 600.0
        shown.update(2000, loss=0.61237, masks_per_second=1700)
        clock[0] += 600.0
        shown.update(3000, loss=0.51237, masks_per_second=1833.3)
        clock[0] += 10.0
        shown.validated(0.71218)
        clock[0] += 9.0
        shown.validated(0.8)
    assert stream.getvalue().splitlines() == [
        "step 2,000 of 60,000, loss 0.6124, 1,700 masks/s, 9:40:00 left",
        "step 3,000 of 60,000, loss 0.5124, 1,833 masks/s, 9:30:00 left",
        "step 3,000 of 60,000, loss 0.5124, 1,833 masks/s, r-IoU 0.7122, 9:34:45 left",
        "step 3,000 of 60,000, loss 0.5124, 1,833 masks/s, r-IoU 0.8000, 9:39:01 left",
    ]


def test_the_last_line_is_said_once_with_the_last_validation(clock: list[float]) -> None:
    stream = io.StringIO()
    with TrainingProgress(2, 0, stream) as shown:
        for step in (1, 2):
            clock[0] += 20.0
            shown.update(step, loss=1 / step, masks_per_second=3)
        clock[0] += 20.0
        shown.validated(0.25)
    assert stream.getvalue().splitlines() == [
        "step 1 of 2, loss 1, 3 masks/s, 00:20 left",
        "step 2 of 2, loss 0.5, 3 masks/s, r-IoU 0.2500",
    ]


def test_lines_are_rare(clock: list[float]) -> None:
    stream = io.StringIO()
    with TrainingProgress(1000, 0, stream) as shown:
        for step in range(1, 1001):
            clock[0] += 0.1
            shown.update(step, loss=1.0, masks_per_second=1.0)
    assert 8 <= len(stream.getvalue().splitlines()) <= 11


def test_one_bar_on_a_terminal() -> None:
    stream = Terminal()
    with TrainingProgress(8, 5, stream) as shown:
        shown.update(6, loss=1.0, masks_per_second=3)
        shown.update(8, loss=float("nan"), masks_per_second=12)
        shown.validated(0.5)
    last = stream.getvalue().split("\r")[-1]
    assert "8/8" in last
    assert "loss nan, 12 masks/s, r-IoU 0.5000" in last
    assert stream.getvalue().count("\n") == 1


def test_nothing_is_said_where_nothing_was_done() -> None:
    stream = io.StringIO()
    with TrainingProgress(10, 10, stream):
        pass
    assert stream.getvalue() == ""
