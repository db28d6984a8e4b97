"""The log of a training run: its rows, its events, its curves, and how a run goes on after it was killed."""

from __future__ import annotations

import errno
import io
import math
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.training import curves, logs
from pipelines.training.curves import curves_png
from pipelines.training.logs import TrainingLog
from pipelines.training.metrics import format_rows, parse_rows
from samtok_data.errors import SetupError
from samtok_data.storage import Folder
from tests.conftest import BUCKET

SOURCES = ("coco", "sa1b")


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def values_of(step: int) -> dict[str, float]:
    """What a made-up run logs at a step: noise that depends on the step alone, a validation every 40 steps."""
    noise = np.random.default_rng(step).normal(0, 0.05, 4)
    row = {
        "loss": math.exp(-step / 100) + abs(noise[0]),
        "loss_bce": 0.5 * math.exp(-step / 90) + abs(noise[1]),
        "learning_rate": 1e-4 / (1 + step),
        "masks_per_second": 1000 + 100 * noise[2],
        "used_0": 200 + step % 7,
        "restarted_0": step % 3,
    }
    if step % 40 == 0:
        row |= {"r_iou": 0.8 + noise[3]} | {f"r_iou/{source}": 0.7 + noise[3] for source in SOURCES}
    return row


def run(out: Folder, *, resume_step: int, last: int, every: int = 10) -> None:
    """The part of a training run that logs: a checkpoint every 50 steps, dead after ``last``."""
    with TrainingLog(out, resume_step=resume_step) as log:
        for step in range(resume_step + every, last + 1, every):
            log.add(step, values_of(step))
            if step % 50 == 0:
                log.flush()


def events_of(folder: Path) -> dict[str, dict[int, float]]:
    """What TensorBoard shows of a folder: values by tag and step."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    read.Reload()
    return {tag: {event.step: event.value for event in read.Scalars(tag)} for tag in read.Tags()["scalars"]}


def expected_events(steps: range) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    for step in steps:
        for name, value in values_of(step).items():
            found.setdefault(name, {})[step] = float(np.float32(value))
    return found


def test_what_is_heavy_is_loaded_where_it_is_used() -> None:
    program = (
        "import sys, pipelines.training.curves, pipelines.training.logs, pipelines.training.sheets\n"
        "found = {'torch', 'matplotlib', 'tensorboard', 'ray'}.intersection(sys.modules)\n"
        "assert not found, found\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_file_of_a_few_rows(tmp_path: Path) -> None:
    with TrainingLog(Folder(tmp_path), resume_step=0) as log:
        log.add(10, {"loss": 0.1 + 0.2, "used_0": 12})
        log.add(20, {"loss": np.float32(0.5), "learning_rate": 1e-05, "used_0": np.int64(13)})
        log.add(20, {"r_iou": 0.75, 'r_iou/"a", b': float("nan")})
        log.add(30, {"r_iou": math.inf})
    assert (tmp_path / "metrics.csv").read_text("utf-8") == (
        'step,loss,used_0,learning_rate,r_iou,"r_iou/""a"", b"\n'
        "10,0.30000000000000004,12,,,\n"
        "20,0.5,13,1e-05,0.75,nan\n"
        "30,,,,inf,\n"
    )


def test_rows_are_read_as_they_were_written() -> None:
    rows = {step: values_of(step) for step in range(0, 200, 10)}
    again = parse_rows(format_rows(rows))
    assert again == rows
    assert format_rows(again) == format_rows(rows)
    assert {name: type(value) for name, value in again[10].items()} == {
        name: int if name in ("used_0", "restarted_0") else float for name in rows[10]
    }
    assert parse_rows(format_rows({})) == {}


@pytest.mark.parametrize("died_at", [110, 140, 190], ids=str)
def test_a_resumed_run_ends_with_the_file_of_one_that_was_never_killed(tmp_path: Path, died_at: int) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(Folder(whole), resume_step=0, last=200)
    run(Folder(broken), resume_step=0, last=died_at)
    rows = parse_rows((broken / "metrics.csv").read_bytes())
    assert max(rows) == died_at
    checkpoint = died_at // 50 * 50
    run(Folder(broken), resume_step=checkpoint, last=200)
    assert (broken / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()


def test_columns_of_dropped_rows_are_dropped_with_them(tmp_path: Path) -> None:
    out = Folder(tmp_path)
    with TrainingLog(out, resume_step=0) as log:
        log.add(1, {"loss": 1.0})
        log.add(2, {"extra": 1.0, "loss": 0.5})
    with TrainingLog(out, resume_step=1) as log:
        assert log.rows == {1: {"loss": 1.0}}
        log.add(2, {"loss": 0.5, "r_iou": 0.5})
    assert out.read("metrics.csv") == b"step,loss,r_iou\n1,1.0,\n2,0.5,0.5\n"


def test_a_run_from_its_beginning_replaces_the_log_of_another(tmp_path: Path) -> None:
    out = Folder(tmp_path)
    out.write("metrics.csv", b"cut")
    with TrainingLog(out, resume_step=0) as log:
        log.add(0, {"loss": 2.0})
    assert out.read("metrics.csv") == b"step,loss\n0,2.0\n"


def test_nothing_is_written_before_a_flush_and_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    write = Folder.write

    def counted(self: Folder, name: str, data: bytes) -> None:
        written.append(name)
        write(self, name, data)

    monkeypatch.setattr(Folder, "write", counted)
    with TrainingLog(Folder(tmp_path), resume_step=0) as log:
        log.add(1, {"loss": 1.0})
        assert written == []
        log.flush()
        log.flush()
        assert written == ["metrics.csv"]
        log.add(2, {"loss": 1.0})
    assert written == ["metrics.csv"] * 2
    log.close()
    assert written == ["metrics.csv"] * 2


def test_a_full_disk_leaves_the_older_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    log = TrainingLog(Folder(tmp_path), resume_step=0)
    log.add(1, {"loss": 1.0})
    log.flush()
    log.add(2, {"loss": 0.5})
    older = (tmp_path / "metrics.csv").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            log.flush()
        with pytest.raises(OSError, match="No space left"):
            log.curves()
    assert (tmp_path / "metrics.csv").read_bytes() == older
    assert list((tmp_path / ".tmp").iterdir()) == []
    assert not (tmp_path / "curves.png").exists()
    log.flush()  # the disk has room again: nothing was lost
    assert (tmp_path / "metrics.csv").read_bytes() == older + b"2,0.5\n"
    log.add(3, {"loss": 0.25})
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            log.close()  # the thread of TensorBoard ends all the same: see the fixture
    log.close()


SOUND = "step,loss,r_iou\n10,0.5,\n20,0.25,0.75\n"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        pytest.param("", "the last line has no end", id="empty"),
        pytest.param(SOUND[:-1], "the last line has no end", id="cut in the last cell"),
        pytest.param(SOUND + "30,0\n", "line 4: expected 3 cells, got 2", id="cells"),
        pytest.param(SOUND + "30,x,\n", "line 4: could not convert string to float: 'x'", id="number"),
        pytest.param(SOUND + "3.5,1,\n", "line 4: invalid literal for int() with base 10: '3.5'", id="step"),
        pytest.param(SOUND + "20,1,\n", "line 4: expected a step after 20, got 20", id="order"),
        pytest.param("loss,r_iou\n", "line 1: expected columns of different names, step first", id="header"),
        pytest.param("step,loss,loss\n", "line 1: expected columns of different names", id="column twice"),
        pytest.param("\n" + SOUND, "line 1: expected columns of different names", id="blank"),
        pytest.param("st\udcffep\n", "byte 2 is no text", id="bytes"),
        pytest.param(SOUND + '30,"0.5,\n', "line 4: expected 3 cells, got 2", id="quote"),
        pytest.param(SOUND + '30,"' + "5" * 200_000 + "\n", "field larger than field limit", id="long cell"),
    ],
)
def test_a_damaged_file_is_refused_with_the_way_out(tmp_path: Path, text: str, fault: str) -> None:
    (tmp_path / "metrics.csv").write_bytes(text.encode("utf-8", "surrogateescape"))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(SetupError, match=re.escape(fault)) as caught:
        TrainingLog(Folder(tmp_path), resume_step=20)
    assert str(caught.value).startswith(f"{tmp_path}/metrics.csv was cut or changed by something else: ")
    assert str(caught.value).endswith("or remove it and the run goes on with rows and curves from step 20")
    assert sorted(tmp_path.iterdir()) == before


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").mkdir()
    with pytest.raises(SetupError, match=re.escape(f"{tmp_path}/metrics.csv cannot be read: ")):
        TrainingLog(Folder(tmp_path), resume_step=20)


def test_missing_rows_are_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    out = Folder(tmp_path)
    TrainingLog(out, resume_step=20).close()
    assert caplog.messages == [f"{tmp_path} holds no metrics.csv: its rows and curves begin at step 20"]
    caplog.clear()
    out.write("metrics.csv", SOUND.encode())
    TrainingLog(out, resume_step=29).close()  # fewer than two gaps: the next row was not due
    assert caplog.messages == []
    TrainingLog(out, resume_step=90).close()
    assert caplog.messages == [f"{tmp_path}/metrics.csv lacks the rows from step 20 to 90"]


@pytest.mark.parametrize("package", ["tensorboard", "matplotlib"])
def test_a_missing_extra_is_told_of_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    find = logs.importlib.util.find_spec
    monkeypatch.setattr(logs.importlib.util, "find_spec", lambda name: None if name == package else find(name))
    with pytest.raises(SetupError, match=rf"^training needs {package}: install the extra, pip install 'samtok-data\["):
        TrainingLog(Folder(tmp_path), resume_step=0)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SetupError, match="TensorBoard's events cannot be written there"):
        TrainingLog(Folder(tmp_path / "file"), resume_step=0)


@pytest.mark.parametrize(
    ("step", "values", "message"),
    [
        pytest.param(9, {"loss": 1.0}, "expected a step from 10 on, got 9", id="earlier step"),
        pytest.param(11, {"step": 1.0}, "expected other names than 'step'", id="name"),
    ],
)
def test_wrong_rows_are_refused(tmp_path: Path, step: int, values: Mapping[str, float], message: str) -> None:
    with TrainingLog(Folder(tmp_path), resume_step=0) as log:
        log.add(10, {"loss": 1.0})
        with pytest.raises(ValueError, match=message):
            log.add(step, values)
        assert log.rows == {10: {"loss": 1.0}}


def test_tensors_are_numbers_and_other_things_are_not(tmp_path: Path) -> None:
    import torch

    with TrainingLog(Folder(tmp_path), resume_step=0) as log:
        given: dict[str, Any] = {"loss": torch.tensor(0.5)}
        log.add(1, given)
        wrong: dict[str, Any] = {"loss": "high"}
        with pytest.raises(ValueError, match="could not convert"):
            log.add(2, wrong)
        assert log.rows == {1: {"loss": 0.5}}
        assert type(log.rows[1]["loss"]) is float


def test_tensorboard_shows_the_same_values(tmp_path: Path) -> None:
    run(Folder(tmp_path), resume_step=0, last=100)
    found = events_of(tmp_path / "tensorboard")
    assert found == expected_events(range(10, 101, 10))
    assert len(found["r_iou/coco"]) == 2


@pytest.mark.parametrize("resume_step", [0, 50], ids=["from the beginning", "from a checkpoint"])
def test_tensorboard_hides_what_a_resumed_run_does_again(tmp_path: Path, resume_step: int) -> None:
    out = Folder(tmp_path)
    with TrainingLog(out, resume_step=0) as log:
        for step in range(10, 91, 10):
            log.add(step, values_of(step) if step <= 50 else {"loss": 1e6, "stray": 1.0})
    [events] = (tmp_path / "tensorboard").iterdir()
    # The files are ordered by the second in their names, and both starts are of the same one.
    events.rename(events.with_name(re.sub(r"tfevents\.\d+", "tfevents.0000000001", events.name)))
    run(out, resume_step=resume_step, last=80)
    found = events_of(tmp_path / "tensorboard")
    assert found.pop("stray", {}) == {}
    assert found == expected_events(range(10, 81, 10))


def test_a_sheet_is_a_file_and_a_picture_in_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    sheet = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8))
    with TrainingLog(Folder(tmp_path), resume_step=0) as log:
        log.add_sheet(1000, sheet)
    with Image.open(tmp_path / "sheets" / "step-00001000.png") as written:
        assert written.tobytes() == sheet.tobytes()
    read = EventAccumulator(str(tmp_path / "tensorboard"))
    read.Reload()
    [event] = read.Images("reconstructions")
    with Image.open(io.BytesIO(event.encoded_image_string)) as shown:
        assert (event.step, shown.tobytes()) == (1000, sheet.tobytes())


def test_a_log_in_an_object_store(tmp_path: Path, s3_endpoint: str) -> None:
    out, here = Folder(f"s3://{BUCKET}/training"), Folder(tmp_path / "here")
    run(out, resume_step=0, last=70)
    run(out, resume_step=50, last=100)
    run(here, resume_step=0, last=100)
    assert out.read("metrics.csv") == here.read("metrics.csv")
    with TrainingLog(out, resume_step=100) as log:
        log.add_sheet(100, Image.new("RGB", (4, 4)))
        log.curves()
    with TrainingLog(here, resume_step=100) as log:
        log.curves()
    assert out.read("curves.png") == here.read("curves.png")
    names = sorted(out.walk())
    assert len([name for name in names if name.startswith("tensorboard/events.out.tfevents.")]) == 3
    assert [name for name in names if not name.startswith("tensorboard/")] == [
        "curves.png",
        "metrics.csv",
        "sheets/step-00000100.png",
    ]
    for name in names:
        if name.startswith("tensorboard/"):
            # Files are ordered by the second in their names, and these are of the same: their counter takes its place.
            ordered = re.sub(
                r"tfevents\.\d+(.*)\.(\d+)$", lambda found: f"tfevents.{int(found[2]):010d}{found[1]}", name
            )
            Folder(tmp_path / "events").write(ordered.removeprefix("tensorboard/"), out.read(name))
    assert events_of(tmp_path / "events") == expected_events(range(10, 101, 10))


def pixels_of(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.format == "PNG"
        assert picture.info.keys() <= {"dpi"}  # no time, no version
        return np.asarray(picture.convert("RGB"))


def test_curves_are_a_picture_and_the_same_bytes_again(tmp_path: Path) -> None:
    out = Folder(tmp_path)
    run(out, resume_step=0, last=2000)
    with TrainingLog(out, resume_step=2000, codebook_size=256) as log:
        log.curves()
        first = out.read("curves.png")
        log.curves()
        assert out.read("curves.png") == first
        assert first == curves_png({step: values_of(step) for step in range(10, 2001, 10)}, codebook_size=256)
        log.add(2010, values_of(2010))
        log.curves()
        assert out.read("curves.png") != first
    pixels = pixels_of(first)
    assert pixels.shape == (1150, 1700, 3)
    for colour in ("#0072B2", "#D55E00", "#000000"):
        red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
        assert (pixels == (red, green, blue)).all(2).sum() > 100, colour


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param({}, id="none"),
        pytest.param({0: {"loss": 1.0, "r_iou": 0.5}}, id="one"),
        pytest.param({0: {"loss": 0.0, "r_iou": 0.0, "grad_norm": 0}}, id="zeros"),
        pytest.param({step: {"loss": math.nan, "r_iou": math.nan, "used_0": math.inf} for step in range(9)}, id="nan"),
        pytest.param(
            {5: {"r_iou/$a_{$": 0.5, "r_iou_at_0": 0.4, "r_iou_unquantised": 0.6}, 9: {"r_iou/$a_{$": 0.6}},
            id="no total, a formula",
        ),
        pytest.param({step: {f"used_{level}": 3 for level in range(14)} for step in range(9)}, id="many levels"),
    ],
)
def test_curves_of_odd_rows(rows: dict[int, dict[str, float]]) -> None:
    pixels_HWC = pixels_of(curves_png(rows, codebook_size=256)).astype(np.int64)
    assert len(np.unique(pixels_HWC @ (65536, 256, 1))) > 20


def test_the_smoothed_line_is_the_mean_of_its_surroundings() -> None:
    given = np.array([1.0, 2.0, np.nan, 6.0, 10.0])
    np.testing.assert_allclose(curves._smoothed(given, 3), [1.5, 1.5, np.nan, 8.0, 8.0])
    np.testing.assert_allclose(curves._smoothed(given, 1), given)


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (0.05, "0.05"), (20000, "20,000"), (1e-5, "1e-5"), (2.5e10, "2.5e10")]
)
def test_labels_of_ticks(value: float, text: str) -> None:
    assert curves._number_text(value) == text
