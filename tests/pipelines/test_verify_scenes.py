"""Scenes that stand in several tables: some pairs of tables are read again to name one, the others are counted."""

from __future__ import annotations

import pytest

from pipelines import verify_scenes
from pipelines.verify_scenes import SceneTables
from samtok_data.storage import Folder


def test_of_many_pairs_of_tables_some_are_named_and_the_others_counted(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables, held = SceneTables(), dict[str, set[str]]()
    for number in range(300):  # each twice, as of a folder of tars that was copied
        held[f"t{number}"] = {f"scene {number % 150} {place}" for place in range(1000)}
        tables.add(f"t{number}", held[f"t{number}"])
    read: list[str] = []

    def scenes_of(_folder: Folder, table: str) -> set[str]:
        read.append(table)
        return held[table]

    monkeypatch.setattr(verify_scenes, "_scenes_of", scenes_of)
    problems = list(tables.problems(Folder(str(tmp_path))))
    assert len(problems) == 21
    assert problems[3] == "t153: scene scene 3 0 stands in t3 as well (and 999 more)"
    assert problems[-1] == f"{tmp_path}: 130 more pairs of tables seem to have scenes in common"
    assert len(read) == 40


def test_no_tables_and_one_have_no_problems(tmp_path: object) -> None:
    tables = SceneTables()
    assert list(tables.problems(Folder(str(tmp_path)))) == []
    tables.add("t0", {"a", "b"})
    tables.add("t1", set())
    assert list(tables.problems(Folder(str(tmp_path)))) == []
