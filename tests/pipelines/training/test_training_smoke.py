"""A whole run on the bundled photographs: the loss falls, and everything that a person looks at is there."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from statistics import mean

from click.testing import CliRunner
from PIL import Image

from pipelines.cli import main
from pipelines.training.metrics import parse_rows
from tests.pipelines.training.runs import SOURCE, TINY, rows_of, write_run
from tokenizer_model.loading import open_tokenizer


def test_a_run_of_twenty_steps_learns_and_shows_it(tmp_path: Path) -> None:
    config = write_run(
        tmp_path,
        recipe={"steps": 20, "batch": 16},
        validation="mix.yaml",
        validate_every=20,
        validation_images=3,
        save_every=8,
        loaders=1,
    )
    done = CliRunner().invoke(main, ["train-tokenizer", "--config", str(config)])
    assert done.exit_code == 0, done.output
    out = tmp_path / "out"
    assert "20 of 20 steps, 320 masks in this start" in done.output
    assert f"complete; write the tokenizer with: samtok-data export-tokenizer {out}" in done.output

    rows = parse_rows((out / "metrics.csv").read_bytes())
    assert list(rows) == list(range(1, 21))
    losses = [row["loss"] for row in rows.values()]
    assert mean(losses[-5:]) < 0.85 * mean(losses[:5])
    assert {"r_iou", "r_iou_at_0", "r_iou_unquantised", "r_iou/gres"} <= set(rows[20])
    assert all({"loss_bce", "loss_dice", "loss_commitment", "used_0", "used_1"} <= set(row) for row in rows.values())
    rates = [row["learning_rate"] for row in rows.values()]
    assert all(later < earlier for earlier, later in pairwise(rates[1:]))  # one step of warm-up, then the cosine

    with Image.open(out / "curves.png") as curves:
        assert curves.size == (1700, 1150)
    with Image.open(out / "sheets" / "step-00000020.png") as sheet:
        assert sheet.mode == "RGB"
    names = sorted(path.name for path in (out / "checkpoints").iterdir() if path.is_file())
    assert names == [f"step-{step:08d}.{ending}" for step in (16, 20) for ending in ("json", "pt")]
    assert not (out / "rejects.jsonl").exists()
    assert len(list((out / "tensorboard").iterdir())) == 1

    file = tmp_path / "first.safetensors"
    exported = CliRunner().invoke(main, ["export-tokenizer", str(out), "--out", str(file)])
    assert exported.output == f"{file}: the tokenizer after step 20\n"
    opened = open_tokenizer(str(file))
    assert (opened.config, opened.identity.name, opened.identity.trained) == (TINY, "out", True)


def test_a_complete_run_has_nothing_to_do(undisturbed: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (undisturbed / "checkpoints").glob("step-*")}
    config = undisturbed.parent / "train.yaml"
    done = CliRunner().invoke(main, ["train-tokenizer", "--config", str(config), "--json"])
    outcome = json.loads(done.stdout)
    assert (outcome["step"], outcome["steps"], outcome["masks"]) == (12, 12, 0)
    assert {path: path.stat().st_mtime_ns for path in (undisturbed / "checkpoints").glob("step-*")} == before


def test_time_that_is_over_stops_the_run_and_the_same_command_goes_on(undisturbed: Path, tmp_path: Path) -> None:
    config = str(write_run(tmp_path, sources=[SOURCE]))
    stops = 0
    for _ in range(20):
        limits = ["--max-minutes", "0.0001"] if stops < 3 else []
        done = CliRunner().invoke(main, ["train-tokenizer", "--config", config, "--json", *limits])
        assert done.exit_code == 0, done.output
        outcome = json.loads(done.stdout)
        if outcome["step"] == outcome["steps"]:
            break
        stops += 1
    assert stops == 3
    assert rows_of(tmp_path / "out") == rows_of(undisturbed)
