"""Tables from object stores and zips: the same bytes as from a folder, wherever they are written."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.mixes import index_folder
from pipelines.run import tokenize
from pipelines.verify import find_outputs, verify
from samtok_data.errors import SetupError
from samtok_data.storage import Folder
from tests.conftest import BUCKET
from tests.converters.mask_sources import colour_map, columns
from tests.pipelines.mask_runs import (
    HEIGHT,
    PLACES,
    WIDTH,
    Here,
    mask_config,
    pair,
    picture,
    run_here,
    write_pictures,
    write_set,
    write_tar,
)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Here:
    return run_here(monkeypatch)


def written(out: Path | str, source: str) -> dict[str, str]:
    """sha256 of every file of a dataset's output but the summary, from wherever it lies."""
    folder = Folder(out) / source
    names = sorted(name for name in folder.walk() if not name.endswith("summary.json"))
    assert any(name.endswith(".parquet") for name in names)
    return {name: hashlib.sha256(folder.read(name)).hexdigest() for name in names}


def upload(root: Path, place: str) -> str:
    address = f"s3://{BUCKET}/{place}"
    for path in root.rglob("*"):
        if path.is_file():
            Folder(address).write(str(path.relative_to(root)), path.read_bytes())
    return address


def pack(folder: Path, archive: Path, prefix: str = "") -> Path:
    with zipfile.ZipFile(archive, "w") as packed:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                packed.writestr(f"{prefix}{path.relative_to(folder)}", path.read_bytes())
    return archive


def write_panoptic(root: Path) -> Path:
    """COCO panoptic's layout: five images of three segments."""
    images, annotations = [], []
    (root / "train2017").mkdir(parents=True)
    for number in range(1, 6):
        file = f"{number:012d}"
        (root / "train2017" / f"{file}.jpg").write_bytes(picture(number))
        colour_map(root / "panoptic_train2017" / f"{file}.png", columns(7, 300, 70000, height=HEIGHT, width=WIDTH))
        images.append({"id": number, "file_name": f"{file}.jpg", "height": HEIGHT, "width": WIDTH})
        segments = [{"id": label, "category_id": 1, "iscrowd": 0} for label in (7, 300, 70000)]
        annotations.append({"image_id": number, "file_name": f"{file}.png", "segments_info": segments})
    value = {"images": images, "annotations": annotations, "categories": []}
    (root / "panoptic_train2017.json").write_text(json.dumps(value))
    return root


def write_pairs(root: Path) -> Path:
    root.mkdir()
    for number in range(1, 6):
        for name, data in pair(number):
            (root / name).write_bytes(data)
    return root


SOURCES: dict[str, tuple[str, Callable[[Path], Path], dict[str, Any]]] = {
    "coco-panoptic": ("coco-panoptic", write_panoptic, {}),
    "index-png": ("index-png", lambda root: write_pictures(root, 5), {"option": PLACES}),
    "pairs": ("sa1b", write_pairs, {}),
    "tars": ("sa1b", write_set, {}),
}


@pytest.mark.parametrize(("kind", "write", "changes"), SOURCES.values(), ids=SOURCES)
def test_the_bytes_from_and_on_s3_are_those_of_a_folder(
    here: Here, tmp_path: Path, s3_endpoint: str, kind: str, write: Callable[[Path], Path], changes: dict[str, Any]
) -> None:
    root = write(tmp_path / "in")
    settings: dict[str, Any] = {"dataset": kind, "images_per_file": 2, **changes}
    tokenize(mask_config(root, tmp_path / "out", **settings))
    name = f"{kind}-{write.__name__.strip('<>')}"
    stored, out = upload(root, f"{name}/in"), f"s3://{BUCKET}/{name}/out"
    tokenize(mask_config(stored, tmp_path / "from", **settings))
    tokenize(mask_config(stored, out, **settings))
    assert written(tmp_path / "from", kind) == written(tmp_path / "out", kind) == written(out, kind)
    (verdict,) = verify(find_outputs(out))
    assert (verdict.problems, verdict.totals.shards) == ([], 3)
    assert tokenize(mask_config(stored, out, **settings)).new_units == 0
    for path in Path(index_folder(Folder(out))).glob("*"):  # of an output in a store it is a cache of this machine
        path.unlink() if path.is_file() else path.rmdir()


def test_tars_that_are_added_to_a_store_make_units_of_their_own(here: Here, tmp_path: Path, s3_endpoint: str) -> None:
    stored, out = upload(write_set(tmp_path / "in", (1,)), "grown/in"), f"s3://{BUCKET}/grown/out"
    tokenize(mask_config(stored, out))
    before = written(out, "sa1b")
    upload(write_set(tmp_path / "more", (0,)), "grown/in")
    here.units.clear()
    tokenize(mask_config(stored, out))
    assert here.units == [("masks", 1)]
    after = written(out, "sa1b")
    assert {name for name, digest in before.items() if after[name] != digest} == {
        "masks/.samtok/manifest.json",
        "masks/.samtok/plan.json",
    }
    Folder(stored).remove("sa_000001.tar")  # its unit is finished
    here.units.clear()
    tokenize(mask_config(stored, out))
    assert here.units == []
    assert written(out, "sa1b") == after


@pytest.mark.parametrize(("kind", "write", "changes"), list(SOURCES.values())[:3], ids=list(SOURCES)[:3])
@pytest.mark.parametrize("prefix", ["", "in/"], ids=["flat", "one folder"])
def test_the_bytes_from_a_zip_as_root_are_those_of_a_folder(
    here: Here, tmp_path: Path, kind: str, write: Callable[[Path], Path], changes: dict[str, Any], prefix: str
) -> None:
    root = write(tmp_path / "in")
    packed = pack(root, tmp_path / "packed.zip", prefix)
    settings: dict[str, Any] = {"dataset": kind, "images_per_file": 2, **changes}
    tokenize(mask_config(root, tmp_path / "out", **settings))
    tokenize(mask_config(f"{packed}/{prefix}".rstrip("/"), tmp_path / "from", **settings))
    assert written(tmp_path / "from", kind) == written(tmp_path / "out", kind)


@pytest.mark.parametrize("name", ["train2017.zip", "pictures.zip"])
def test_the_bytes_with_a_zip_of_images_are_those_of_a_folder(here: Here, tmp_path: Path, name: str) -> None:
    root = write_panoptic(tmp_path / "in")
    tokenize(mask_config(root, tmp_path / "out", dataset="coco-panoptic"))
    pack(root / "train2017", root / name, "train2017/")
    for path in (root / "train2017").iterdir():
        path.unlink()
    (root / "train2017").rmdir()
    option = {} if name == "train2017.zip" else {"images": f"{name}/train2017"}
    tokenize(mask_config(root, tmp_path / "from", dataset="coco-panoptic", option=option))
    assert written(tmp_path / "from", "coco-panoptic") == written(tmp_path / "out", "coco-panoptic")


def test_tars_in_a_zip(here: Here, tmp_path: Path) -> None:
    root = write_set(tmp_path / "in")
    tokenize(mask_config(root, tmp_path / "out"))
    tokenize(mask_config(pack(root, tmp_path / "packed.zip"), tmp_path / "from"))
    assert written(tmp_path / "from", "sa1b") == written(tmp_path / "out", "sa1b")


def test_a_damaged_zip_is_one_sentence(here: Here, tmp_path: Path) -> None:
    write_tar(tmp_path / "in", 0, [1])
    packed = pack(tmp_path / "in", tmp_path / "packed.zip")
    packed.write_bytes(packed.read_bytes()[:-30])
    with pytest.raises(SetupError, match=r"packed\.zip: the archive cannot be read"):
        tokenize(mask_config(packed, tmp_path / "out"))
