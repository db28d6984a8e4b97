"""Whole runs on Ray: complete, resumed, refused, killed. The bundled sample and the embedded tokenizer."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import cloudpickle

from pipelines import actors
from pipelines.cluster import Layout
from pipelines.run import Summary, tokenize
from pipelines.verify import find_outputs, verify
from pipelines.work import Job, software
from samtok_data.errors import SetupError
from samtok_data.storage import Folder
from tests.pipelines.conftest import config_of, digests


def test_a_run_is_complete_and_sound(reference: tuple[Path, Summary]) -> None:
    out, summary = reference
    totals = summary.splits["train"]
    assert (totals.records, totals.samples, totals.rejects) == (68, 67, {"annotation-missing": 1})
    (output,) = find_outputs(str(out))
    (verdict,) = verify([output])
    assert verdict.problems == []
    assert verdict.totals == totals
    assert "small" in summary.tokenizer["name"]
    assert [reject.reason for reject in output.rejects()] == ["annotation-missing"]
    assert "the spoon hidden under the saucer" in str(output.rejects()[0].record)


@pytest.mark.parametrize("number", [2, 4])
def test_the_bytes_do_not_depend_on_the_number_of_actors(
    reference: tuple[Path, Summary], bundled: Path, tmp_path: Path, number: int
) -> None:
    tokenize(config_of(bundled, tmp_path, actors=number))
    assert digests(tmp_path) == digests(reference[0])


def test_a_complete_run_has_nothing_to_do(reference: tuple[Path, Summary], bundled: Path) -> None:
    before = digests(reference[0])
    summary = tokenize(config_of(bundled, reference[0]))
    assert summary.new_units == 0
    assert summary.splits == reference[1].splits
    assert digests(reference[0]) == before


def test_a_lost_or_cut_shard_is_made_again(reference: tuple[Path, Summary], bundled: Path, tmp_path: Path) -> None:
    tokenize(config_of(bundled, tmp_path))
    shards = sorted((tmp_path / "gres" / "train").glob("*.tar"))
    shards[0].unlink()
    shards[2].write_bytes(shards[2].read_bytes()[:512])
    assert tokenize(config_of(bundled, tmp_path)).new_units == 2
    assert digests(tmp_path) == digests(reference[0])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"seed": 7}, "converter.seed was 0, is 7"),
        ({"images": "reference"}, 'images was "embed", is "reference"'),
        ({"crowd": "skip"}, 'converter.crowd was "keep", is "skip"'),
        ({"limit": 3}, "limit was null, is 3"),
        ({"samples_per_shard": 9}, "samples_per_shard was 1, is 9"),
        ({"measure_iou": True}, "measure_iou was false, is true"),
    ],
)
def test_other_settings_are_refused_by_name(
    reference: tuple[Path, Summary], bundled: Path, change: dict[str, Any], sentence: str
) -> None:
    before = digests(reference[0])
    with pytest.raises(SetupError) as caught:
        tokenize(config_of(bundled, reference[0], **change))
    assert f"holds a run with other settings: {sentence}. Give the earlier settings to resume it" in str(caught.value)
    assert digests(reference[0]) == before


def test_overwrite_starts_anew(reference: tuple[Path, Summary], bundled: Path, tmp_path: Path) -> None:
    tokenize(config_of(bundled, tmp_path, seed=7))
    tokenize(config_of(bundled, tmp_path, overwrite=True))
    assert digests(tmp_path) == digests(reference[0])


def test_another_split_joins_the_same_folder(reference: tuple[Path, Summary], bundled: Path, tmp_path: Path) -> None:
    tokenize(config_of(bundled, tmp_path, split=("val",)))
    summary = tokenize(config_of(bundled, tmp_path, split=("all",)))
    assert list(summary.splits) == ["train", "val"]
    found = {name: digest for name, digest in digests(tmp_path).items() if "/train/" in name}
    assert found == digests(reference[0])


def test_too_many_rejects_end_the_run_and_it_resumes(cluster: None, bundled: Path, tmp_path: Path) -> None:
    with pytest.raises(SetupError) as caught:
        tokenize(config_of(bundled, tmp_path, max_reject_rate=0.01))
    assert str(caught.value).startswith("1 of 68 records were rejected (1 annotation-missing), more than")
    assert "--max-reject-rate 0.01" in str(caught.value)
    assert tokenize(config_of(bundled, tmp_path, max_reject_rate=0.02)).splits["train"].samples == 67
    with pytest.raises(SetupError, match="1 of 68 records were rejected"):  # complete, and still over this budget
        tokenize(config_of(bundled, tmp_path, max_reject_rate=0.01))


def test_images_that_come_back_are_tokenised_on_resume(
    reference: tuple[Path, Summary], bundled: Path, tmp_path: Path
) -> None:
    root = tmp_path / "in"
    shutil.copytree(bundled, root)
    away = root / "images" / "away"
    (root / "images" / "train2014").rename(away)
    (root / "images" / "train2014").mkdir()
    with pytest.raises(SetupError, match="image-missing"):
        tokenize(config_of(root, tmp_path / "out"))
    assert tokenize(config_of(root, tmp_path / "out", max_reject_rate=1)).splits["train"].samples == 0
    (root / "images" / "train2014").rmdir()
    away.rename(root / "images" / "train2014")
    summary = tokenize(config_of(root, tmp_path / "out"))
    assert summary.splits["train"].samples == 67
    assert digests(tmp_path / "out") == digests(reference[0])


def test_more_actors_than_there_is_room_for_hold_up_nothing(
    reference: tuple[Path, Summary], bundled: Path, tmp_path: Path
) -> None:
    # The session's cluster has room for four.
    tokenize(config_of(bundled, tmp_path, actors=7))
    assert digests(tmp_path) == digests(reference[0])


def test_units_of_another_run_do_not_count(reference: tuple[Path, Summary], bundled: Path, tmp_path: Path) -> None:
    tokenize(config_of(bundled, tmp_path))
    path = tmp_path / "gres" / "train" / ".samtok" / "units" / "000003.json"
    path.write_text(path.read_text().replace('"run": "', '"run": "0'))
    assert tokenize(config_of(bundled, tmp_path)).new_units == 1
    assert digests(tmp_path) == digests(reference[0])


class DoomedActor(actors.UnitActor):
    """Dies with its third unit, each time."""

    def run(self, job: Job) -> Any:
        if job.index == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().run(job)


def test_an_actor_that_always_dies_ends_the_run_with_its_shards_kept(
    reference: tuple[Path, Summary], bundled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr(actors, "UnitActor", DoomedActor)
    with pytest.raises(SetupError, match=r"An actor died 4 times at the same work; .* Finished shards are kept"):
        tokenize(config_of(bundled, tmp_path, actors=1))
    monkeypatch.undo()
    kept = sorted(path.name for path in (tmp_path / "gres" / "train").glob("*.tar"))
    assert kept == ["gres-train-000000.tar", "gres-train-000001.tar"]
    tokenize(config_of(bundled, tmp_path))
    assert digests(tmp_path) == digests(reference[0])


class MortalActor(actors.UnitActor):
    """Dies once, with its second unit: the file beside the output remembers that it did."""

    def run(self, job: Job) -> Any:
        units: Any = self.settings[job.split]
        mark = Path(units.output.folder.address).parents[1].with_suffix(".died")
        if job.index == 1 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().run(job)


def test_an_actor_that_dies_once_costs_nothing(
    reference: tuple[Path, Summary], bundled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr(actors, "UnitActor", MortalActor)
    out = tmp_path / "out"
    tokenize(config_of(bundled, out))
    assert out.with_suffix(".died").exists()
    assert digests(out) == digests(reference[0])


@pytest.mark.parametrize("has_encoder", [False, True])
def test_a_checkpoint_that_changed_under_the_run_is_refused(cluster: None, has_encoder: bool) -> None:
    order = actors.TokenizerOrder(spec="small", sha256="f" * 64, precision="fp32", device="cpu", software=software())
    jobs = [actors.Job("train", 0, 0, [])]
    with pytest.raises(SetupError, match="a node holds other weights"):
        with actors.Crews(order, {}, Layout(crews=(1,) if has_encoder else (0,), share=0.0)) as crews:
            list(crews.run(jobs))


def parent_of(pid: int) -> int:
    """The parent's pid; 0 where there is none."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:  # it ended meanwhile
        return 0
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("PPid:")))


def is_ours(pid: int) -> bool:
    """Whether a process descends from this one: other runs on the machine are none of our business."""
    while pid not in (0, os.getpid()):
        pid = parent_of(pid)
    return pid == os.getpid()


def actor_pids() -> list[int]:
    """Processes of this session that call themselves a UnitActor, as Ray names its workers."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        is_actor = command.startswith(b"ray::") and b"Actor" in command and b"IDLE" not in command
        if is_actor and is_ours(int(folder.name)):
            found.append(int(folder.name))
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_actor_is_left_behind(reference: tuple[Path, Summary]) -> None:
    deadline = time.monotonic() + 20
    while (alive := actor_pids()) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert alive == []


def start(bundled: Path, out: Path) -> subprocess.Popen[bytes]:
    """The command line in a process of its own, with a Ray of its own."""
    command = [sys.executable, "-m", "pipelines.cli", "tokenize", "--dataset", "gres", "--root", str(bundled)]
    command += ["--out", str(out), "--tokenizer", "small", "--samples-per-shard", "1", "--actors", "2"]
    command += ["--num-gpus-per-actor", "0"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.stderr and process.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def kill_driver(bundled: Path, out: Path, after: int, delay: float = 0.0) -> None:
    """Starts a run and kills its driver with SIGKILL once it has begun, so many units are committed, and a delay."""
    process = start(bundled, out)
    bookkeeping = out / "gres" / "train" / ".samtok"
    units = Folder(bookkeeping / "units")
    wait_for(lambda: (bookkeeping / "run.json").exists() and len(units.names()) >= after, process)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_a_killed_driver_resumes_to_the_same_bytes(
    reference: tuple[Path, Summary], bundled: Path, tmp_path: Path
) -> None:
    kill_driver(bundled, tmp_path, after=2)
    assert not (tmp_path / "gres" / "train" / ".samtok" / "manifest.json").exists()
    tokenize(config_of(bundled, tmp_path))
    assert digests(tmp_path) == digests(reference[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("after", "delay"), [(0, 0.0), (0, 0.8), (0, 1.6), (0, 2.4), *((number, 0.0) for number in range(1, 7))]
)
def test_a_driver_killed_at_any_moment_resumes_to_the_same_bytes(
    reference: tuple[Path, Summary], bundled: Path, tmp_path: Path, after: int, delay: float
) -> None:
    kill_driver(bundled, tmp_path, after, delay)
    tokenize(config_of(bundled, tmp_path))
    assert digests(tmp_path) == digests(reference[0])


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.0, 0.3, 0.6, 0.9, 1.2, 1.5, 1.8, 2.1, 2.4, 2.7])
def test_an_actor_killed_at_any_moment_costs_nothing(
    reference: tuple[Path, Summary], bundled: Path, tmp_path: Path, delay: float
) -> None:
    failures: list[BaseException] = []

    def run() -> None:
        try:
            tokenize(config_of(bundled, tmp_path))
        except BaseException as error:  # noqa: BLE001 - handed to the test's own thread
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    deadline = time.monotonic() + 60
    while thread.is_alive() and not actor_pids() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(delay)
    killed = actor_pids()[:1]
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    thread.join()
    assert failures == []
    assert killed
    assert digests(tmp_path) == digests(reference[0])


def test_a_cluster_that_does_not_answer_is_a_setup_error(tmp_path: Path) -> None:
    script = (
        "from pipelines.cluster import start_cluster\nfrom pipelines.config import RunConfig\n"
        "start_cluster(RunConfig(dataset='gres', root='in', out='out', address='127.0.0.1:1'))"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert "SetupError: --address 127.0.0.1:1: no Ray cluster can be joined there" in done.stderr


def test_more_gpus_than_there_are_is_a_setup_error(cluster: None, bundled: Path, tmp_path: Path) -> None:
    if ray.cluster_resources().get("GPU"):
        pytest.skip("this machine has a GPU")
    with pytest.raises(SetupError, match="--num-gpus-per-actor 1: this machine has no GPU; give 0 to run on CPUs"):
        tokenize(config_of(bundled, tmp_path, num_gpus_per_actor=1))
    assert not (tmp_path / "gres").exists()
