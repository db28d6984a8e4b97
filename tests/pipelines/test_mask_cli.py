"""What the command line says of tables: wrong options, files of options, dry runs, and what verify finds."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from pipelines import verify_scenes
from pipelines.cli import main
from pipelines.mask_work import MaskWork
from pipelines.run import tokenize
from samtok_data.errors import SetupError
from tests.pipelines.mask_runs import (
    SPLIT,
    Here,
    mask_config,
    pair,
    problems,
    rows,
    run_here,
    write_coco_splits,
    write_set,
    write_tar,
)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Here:
    return run_here(monkeypatch)


def invoke(root: Path, out: Path, *more: str, dataset: str = "sa1b") -> Result:
    usual = ["--dataset", dataset, "--root", str(root), "--out", str(out), "--tokenizer", "small"]
    return CliRunner().invoke(main, ["tokenize", *usual, "--num-gpus-per-actor", "0", *more])


@pytest.mark.parametrize(
    ("dataset", "options", "words"),
    [
        ("sa1b", ("--option", "colour=3"), "sa1b: no option colour; known are min_area, masks_per_image, seed"),
        ("sa1b", ("--option", "masks_per_image=0"), "masks_per_image: expected a whole number from 1 on, or null"),
        ("sa1b", ("--option", "masks_per_image"), "--option masks_per_image: expected NAME=VALUE, each name once"),
        ("sa1b", ("--option", "seed=1", "--option", "seed=2"), "--option seed=2: expected NAME=VALUE, each name once"),
        ("sa1b", ("--option", "seed=["), "--option seed=[: the value is no YAML"),
        ("sa1b", ("--option", "root=x"), "--option root=...: sa1b has no such option; --root says it"),
        ("sa1b", ("--option", "kind=x"), "--option kind=...: sa1b has no such option; --dataset says it"),
        ("sa1b", ("--option", "index=x"), "--option index=...: sa1b has no such option; --out says it"),
        ("sa1b", ("--option", "name=A b"), "name: expected lower-case letters, digits and hyphens, got 'A b'"),
        (
            "sa1b",
            ("--partition", "unc"),
            "--partition is for dialogues; sa1b is a source of masks: its own options are",
        ),
        ("sa1b", ("--images-root", "."), "--images-root is for dialogues; sa1b is a source of masks"),
        ("sa1b", ("--wording", "x"), "--wording is for dialogues"),
        ("sa1b", ("--images", "reference"), "--images is for dialogues"),
        ("sa1b", ("--crowd", "skip"), "--crowd is for dialogues"),
        ("sa1b", ("--samples-per-shard", "9"), "--samples-per-shard is for dialogues"),
        ("sa1b", ("--images-per-file", "0"), "--images-per-file should be at least 1, got 0"),
        ("sa1b", ("--split", "val"), "--split val: sa1b has no splits; leave it away"),
        ("sa1b", ("--split", "a", "--split", "b"), "--split a b: sa1b has no splits; leave it away"),
        ("gres", ("--option", "seed=3"), "--option and --retry-images are for sources of masks; gres gives dialogues"),
        ("gres", ("--retry-images",), "--option and --retry-images are for sources of masks"),
        ("gres", ("--images-per-file", "9"), "--images-per-file is for sources of masks; gres has --samples-per-shard"),
        (
            "coco-instances",
            ("--split", "all"),
            "--split all: name the splits of coco-instances one by one, e.g. --split",
        ),
        ("coco-instances", ("--split", "dev"), "split: expected train or val, got 'dev'"),
        ("coco-instances", ("--option", "split=val"), "--option split=...: give splits with --split"),
        ("index-png", (), "index-png: the option images and masks is needed"),
        ("nothing", (), "--dataset nothing: unknown; known are gres"),
    ],
)
def test_wrong_options_are_one_sentence(
    here: Here, tmp_path: Path, dataset: str, options: tuple[str, ...], words: str
) -> None:
    result = invoke(write_set(tmp_path / "in", (1,)), tmp_path / "out", *options, dataset=dataset)
    assert result.exit_code == 1, result.output
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "option", [{"masks_per_image": None, "seed": 3}, ["masks_per_image=null", "seed=3"]], ids=["mapping", "list"]
)
def test_options_stand_in_a_file(here: Here, tmp_path: Path, option: Any) -> None:
    write_tar(tmp_path / "in", 0, [1], of_it=30)
    settings = {"root": str(tmp_path / "in"), "out": str(tmp_path / "out"), "dataset": "sa1b", "tokenizer": "small"}
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({**settings, "num_gpus_per_actor": 0, "option": option}))
    result = CliRunner().invoke(main, ["tokenize", "--config", str(path), "--json"])
    assert result.exit_code == 0, result.output
    assert len(rows(tmp_path / "out" / SPLIT)) == 30
    run = json.loads((tmp_path / "out" / SPLIT / ".samtok" / "run.json").read_bytes())
    source = run["fingerprint"]["source"]
    assert (source["masks_per_image"], source["seed"], "listing" in source) == (None, 3, False)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("seed", "--option seed: expected NAME=VALUE"),
        ({"seed": "2024-01-02"}, "seed: expected a whole number from 0 on, got '2024-01-02'"),
        ("{seed: 2024-01-02}", "seed: expected a whole number from 0 on, got '2024-01-02'"),
        ({"seed": "\U0001f600"}, "seed: expected a whole number from 0 on, got '\U0001f600'"),
        ({"seed": [1, {"a": None}]}, "seed: expected a whole number from 0 on, got [1, {'a': None}]"),
    ],
)
def test_wrong_options_of_a_file_are_one_sentence(here: Here, tmp_path: Path, option: Any, words: str) -> None:
    write_tar(tmp_path / "in", 0, [1])
    path = tmp_path / "run.yaml"
    text = option if isinstance(option, str) else json.dumps(option, ensure_ascii=False)
    path.write_text(f"dataset: sa1b\nroot: {tmp_path / 'in'}\nout: {tmp_path / 'out'}\noption: {text}\n")
    result = CliRunner().invoke(main, ["tokenize", "--config", str(path)])
    assert result.exit_code == 1, result.output
    assert words in result.stderr


def test_a_tar_whose_name_is_no_text_is_refused(here: Here, tmp_path: Path) -> None:
    root = write_set(tmp_path / "in", (0,))
    shutil.copy(root / "sa_000000.tar", root / os.fsdecode(b"sa_\xff.tar"))
    with pytest.raises(SetupError, match="a tar's name should be a text that can be printed; rename it"):
        tokenize(mask_config(root, tmp_path / "out"))


def test_a_dry_run_counts_and_writes_no_table(here: Here, tmp_path: Path) -> None:
    result = invoke(write_set(tmp_path / "in"), tmp_path / "out", "--dry-run")
    assert result.exit_code == 0, result.output
    assert [line.split() for line in result.output.splitlines()[:2]] == [
        ["split", "files", "units"],
        ["masks", "3", "3"],
    ]
    assert not (tmp_path / "out").exists()
    root = write_coco_splits(tmp_path / "coco")
    splits = ("--split", "train", "--split", "val")
    result = invoke(root, tmp_path / "out", "--dry-run", "--json", *splits, dataset="coco-instances")
    assert json.loads(result.stdout)["splits"] == {
        "train": {"images or videos": 2, "units": 1},
        "val": {"images or videos": 1, "units": 1},
    }
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["index"]
    assert here.units == []


@pytest.mark.parametrize(
    ("split", "found"),
    [
        (None, {"masks": 3}),
        (["all"], {"masks": 3}),
        ("train", {"train": 1}),
        (["val"], {"val": 2}),
        (["train", "val"], {"train": 1, "val": 2}),
    ],
    ids=["none", "all", "train", "val", "both"],
)
@pytest.mark.parametrize("is_in_file", [False, True])
def test_a_split_of_folders_is_taken_where_it_is_asked_for(
    tmp_path: Path, split: Any, found: dict[str, int], is_in_file: bool
) -> None:
    for place in ("train/a", "val/b", "val/c"):
        for ending in ("screenshot.png", "mask.json", "class.json"):
            path = tmp_path / "in" / "annotated" / f"{place}-{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({"split": split} if split and is_in_file else {}))
    named = [] if split is None or is_in_file else [split] if isinstance(split, str) else split
    options = [word for name in named for word in ("--split", name)]
    options += ["--config", str(tmp_path / "run.yaml"), "--dry-run", "--json"]
    result = invoke(tmp_path / "in", tmp_path / "out", *options, dataset="pixelweb")
    assert result.exit_code == 0, result.output
    planned = json.loads(result.stdout)
    assert {name: numbers["images or videos"] for name, numbers in planned["splits"].items()} == found
    published = ["masks: 3 images, published are 100,000"]
    assert planned["counts"] == (published if "masks" in found else [])


def test_published_counts_are_compared_only_with_a_whole_set(tmp_path: Path) -> None:
    root = tmp_path / "in"
    root.mkdir()
    for name, data in pair(1):
        (root / name).write_bytes(data)
    sentence = (False, "masks: 1 images, published are 11,000,000")
    assert list(MaskWork(mask_config(root, tmp_path)).counts) == [sentence]
    for changes in ({"limit": 1}, {"option": {"seed": 3}}):
        assert list(MaskWork(mask_config(root, tmp_path, **changes)).counts) == []


# --- verify -----------------------------------------------------------------------------------------------------------


def flip_byte(split: Path) -> None:
    path = split / "sa1b-masks-000001.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(bytes(data))


def edit(name: str, change: Callable[[Any], object]) -> Callable[[Path], None]:
    def spoil(split: Path) -> None:
        path = split / ".samtok" / name
        value = json.loads(path.read_bytes())
        change(value)
        path.write_text(json.dumps(value))

    return spoil


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (flip_byte, "sa1b-masks-000001.parquet: its sha256 is not the manifest's; delete it and run tokenize again"),
        (
            lambda split: (split / "sa1b-masks-000002.parquet").unlink(),
            "000002.parquet: in the manifest, but not there",
        ),
        (lambda split: (split / "more.parquet").write_bytes(b""), "more.parquet: not in the manifest"),
        (
            edit("manifest.json", lambda value: value["units"][1].update(masks=7)),
            "unit 1: its entry is not the manifest",
        ),
        (
            edit("manifest.json", lambda value: value["units"][1].update(origin="x 1")),
            "unit 1: its entry is not the man",
        ),
        (
            edit("manifest.json", lambda value: value["units"].pop()),
            "the manifest's totals are not the sums of its units",
        ),
        (
            edit("manifest.json", lambda value: value["totals"].update(images=9)),
            "the manifest's totals are not the sums",
        ),
        (edit("units/000002.json", lambda value: value.update(images=9)), "unit 2: its entry is not the manifest's"),
        (
            edit("plan.json", lambda value: value["units"].append("sa_9.tar 5")),
            "1 of 4 planned files are not in the man",
        ),
    ],
    ids=["byte", "lost", "foreign", "entry", "origin", "fewer", "totals", "unit", "plan"],
)
def test_verify_finds_what_is_wrong(here: Here, tmp_path: Path, spoil: Callable[[Path], object], words: str) -> None:
    out = tmp_path / "out"
    tokenize(mask_config(write_set(tmp_path / "in"), out))
    assert problems(out) == []
    spoil(out / SPLIT)
    result = CliRunner().invoke(main, ["verify", str(out)])
    assert result.exit_code == 1
    assert words in result.output


def test_verify_finds_scenes_that_stand_in_two_tables(here: Here, tmp_path: Path) -> None:
    root, out = write_set(tmp_path / "in"), tmp_path / "out"
    shutil.copy(root / "sa_000001.tar", root / "sa_000004.tar")
    write_tar(root, 3, (9, 5))
    tokenize(mask_config(root, out))
    table = "sa1b-masks-{:06d}.parquet".format
    assert problems(out) == [
        f"{table(3)}: scene sa_5 stands in {table(1)} as well",
        f"{table(4)}: scene sa_4 stands in {table(1)} as well (and 1 more)",
        f"{table(4)}: scene sa_5 stands in {table(3)} as well",
    ]


def test_scenes_of_the_same_hash_are_told_apart(here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenize(mask_config(write_set(tmp_path / "in"), tmp_path / "out"))
    monkeypatch.setattr(verify_scenes, "hash", len, raising=False)
    assert problems(tmp_path / "out") == []


def test_a_table_is_no_shard_to_be_decoded(here: Here, tmp_path: Path) -> None:
    tokenize(mask_config(write_set(tmp_path / "in", (1,)), tmp_path / "out"))
    table = tmp_path / "out" / SPLIT / "sa1b-masks-000000.parquet"
    result = CliRunner().invoke(main, ["decode", str(table), "--out", str(tmp_path / "png")])
    assert result.exit_code == 1
    assert f"Error: {table}: a table of masks holds no images to draw on" in result.stderr
