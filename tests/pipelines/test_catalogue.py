"""``samtok-data datasets``: both sorts, what each wants, and what of it is there."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from converters.dialogues.registry import DATASETS
from converters.masks.registry import MASK_SOURCE_INFOS, MASK_SOURCES, options_of, read_mix
from pipelines.catalogue import DIALOGUES, FORMATS, MASKS, WIDTH, describe
from samtok_data.errors import SetupError
from tests.pipelines.conftest import PROJECT


def marks(kind: str, root: Path) -> list[str]:
    """First word of each line of a file."""
    lines = [line.split() for line in describe([kind], str(root)).splitlines()]
    return [words[0] for words in lines if words and words[0] in ("present", "missing", "not")]


def touch(root: Path, names: Iterable[str]) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_every_dataset_has_a_paragraph_under_its_heading() -> None:
    text = describe([], None)
    dialogues, masks = text.split(MASKS)
    assert dialogues.startswith(DIALOGUES)
    assert [part.split(":")[0] for part in dialogues.split("\n\n")[1:] if part] == list(DATASETS)
    assert [part.split(":")[0] for part in masks.strip().split("\n\n")] == [*MASK_SOURCE_INFOS, *FORMATS]
    assert {*MASK_SOURCE_INFOS, *FORMATS} == set(MASK_SOURCES)
    assert max(map(len, masks.splitlines())) <= WIDTH + 10  # an address is not broken


def test_headings_stand_over_what_was_asked_for() -> None:
    assert MASKS not in describe(["gres"], None)
    assert DIALOGUES not in describe(["sa1b"], None)
    with pytest.raises(SetupError, match=r"'coco' is not supported; known datasets: gres, .*, sa1b, "):
        describe(["coco"], None)


def test_a_source_says_what_it_takes() -> None:
    assert describe(["sa1b"], None).partition("\n\n")[2].splitlines() == [
        "sa1b: SA-1B",
        "  sa_*.tar  tars of sa_N.jpg and sa_N.json, as published; or both of each image, unpacked",
        "    or sa_*.json, */sa_*.json",
        "  published: 11,000,000 images, 200,000,000 masks in the published training",
        "  options: --seed 0, --option min_area=1 masks_per_image=20",
        "  licence: SA-1B Dataset Research License: research only, accepted at download.",
        "  home: https://ai.meta.com/datasets/segment-anything/",
    ]
    assert "options: --option images=(needed) masks=(needed) maps=all void=0 min_area=1" in describe(
        ["index-png"], None
    )
    assert "48,436 videos" in describe(["sav"], None)
    assert "published: no counts" in describe(["lvis"], None)


def test_the_readme_has_every_source_with_its_options() -> None:
    lines = (PROJECT / "README.md").read_text().partition("| source | what | options |")[2].splitlines()
    rows = [line.split("|") for line in itertools.takewhile(lambda line: line.startswith("|"), lines[2:])]
    found = {
        kind: set(re.findall(r"`(.+?)`", options))
        for _, kinds, _, options, _ in rows
        for kind in re.findall(r"`(.+?)`", kinds)
    }
    assert found == {kind: {*options_of(kind)} - {"min_area", "seed"} for kind in MASK_SOURCES}


@pytest.mark.parametrize("name", ["mix.yaml", "validation.yaml"])
def test_the_published_recipe_names_sources_that_there_are(name: str) -> None:
    assert read_mix(PROJECT / "recipes" / "samtok-256x2" / name)


@pytest.mark.parametrize(
    ("kind", "there", "found"),
    [
        ("sa1b", ["sa_000017.tar"], ["present"]),
        ("sa1b", ["sa_000017/sa_1.json"], ["present"]),
        ("sa1b", ["other.tar"], ["missing"]),
        ("coco-instances", ["annotations/instances_train2017.json", "train2017.zip"], ["present", "present"]),
        ("coco-instances", ["annotations/instances_val2017.json", "images/train2017/1.jpg"], ["missing", "present"]),
        ("cityscapes", ["leftImg8bit_trainvaltest.zip", "gtFine/train/a/a_gtFine_polygons.json"], ["present"] * 2),
        ("mevis", ["mask_dict.json", "train/JPEGImages.zip"], ["missing", "present", "present"]),
        ("revos", ["JPEGImages/a/b/1.jpg"], ["missing", "missing", "present"]),
    ],
)
def test_what_is_there_is_present(tmp_path: Path, kind: str, there: list[str], found: list[str]) -> None:
    touch(tmp_path, there)
    assert marks(kind, tmp_path) == found


def test_another_place_is_named(tmp_path: Path) -> None:
    touch(tmp_path, ["images/train2017/1.jpg"])
    paragraph = describe(["coco-instances"], str(tmp_path)).partition("\n\n")[2]
    _, missing, others, found, *_ = paragraph.splitlines()
    assert missing == "  missing  annotations/instances_train2017.json  polygons, and RLEs of crowds"
    assert others == "           or instances_train2017.json"
    assert found == "  present  images/train2017  the photographs, or train2017.zip as published"


def test_a_folder_that_is_too_large_to_be_sure_is_not_called_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, ["a.jpg", "b.jpg"])
    monkeypatch.setattr("converters.masks.presence.MAX_NAMES", 1)
    assert marks("sa1b", tmp_path) == ["not"]


@pytest.mark.parametrize(
    ("kind", "root", "found"),
    [
        ("sav", "sav_example", ["missing", "present", "present"]),
        ("ade20k", "ade20k_2016_sample", ["present", "missing", "present"]),
        pytest.param("cityscapes", "cityscapes_mini", ["missing", "missing"], id="only val is there"),
        ("sa1b", "bsds500", ["missing"]),
    ],
)
def test_real_folders(samples: Path, kind: str, root: str, found: list[str]) -> None:
    assert marks(kind, samples / "masks" / root) == found
