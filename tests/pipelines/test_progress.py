"""Progress on a terminal and elsewhere."""

from __future__ import annotations

import io

import pytest

from pipelines import progress
from pipelines.progress import Progress
from samtok_data.outputs import UnitEntry


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def entry(index: int) -> UnitEntry:
    return UnitEntry(
        index=index,
        shard=None,
        images=2,
        samples=9,
        masks=6,
        records=10,
        rejects={"image-missing": 1},
        tokenizer={},
        run="",
    )


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that the test moves."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_lines_where_there_is_no_terminal(clock: list[float]) -> None:
    stream = io.StringIO()
    with Progress(units=3, records=30, stream=stream) as shown:
        for index in range(3):
            clock[0] += 20.0
            shown.add(entry(index), 10)
    assert stream.getvalue().splitlines() == [
        "1 of 3 units, 0.1 images/s, 0.3 masks/s, 1 rejects, 00:40 left",
        "2 of 3 units, 0.1 images/s, 0.3 masks/s, 2 rejects, 00:20 left",
        "3 of 3 units, 0.1 images/s, 0.3 masks/s, 3 rejects",
    ]


def test_lines_are_rare(clock: list[float]) -> None:
    stream = io.StringIO()
    with Progress(units=1000, records=10_000, stream=stream) as shown:
        for index in range(1000):
            clock[0] += 0.1
            shown.add(entry(index), 10)
    assert 5 <= len(stream.getvalue().splitlines()) <= 12


def test_one_bar_on_a_terminal() -> None:
    stream = Terminal()
    with Progress(units=3, records=30, done=5, stream=stream) as shown:
        for index in range(3):
            shown.add(entry(index), 10)
    last = stream.getvalue().split("\r")[-1]
    assert "8/8" in last
    assert "images/s" in last
    assert "masks/s" in last
    assert "3 rejects" in last
    assert stream.getvalue().count("\n") == 1


def test_nothing_is_said_where_nothing_was_done() -> None:
    stream = io.StringIO()
    with Progress(units=0, records=0, done=4, stream=stream):
        pass
    assert stream.getvalue() == ""
