"""Opening a source by its kind, and the file that says which sources are mixed."""

from __future__ import annotations

import builtins
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from converters.masks.registry import MASK_SOURCES, Mixed, open_mask_source, open_mix, read_mix
from samtok_data.errors import SetupError
from samtok_data.storage import Folder
from tests.conftest import BUCKET
from tests.converters.mask_sources import (
    areas,
    coco_annotation,
    coco_image,
    columns,
    label_map,
    photograph,
    read_all,
    write_coco,
)

BSDS: dict[str, Any] = {"kind": "index-png", "root": "bsds", "images": "images", "masks": "segments"}
COCO: dict[str, Any] = {"kind": "coco-instances", "root": "coco", "json": "instances.json", "images": "images"}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    photograph(tmp_path / "bsds" / "images" / "one.jpg")
    label_map(tmp_path / "bsds" / "segments" / "one_a1.png", columns(1, 2, 2))
    write_coco(tmp_path / "coco", [coco_image(1)], [coco_annotation(10, 1)])
    return tmp_path


def mix_file(folder: Path, *sources: Any) -> Path:
    path = folder / "mix.yaml"
    path.write_text(yaml.safe_dump({"sources": list(sources)}))
    return path


def test_a_mix_is_opened_in_the_order_of_its_file(data: Path) -> None:
    path = mix_file(data, {**BSDS, "name": "bsds500", "weight": 2, "min_area": 900}, COCO)
    (bsds, two), (coco, one) = open_mix(path, str(data / "index"))
    assert (bsds.name, two, coco.name, one) == ("bsds500", 2.0, "coco-instances", 1.0)
    assert areas(read_all(bsds)[0][0]) == {"a1-2": 1600}
    assert areas(read_all(coco)[0][0]) == {"10": 100}


def test_a_mix_is_read_without_its_sources(tmp_path: Path) -> None:
    (mixed,) = read_mix(mix_file(tmp_path, {**BSDS, "weight": 0.5, "maps": "first"}))
    assert mixed == Mixed(
        kind="index-png",
        root=str(tmp_path / "bsds"),
        name="index-png",
        options={"images": "images", "masks": "segments", "maps": "first"},
        weight=0.5,
    )


@pytest.mark.parametrize(
    ("root", "found"), [("/data/a", "/data/a"), ("s3://b/a", "s3://b/a"), ("../a", "{folder}/../a")]
)
def test_only_relative_roots_follow_the_file(tmp_path: Path, root: str, found: str) -> None:
    (mixed,) = read_mix(mix_file(tmp_path, {**BSDS, "root": root}))
    assert mixed.root == found.format(folder=tmp_path)


def test_a_relative_address_of_the_file_is_one_of_the_working_folder(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mix_file(data, BSDS)
    monkeypatch.chdir(data)
    assert [mixed.root for mixed in read_mix("mix.yaml")] == [str(data / "bsds")]


ENTRIES: dict[str, tuple[list[Any], str]] = {
    "no object": (["bsds"], "source 1: expected an object with kind and root, got 'bsds'"),
    "no kind": (
        [{"root": "a"}],
        "source 1: kind: expected one of sa1b, coco-instances, coco-panoptic, index-png, binary-",
    ),
    "unknown kind": ([{**BSDS, "kind": "coco"}], "source 1: kind: expected one of "),
    "kind is a list": ([{**BSDS, "kind": []}], "source 1: kind: expected one of "),
    "no root": ([COCO, {**BSDS, "root": None}], "source 2: root: expected the source's folder, got None"),
    "unknown field": (
        [{**BSDS, "mask": "a"}],
        "source 1: index-png: no option mask; known are images, masks, maps, void",
    ),
    "a number as field": ([{**BSDS, 3: "a"}], "source 1: index-png: no option 3"),
    "no options": ([{"kind": "index-png", "root": "a"}], "source 1: index-png: the option images and masks is needed"),
    "weight 0": ([{**BSDS, "weight": 0}], "source 1: weight: expected a number above 0, got 0"),
    "negative weight": ([{**BSDS, "weight": -1}], "weight: expected a number above 0, got -1"),
    "no end": ([{**BSDS, "weight": float("inf")}], "weight: expected a number above 0, got inf"),
    "no number": ([{**BSDS, "weight": float("nan")}], "weight: expected a number above 0, got nan"),
    "text as weight": ([{**BSDS, "weight": "2"}], "weight: expected a number above 0, got '2'"),
    "yes as weight": ([{**BSDS, "weight": True}], "weight: expected a number above 0, got True"),
    "name with space": (
        [{**BSDS, "name": "my set"}],
        "source 1: name: expected lower-case letters, digits and hyphens",
    ),
    "same name": ([BSDS, BSDS], "source 2: a second source is called index-png; give it another name"),
    "empty": ([], "sources: expected a list of at least one source"),
}


@pytest.mark.parametrize(("sources", "message"), ENTRIES.values(), ids=ENTRIES)
def test_a_wrong_entry_is_named(tmp_path: Path, sources: list[Any], message: str) -> None:
    with pytest.raises(SetupError) as caught:
        read_mix(mix_file(tmp_path, *sources))
    assert str(caught.value).startswith(f"{tmp_path}/mix.yaml: ")
    assert message in str(caught.value)


TEXTS = {
    "a list": ("- kind: sa1b", "expected one field, sources, with a list of sources"),
    "another field": ("sources: []\nseed: 3", "expected one field, sources, with a list of sources"),
    "no YAML": ("sources: [", "no YAML that can be read: "),
    "an object of Python": (
        "sources: !!python/object/apply:os.getcwd []",
        "no YAML that can be read: could not determine",
    ),
    "empty": ("", "expected one field, sources"),
}


@pytest.mark.parametrize(("text", "message"), TEXTS.values(), ids=TEXTS)
def test_a_file_that_is_no_mix_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mix.yaml").write_text(text)
    with pytest.raises(SetupError) as caught:
        read_mix(tmp_path / "mix.yaml")
    assert f"mix.yaml: {message}" in str(caught.value)


def test_a_mix_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"mix\.yaml: cannot be read: "):
        read_mix(tmp_path / "mix.yaml")


def test_a_source_of_a_mix_that_cannot_be_opened_is_named(data: Path) -> None:
    path = mix_file(data, BSDS, {**COCO, "name": "coco", "json": "nothing.json"})
    with pytest.raises(SetupError, match=r"^source coco: .*nothing\.json: no such file"):
        open_mix(path, str(data / "index"))


def test_every_kind_refuses_an_unknown_option_and_a_root_that_is_not_there(tmp_path: Path) -> None:
    assert {"sa1b", "index-png", "coco-panoptic"} <= set(MASK_SOURCES)
    for kind in MASK_SOURCES:
        needed = BSDS if kind in ("index-png", "binary-png") else {}
        options = {field: value for field, value in needed.items() if field not in ("kind", "root")}
        with pytest.raises(SetupError, match=rf"{re.escape(kind)}: no option colour; known are .*min_area"):
            open_mask_source(kind, root=str(tmp_path), index="index", colour="red", **options)
        with pytest.raises(SetupError, match="nowhere: no such folder; name the source's folder with root"):
            open_mask_source(kind, root=str(tmp_path / "nowhere"), index="index", **options)
        with pytest.raises(SetupError, match="min_area: expected a whole number from 1 on, got '9'"):
            open_mask_source(kind, root=str(tmp_path), index="index", min_area="9", **options)


def test_only_sources_of_coco_need_ijson(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "ijson":
            raise ImportError(name)
        return load(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    root, index = str(data / "bsds"), str(data / "index")
    open_mask_source("index-png", root=root, index=index, images="images", masks="segments")
    with pytest.raises(SetupError, match=r"install it with: pip install 'samtok-data\[train\]'"):
        open_mask_source("coco-instances", root=str(data / "coco"), index=index, json="instances.json", images="images")


def test_settings_say_what_is_yielded_and_not_where_it_lies(data: Path) -> None:
    path = mix_file(data, {**BSDS, "name": "a"}, COCO)
    before = [source.settings for source, _ in open_mix(path, str(data / "index"))]
    data.rename(data.with_name("moved"))
    moved = data.with_name("moved")
    after = [source.settings for source, _ in open_mix(moved / "mix.yaml", str(moved / "index"))]
    assert [json.dumps(dict(one)) for one in after] == [json.dumps(dict(one)) for one in before]
    assert str(moved) not in json.dumps([dict(one) for one in after])


def test_a_mix_and_its_sources_on_s3(s3_endpoint: str, data: Path) -> None:
    address = f"s3://{BUCKET}/mix"
    mix_file(data, BSDS, COCO)
    for path in data.rglob("*"):
        if path.is_file():
            Folder(address).write(path.relative_to(data).as_posix(), path.read_bytes())
    opened = open_mix(f"{address}/mix.yaml", str(data / "index"))
    here = open_mix(data / "mix.yaml", str(data / "index"))
    for (there, _), (source, _) in zip(opened, here, strict=True):
        assert there.settings == source.settings
        images, rejects = read_all(there)
        assert [image.scene for image in images] == [image.scene for image in read_all(source)[0]]
        assert rejects == []
        assert images[0].open().size == (60, 40)
    assert len(list((data / "index").glob("*.sqlite"))) == 2  # the same bytes, the same index
