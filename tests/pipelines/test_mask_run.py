"""Whole runs that make tables: files that are added, replaced or gone, limits, bad input, and kills."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from ray import cloudpickle

from pipelines import actors
from pipelines.run import Summary, tokenize
from pipelines.work import Job
from samtok_data.errors import SetupError
from tests.converters.mask_sources import photograph
from tests.pipelines.conftest import digests
from tests.pipelines.mask_runs import (
    IN_ORDER,
    PLACES,
    SPLIT,
    Here,
    expected,
    found_masks,
    mask_config,
    pair,
    picture,
    problems,
    rows,
    run_here,
    table,
    tar_of,
    write_coco_splits,
    write_pictures,
    write_set,
    write_tar,
)
from tests.pipelines.test_run import actor_pids, wait_for


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Here:
    return run_here(monkeypatch)


def made(out: Path) -> dict[str, str]:
    """Bytes of tables, entries and lists of rejects: what belongs to units and not to the whole run."""
    wanted = (".parquet", "units", "rejects")
    return {name: digest for name, digest in digests(out).items() if any(part in name for part in wanted)}


def planned(out: Path) -> list[str]:
    units = json.loads((out / SPLIT / ".samtok" / "plan.json").read_bytes())["units"]
    return [unit.partition(" ")[0] for unit in units]


# --- files that come and go, in this process and without a network ----------------------------------------------------


def test_a_run_is_complete(here: Here, tmp_path: Path) -> None:
    summary = tokenize(mask_config(write_set(tmp_path / "in"), tmp_path / "out"))
    totals = summary.splits["masks"]
    assert (totals.units, totals.shards, totals.images, totals.masks, totals.rejects) == (3, 3, 8, 24, {})
    found = rows(tmp_path / "out" / SPLIT)
    assert list(found_masks(found).items()) == list(expected(IN_ORDER).items())
    assert [row["archive"] for row in found[::3]] == [f"sa_00000{tar}.tar" for tar in (0, 0, 0, 1, 1, 2, 2, 2)]
    assert summary.counts == ["masks: 24 masks, published are 200,000,000"]
    assert problems(tmp_path / "out") == []
    assert tokenize(mask_config(tmp_path / "in", tmp_path / "out")).new_units == 0
    assert here.units == [("masks", 0), ("masks", 1), ("masks", 2)]
    (tmp_path / "out" / SPLIT / "sa1b-masks-000001.parquet").write_bytes(b"cut")
    assert tokenize(mask_config(tmp_path / "in", tmp_path / "out")).new_units == 1


@pytest.mark.parametrize("stop", [0, 1, 2])
def test_a_stopped_run_resumes_to_the_same_bytes(here: Here, tmp_path: Path, stop: int) -> None:
    root = write_set(tmp_path / "in")
    tokenize(mask_config(root, tmp_path / "whole"))
    here.stop_before = len(here.units) + stop
    with pytest.raises(KeyboardInterrupt):
        tokenize(mask_config(root, tmp_path / "out"))
    assert problems(tmp_path / "out") == ["the run is not complete: run tokenize again with the same settings"]
    here.stop_before = None
    assert tokenize(mask_config(root, tmp_path / "out")).new_units == 3 - stop
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")


def test_tars_that_are_added_keep_the_old_bytes_wherever_they_sort(here: Here, tmp_path: Path) -> None:
    root, out = write_set(tmp_path / "in", (1,)), tmp_path / "out"
    tokenize(mask_config(root, out))
    before = made(out)
    write_set(root, (0, 2))
    here.units.clear()
    assert tokenize(mask_config(root, out)).new_units == 2
    assert here.units == [("masks", 1), ("masks", 2)]
    assert before.items() <= made(out).items()
    assert planned(out) == ["sa_000001.tar", "sa_000000.tar", "sa_000002.tar"]
    assert [row["archive"] for row in table(out / SPLIT / "sa1b-masks-000001.parquet")] == ["sa_000000.tar"] * 9
    assert list(found_masks(rows(out / SPLIT)).items()) == list(expected([5, 4, 3, 1, 2, 8, 6, 7]).items())
    assert problems(out) == []
    assert tokenize(mask_config(root, out)).new_units == 0


def test_a_run_with_added_tars_that_was_stopped_is_not_complete(here: Here, tmp_path: Path) -> None:
    root, out = write_set(tmp_path / "in", (1,)), tmp_path / "out"
    tokenize(mask_config(root, out))
    write_set(root, (0, 2))
    here.stop_before = 1
    with pytest.raises(KeyboardInterrupt):
        tokenize(mask_config(root, out))
    assert problems(out) == ["2 of 3 planned files are not in the manifest: run tokenize again"]
    write_tar(root, 3, [9])  # and one more, in between
    here.stop_before = None
    assert tokenize(mask_config(root, out)).new_units == 3
    assert planned(out) == ["sa_000001.tar", "sa_000000.tar", "sa_000002.tar", "sa_000003.tar"]
    assert problems(out) == []


def test_a_tar_of_another_size_runs_again(here: Here, tmp_path: Path) -> None:
    root, out = write_set(tmp_path / "in"), tmp_path / "out"
    whole = (root / "sa_000001.tar").read_bytes()
    (root / "sa_000001.tar").write_bytes(whole[: len(whole) // 2])  # of a download that broke off
    tokenize(mask_config(root, out, max_reject_rate=1))
    before = made(out)
    (root / "sa_000001.tar").write_bytes(whole)
    here.units.clear()
    here.stop_before = 0
    with pytest.raises(KeyboardInterrupt):
        tokenize(mask_config(root, out))
    assert problems(out) == ["1 of 3 planned files are not in the manifest: run tokenize again"]
    here.stop_before = None
    assert tokenize(mask_config(root, out)).splits["masks"].rejects == {}
    assert here.units == [("masks", 1)]
    assert {name for name, digest in before.items() if made(out).get(name) != digest} == {
        str(SPLIT / "sa1b-masks-000001.parquet"),
        str(SPLIT / ".samtok" / "units" / "000001.json"),
        str(SPLIT / ".samtok" / "rejects" / "000001.jsonl"),
    }
    tokenize(mask_config(root, tmp_path / "fresh"))
    assert digests(out) == digests(tmp_path / "fresh")


def test_a_tar_that_is_gone_before_its_unit_was_finished_is_named(here: Here, tmp_path: Path) -> None:
    root, out = write_set(tmp_path / "in"), tmp_path / "out"
    here.stop_before = 1
    with pytest.raises(KeyboardInterrupt):
        tokenize(mask_config(root, out))
    here.stop_before = None
    before = digests(out)
    (root / "sa_000001.tar").unlink()
    with pytest.raises(SetupError) as caught:
        tokenize(mask_config(root, out))
    assert str(caught.value) == (
        f"{root}: 1 files that the run was begun with are gone before their units were finished, the first is "
        "sa_000001.tar; put them back, or begin anew with --overwrite"
    )
    assert digests(out) == before
    with pytest.raises(SetupError, match="holds a run with other settings: limit was null, is 2"):  # said first
        tokenize(mask_config(root, out, limit=2))
    assert tokenize(mask_config(root, out, overwrite=True)).new_units == 2
    tokenize(mask_config(root, tmp_path / "fresh"))
    assert digests(out) == digests(tmp_path / "fresh")


def test_tars_may_go_as_soon_as_their_units_are_finished(here: Here, tmp_path: Path) -> None:
    root, out = write_set(tmp_path / "in"), tmp_path / "out"
    tokenize(mask_config(write_set(tmp_path / "all"), tmp_path / "whole"))
    here.stop_before = len(here.units) + 2
    with pytest.raises(KeyboardInterrupt):
        tokenize(mask_config(root, out))
    here.stop_before = None
    (root / "sa_000000.tar").unlink()
    (root / "sa_000001.tar").unlink()
    assert tokenize(mask_config(root, out, retry_images=True)).new_units == 1
    assert digests(out) == digests(tmp_path / "whole")
    assert problems(out) == []


def test_a_plan_by_which_nothing_was_made_binds_nobody(here: Here, tmp_path: Path) -> None:
    root, out = write_set(tmp_path / "in", (1, 2)), tmp_path / "out"
    here.stop_before = 0
    with pytest.raises(KeyboardInterrupt):
        tokenize(mask_config(root, out))
    (root / "sa_000001.tar").unlink()
    write_set(root, (0,))
    here.stop_before = None
    tokenize(mask_config(root, out))
    assert planned(out) == ["sa_000000.tar", "sa_000002.tar"]
    assert problems(out) == []


def test_overwrite_begins_anew(here: Here, tmp_path: Path) -> None:
    root, out = write_set(tmp_path / "in"), tmp_path / "out"
    tokenize(mask_config(root, out, option={"masks_per_image": 1}))
    assert len(rows(out / SPLIT)) == 8
    with pytest.raises(SetupError, match=r"source\.masks_per_image was 1, is 20"):
        tokenize(mask_config(root, out))
    tokenize(mask_config(root, out, overwrite=True))
    tokenize(mask_config(root, tmp_path / "fresh"))
    assert digests(out) == digests(tmp_path / "fresh")


@pytest.mark.parametrize("damage", ["{", '{"units": 3}', "[]", '{"files": []}'])
def test_a_damaged_plan_is_named(here: Here, tmp_path: Path, damage: str) -> None:
    root, out = write_set(tmp_path / "in"), tmp_path / "out"
    tokenize(mask_config(root, out))
    whole = digests(out)
    (out / SPLIT / ".samtok" / "plan.json").write_text(damage)
    with pytest.raises(SetupError, match=r"sa1b/masks/\.samtok/plan\.json is damaged: --overwrite deletes the run"):
        tokenize(mask_config(root, out))
    assert problems(out) == [f"{out / SPLIT}/.samtok/plan.json is damaged: --overwrite deletes the run"]
    tokenize(mask_config(root, out, overwrite=True))
    assert digests(out) == whole


def test_a_lost_plan_with_fewer_tars_makes_the_others_again(here: Here, tmp_path: Path) -> None:
    root, out = write_set(tmp_path / "in"), tmp_path / "out"
    tokenize(mask_config(root, out))
    (out / SPLIT / ".samtok" / "plan.json").unlink()
    (root / "sa_000000.tar").unlink()
    assert tokenize(mask_config(root, out)).new_units == 2
    assert problems(out) == ["sa1b-masks-000002.parquet: not in the manifest"]


def test_a_limit_reads_the_first_tar(here: Here, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = write_set(tmp_path / "in")
    summary = tokenize(mask_config(root, tmp_path / "out", limit=2))
    assert (summary.splits["masks"].images, summary.counts) == (2, [])
    assert found_masks(rows(tmp_path / "out" / SPLIT)) == expected([3, 1])
    assert problems(tmp_path / "out") == []
    summary = tokenize(mask_config(root, tmp_path / "more", limit=5))
    assert summary.counts == ["masks: --limit 5 reads sa_000000.tar alone, which gave 3 images"]
    assert summary.counts[0] in caplog.text
    assert here.units == [("masks", 0), ("masks", 0)]


def test_images_of_an_indexed_source_are_cut_into_files(here: Here, tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "in", 7)
    usual: dict[str, Any] = {"dataset": "index-png", "option": PLACES, "images_per_file": 3}
    summary = tokenize(mask_config(root, tmp_path / "out", **usual))
    split = tmp_path / "out" / "index-png" / "masks"
    assert [len(table(path)) for path in sorted(split.glob("*.parquet"))] == [6, 6, 2]
    assert [row["scene"] for row in rows(split)[::2]] == [f"{at:03d}" for at in range(7)]
    assert {row["archive"] for row in rows(split)} == {None}
    assert summary.counts == []
    assert not (split / ".samtok" / "plan.json").exists()
    limited = tokenize(mask_config(root, tmp_path / "few", limit=4, **usual))
    assert (limited.new_units, limited.splits["masks"].images) == (2, 4)
    write_pictures(root, 8)
    with pytest.raises(SetupError, match=r"holds a run with other settings: source\.names was"):
        tokenize(mask_config(root, tmp_path / "out", **usual))
    assert tokenize(mask_config(root, tmp_path / "named", **{**usual, "option": {**PLACES, "name": "bsds"}}))
    assert (tmp_path / "named" / "bsds" / "masks" / "bsds-masks-000002.parquet").exists()


def test_splits_are_runs_of_their_own(here: Here, tmp_path: Path) -> None:
    root, out = write_coco_splits(tmp_path / "in"), tmp_path / "out"
    usual: dict[str, Any] = {"dataset": "coco-instances"}
    assert list(tokenize(mask_config(root, out, **usual)).splits) == ["train"]
    summary = tokenize(mask_config(root, out, split=("train", "val"), **usual))
    assert {split: totals.masks for split, totals in summary.splits.items()} == {"train": 2, "val": 1}
    assert here.units == [("train", 0), ("val", 0)]
    assert problems(out) == []


# --- bad input --------------------------------------------------------------------------------------------------------


def test_rejects_are_counted_alike_everywhere_and_mended_images_are_tried_again(here: Here, tmp_path: Path) -> None:
    root, out = write_pictures(tmp_path / "in", 5), tmp_path / "out"
    (root / "images" / "001.jpg").write_bytes(b"none")
    photograph(root / "images" / "003.jpg", height=9, width=9)
    usual: dict[str, Any] = {"dataset": "index-png", "option": PLACES, "images_per_file": 2}
    with pytest.raises(SetupError) as caught:
        tokenize(mask_config(root, out, **usual))
    assert str(caught.value).startswith("2 of 8 records were rejected (1 image-unreadable, 1 mask-size), more than")
    assert "run again, with --retry-images after mending, to resume" in str(caught.value)
    with pytest.raises(SetupError, match="2 of 8 records"):  # complete, and still over this rate
        tokenize(mask_config(root, out, **usual))
    summary = tokenize(mask_config(root, out, max_reject_rate=0.25, **usual))
    assert summary.new_units == 0
    rejects = {"image-unreadable": 1, "mask-size": 1}
    hidden = out / "index-png" / "masks" / ".samtok"
    manifest = json.loads((hidden / "manifest.json").read_bytes())
    assert summary.splits["masks"].rejects == manifest["totals"]["rejects"] == rejects
    lines = [
        json.loads(line) for path in sorted((hidden / "rejects").iterdir()) for line in path.read_text().splitlines()
    ]
    assert [(line["key"], line["reason"]) for line in lines] == [("001", "image-unreadable"), ("003/map", "mask-size")]
    assert json.loads((out / "index-png" / ".samtok" / "summary.json").read_bytes())["splits"]["masks"]["rejects"] == (
        rejects
    )
    assert problems(out) == []
    write_pictures(root, 5)
    here.units.clear()
    assert tokenize(mask_config(root, out, max_reject_rate=0.25, **usual)).new_units == 0
    summary = tokenize(mask_config(root, out, max_reject_rate=0.25, retry_images=True, **usual))
    assert here.units == [("masks", 0)]  # unit 1 has no reject for an image's sake
    assert summary.splits["masks"].rejects == {"mask-size": 1}


def test_a_broken_tar_leaves_the_others_whole(here: Here, tmp_path: Path) -> None:
    root, out = write_set(tmp_path / "in"), tmp_path / "out"
    whole = (root / "sa_000001.tar").read_bytes()
    (root / "sa_000001.tar").write_bytes(whole[: whole.index(pair(4)[0][1]) + 9])
    (root / "sa_000003.tar").write_bytes(tar_of([("sa_9.jpg", picture(9)), *pair(10)]))
    summary = tokenize(mask_config(root, out, max_reject_rate=0.1))
    assert summary.splits["masks"].rejects == {"annotation-missing": 1, "archive-damaged": 1}
    assert found_masks(rows(out / SPLIT)) == expected([3, 1, 2, 5, 8, 6, 7, 10])
    assert problems(out) == []


# --- on Ray, with a network -------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def mask_reference(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Summary]:
    """Root and output of an undisturbed run by one actor."""
    root, out = write_set(tmp_path_factory.mktemp("tars")), tmp_path_factory.mktemp("mask-reference")
    return root, out, tokenize(mask_config(root, out))


class MortalActor(actors.UnitActor):
    """Dies once, when its second unit is written but for the entry."""

    def run(self, job: Job) -> Any:
        units: Any = self.settings[job.split]
        out = Path(units.output.folder.address).parents[1]
        if job.index == 1 and not out.with_suffix(".died").exists():
            out.with_suffix(".died").touch()
            (out / SPLIT / "sa1b-masks-000001.parquet").write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
        return super().run(job)


def test_two_actors_one_of_which_dies_make_the_same_bytes(
    mask_reference: tuple[Path, Path, Summary], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr(actors, "UnitActor", MortalActor)
    root, out, summary = mask_reference
    again = tokenize(mask_config(root, tmp_path / "out", actors=2))
    assert (tmp_path / "out.died").exists()
    assert again.splits == summary.splits
    assert digests(tmp_path / "out") == digests(out)
    assert found_masks(rows(out / SPLIT)) == expected(IN_ORDER)


def test_measured_ious_stand_in_the_rows(mask_reference: tuple[Path, Path, Summary], tmp_path: Path) -> None:
    root, out, _ = mask_reference
    tokenize(mask_config(root, tmp_path, measure_iou=True))
    measured, plain = rows(tmp_path / SPLIT), rows(out / SPLIT)
    assert [{**row, "r_iou": None} for row in measured] == plain
    ious = [row["r_iou"] for row in measured]
    assert all(0 <= iou <= 1 for iou in ious)
    assert max(ious) > 0.5
    assert problems(tmp_path) == []


def kill_driver(root: Path, out: Path, after: int, delay: float = 0.0) -> None:
    """Starts a run in a process and a Ray of its own, and kills it once so many units are there, and a delay."""
    command = [sys.executable, "-m", "pipelines.cli", "tokenize", "--dataset", "sa1b", "--root", str(root)]
    command += ["--out", str(out), "--tokenizer", "small", "--actors", "1", "--num-gpus-per-actor", "0"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    hidden = out / SPLIT / ".samtok"
    wait_for(lambda: (hidden / "plan.json").exists() and len(list(hidden.glob("units/*"))) >= after, process)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_a_killed_driver_resumes_to_the_same_bytes(mask_reference: tuple[Path, Path, Summary], tmp_path: Path) -> None:
    root, out, _ = mask_reference
    kill_driver(root, tmp_path, after=1)
    assert not (tmp_path / SPLIT / ".samtok" / "manifest.json").exists()
    tokenize(mask_config(root, tmp_path))
    assert digests(tmp_path) == digests(out)


@pytest.mark.slow
@pytest.mark.parametrize(("after", "delay"), [(0, 0.0), (0, 1.0), (0, 2.0), (0, 3.0), (1, 0.05), (2, 0.0), (2, 0.05)])
def test_a_driver_killed_at_any_moment_resumes_to_the_same_bytes(
    mask_reference: tuple[Path, Path, Summary], tmp_path: Path, after: int, delay: float
) -> None:
    root, out, _ = mask_reference
    kill_driver(root, tmp_path, after, delay)
    tokenize(mask_config(root, tmp_path, actors=2))
    assert digests(tmp_path) == digests(out)


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.0, 0.5, 1.0, 1.5, 2.0, 2.5])
def test_an_actor_killed_at_any_moment_costs_nothing(
    mask_reference: tuple[Path, Path, Summary], tmp_path: Path, delay: float
) -> None:
    root, out, _ = mask_reference
    done: list[Summary] = []
    thread = threading.Thread(target=lambda: done.append(tokenize(mask_config(root, tmp_path))))
    thread.start()
    deadline = time.monotonic() + 60
    while thread.is_alive() and not actor_pids() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(delay)
    for pid in actor_pids()[:1]:
        os.kill(pid, signal.SIGKILL)
    thread.join()
    assert [summary.new_units for summary in done] == [3]
    assert digests(tmp_path) == digests(out)
