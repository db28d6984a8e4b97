"""Names in folders."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from converters.files.listings import list_tree
from samtok_data.errors import SetupError
from samtok_data.storage import Folder

NAMES = ("a.jpg", "one/b.jpg", "one/two/c.jpg", "one/two/three/d.jpg", ".hidden/e.jpg", "one/._b.jpg")


@pytest.mark.parametrize(("depth", "number"), [(0, 1), (1, 2), (2, 3), (9, 4)])
def test_a_tree_is_listed_to_a_depth_without_hidden_names(tmp_path: Path, depth: int, number: int) -> None:
    for name in NAMES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    with zipfile.ZipFile(tmp_path.with_suffix(".zip"), "w") as archive:
        for name in NAMES:
            archive.writestr(f"in/{name}", name)
    assert sorted(list_tree(Folder(tmp_path), depth)) == sorted(NAMES[:number])
    packed = Folder(tmp_path.parent).archive(f"{tmp_path.name}.zip")
    assert sorted(list_tree(packed / "in", depth)) == sorted(NAMES[:number])


def test_a_tree_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="nowhere: no such folder"):
        list(list_tree(Folder(tmp_path / "nowhere"), 2))
