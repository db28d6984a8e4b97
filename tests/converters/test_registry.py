"""Datasets by name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from converters.dialogues.registry import DATASETS, open_converter, present
from samtok_data.errors import SetupError
from tests.converters import grefs

NAMES = {
    ("gres", None): "gres",
    ("gres", "unc"): "gres",
    ("refcoco", None): "refcoco-unc",
    ("refcoco", "google"): "refcoco-google",
    ("refcoco+", None): "refcocoplus-unc",
    ("refcoco+", "google"): "refcocoplus-google",
    ("refcocog", None): "refcocog-umd",
    ("refcocog", "google"): "refcocog-google",
    ("refclef", None): "refclef-unc",
    ("refclef", "berkeley"): "refclef-berkeley",
}


@pytest.mark.parametrize(("dataset", "partition", "name"), [(*asked, name) for asked, name in NAMES.items()])
def test_each_partition_has_an_output_name(dataset: str, partition: str | None, name: str) -> None:
    converter = open_converter(dataset, root=".", partition=partition)
    assert converter.name == name
    assert converter.info.name == dataset
    assert re.fullmatch(r"[a-z0-9-]+", converter.name)


def test_all_partitions_have_names_of_their_own() -> None:
    outputs = [part.output for dataset in DATASETS.values() for part in dataset.partitions.values()]
    assert sorted(outputs) == sorted({*NAMES.values()})


def test_the_files_follow_the_partition() -> None:
    paths = [file.path for file in open_converter("refcocog", root=".", partition="google").info.files]
    assert paths == ["refcocog/refs(google).p", "refcocog/instances.json", "images/train2014"]


def test_the_table_of_the_whole_file_is_the_sum_of_its_splits() -> None:
    checked = 0
    for dataset in DATASETS.values():
        for partition in dataset.partitions:
            table = dict(dataset.info_of(partition).sentences)
            whole = table.pop("all", None)
            if whole is not None and None not in table.values():
                assert whole == sum(count or 0 for count in table.values())
                checked += 1
    assert checked == 5


REFUSED = {
    "dataset": ({"dataset": "coco"}, "--dataset coco: unknown; known are gres, refcoco, refcoco+, refcocog, refclef"),
    "partition": (
        {"dataset": "refcocog", "partition": "unc"},
        "--partition unc: refcocog has the partitions umd, google",
    ),
    "only-partition": ({"dataset": "gres", "partition": "umd"}, "--partition umd: gres has the partitions unc"),
    "crowd": ({"dataset": "gres", "crowd": "drop"}, "--crowd drop: expected keep or skip"),
    "wording": ({"dataset": "gres", "wording": "/absent/x.toml"}, "/absent/x.toml: the wording cannot be read"),
}


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED)
def test_an_unknown_choice_names_the_known_ones(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SetupError, match="^" + re.escape(message)):
        open_converter(root=".", **options)


def test_the_settings_hold_what_changes_the_output_and_no_path(tmp_path: Path) -> None:
    settings = open_converter("refcoco", root=str(tmp_path), images_root="/x", crowd="skip", seed=3).settings
    sha256 = open_converter("gres", root=".").settings["wording"]
    assert settings == {"dataset": "refcoco", "partition": "unc", "crowd": "skip", "seed": 3, "wording": sha256}


def test_present_looks_in_every_place(tmp_path: Path) -> None:
    info = DATASETS["gres"].info
    assert [there for _, there in present(info, str(tmp_path))] == [False, False, False]
    grefs.write_gres(tmp_path, images=[], annotations=[], refs=[], image_files="coco2014/train2014")
    (tmp_path / "grefcoco" / "grefs(unc).json").rename(tmp_path / "grefcoco" / "grefs(unc).p")
    assert [there for _, there in present(info, str(tmp_path))] == [True, True, True]
    assert [there for _, there in present(DATASETS["refcoco"].info, str(tmp_path))] == [False, False, True]
    assert [there for _, there in present(DATASETS["refclef"].info, str(tmp_path))] == [False, False, False]
