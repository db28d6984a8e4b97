"""Two workers through Ray Train, on CPUs with gloo: one run, the same losses, and what happens when one dies."""

from __future__ import annotations

import io
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pipelines.cluster import _ShortNotices
from pipelines.training.run import train
from pipelines.training.settings import read_settings
from samtok_data.errors import SetupError
from tests.pipelines.test_run import is_ours
from tests.pipelines.training.runs import rows_of, state_of, write_run

# Ray Train imports Ray Data, which warns of its own settings.
pytestmark = pytest.mark.filterwarnings(r"ignore::DeprecationWarning:ray\..*")


def assert_same_losses(found: dict[int, dict[str, float]], expected: dict[int, dict[str, float]]) -> None:
    """Sums over two workers are rounded otherwise than sums over one."""
    assert list(found) == list(expected)
    for step, row in expected.items():
        assert list(found[step]) == list(row)
        for name in ("loss", "loss_bce", "loss_dice", "loss_commitment"):
            assert found[step][name] == pytest.approx(row[name], rel=1e-4, abs=1e-4), (step, name)


@pytest.mark.slow
def test_two_workers_train_as_one_and_go_on_where_they_stopped(
    cluster: None, undisturbed: Path, tmp_path: Path
) -> None:
    config = str(write_run(tmp_path, workers=2))
    stopped = train(read_settings(config, max_minutes=0.0001))
    assert (stopped.step, stopped.is_complete) == (1, False)
    outcome = train(read_settings(config))
    assert outcome.is_complete
    assert outcome.masks == 11 * 8
    assert_same_losses(rows_of(tmp_path / "out"), rows_of(undisturbed))
    assert list(state_of(tmp_path / "out")["lanes"]) == ["0", "1"]
    # One worker goes on with what two wrote, and a broken checkpoint's sentence arrives from a worker.
    path = tmp_path / "out" / "checkpoints" / "step-00000012.pt"
    path.write_bytes(b"\0" * path.stat().st_size)
    with pytest.raises(SetupError, match=re.escape(f"{path}: the checkpoint is damaged; remove it to resume")):
        train(read_settings(config))
    path.unlink()
    assert train(read_settings(config, workers=1)).is_complete
    assert_same_losses(rows_of(tmp_path / "out"), rows_of(undisturbed))


def worker_pids() -> list[int]:
    """Ray Train's workers of this session."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if command.startswith(b"ray::") and b"RayTrainWorker" in command and is_ours(int(folder.name)):
            found.append(int(folder.name))
    return sorted(found)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_worker_that_dies_is_replaced_and_the_run_goes_on(cluster: None, tmp_path: Path) -> None:
    recipe = {"steps": 200}
    alone = write_run(tmp_path / "alone", recipe=recipe, log_every=10, save_every=20)
    train(read_settings(str(alone)))
    config = write_run(tmp_path, recipe=recipe, log_every=10, save_every=20, workers=2)
    killed: list[int] = []

    def kill() -> None:
        while not (tmp_path / "out" / "checkpoints" / "step-00000040.json").exists():
            time.sleep(0.01)
        killed.append(worker_pids()[-1])
        os.kill(killed[0], signal.SIGKILL)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    outcome = train(read_settings(str(config)))
    thread.join(1)
    assert len(killed) == 1
    assert outcome.is_complete
    assert outcome.masks < 200 * 8  # since the second start
    assert list(rows_of(tmp_path / "out")) == list(rows_of(tmp_path / "alone" / "out"))
    first, expected = rows_of(tmp_path / "out")[10], rows_of(tmp_path / "alone" / "out")[10]
    assert first["loss"] == pytest.approx(expected["loss"], rel=1e-4)


def test_more_workers_than_the_machine_has_room_for_are_refused(cluster: None, tmp_path: Path) -> None:
    config = str(write_run(tmp_path, recipe={"batch": 32}, workers=8))
    with pytest.raises(SetupError, match=r"^workers 8: the cluster has 4 CPUs; lower workers$"):
        train(read_settings(config))


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        pytest.param(["step 1 of 2\n"], "step 1 of 2\n", id="own line"),
        pytest.param(["\x1b[36m(RayTrainWorker pid=12)\x1b[0m step 1\n"], "step 1\n", id="worker"),
        pytest.param(["(RayTrainWorker pid=12, ip=10.0.0.7) step 1", "\n"], "step 1\n", id="worker elsewhere"),
        pytest.param(["\x1b[36m(TrainController pid=9)\x1b[0m Requesting\n", "mine\n"], "mine\n", id="controller"),
        pytest.param(["(TrainController pid=9) Requesting", "\n", "mine", "\n"], "mine\n", id="end of a dropped line"),
        pytest.param(["(pid=9) x\n"], "(pid=9) x\n", id="no process of a kind"),
    ],
)
def test_only_lines_of_workers_are_shown_and_without_their_prefix(written: list[str], shown: str) -> None:
    stream = io.StringIO()
    notices: Any = _ShortNotices(stream, ("RayTrainWorker",))
    for text in written:
        assert notices.write(text) == len(text)
    assert stream.getvalue() == shown


def test_the_cluster_s_own_notices_become_one_sentence(caplog: pytest.LogCaptureFixture) -> None:
    stream = io.StringIO()
    notices: Any = _ShortNotices(stream, ())
    for _ in range(2):
        notices.write("\x1b[33m(raylet)\x1b[0m A worker died. Long explanation. More of it.")
        notices.write("\n")
    assert stream.getvalue() == ""
    assert caplog.messages == ["Ray: A worker died"]
