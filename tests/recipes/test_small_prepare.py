"""The whole program on tiny repositories: what it writes, when it refuses, and that a test image cannot leak."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from clones import FOLDER, REPOSITORY, commit, encoded, git, photograph, png, rectangle
from PIL import Image

from recipes.small.prepare import matlab
from recipes.small.prepare.__main__ import main
from recipes.small.prepare.build import FINDERS, READERS, build_source
from recipes.small.prepare.leaks import Seen, check_leaks, thumbnail_of
from recipes.small.prepare.repositories import open_repository
from recipes.small.prepare.table import SOURCES, Part, read_sources
from samtok_data.errors import SetupError

RECIPE = SOURCES.parents[1]
LINE = f"git clone --bare https://github.com/{REPOSITORY} "
TABLE = """
[[source]]
name = "coco128"
folder = "coco128"
kind = "yolo"
images = 2
masks = 2
sha256 = "{yolo}"
options = {{held_out_every = 3}}
part = [{{repository = "{repository}", commit = "{commit}", licence = "MIT", paths = {{images = "i", labels = "l"}}}}]

[[source]]
name = "davis"
folder = "extra/davis"
kind = "label-maps"
images = 1
masks = 1
sha256 = "{maps}"
longest_side = 48
options = {{map_ending = ".png", image_ending = ".png", void = [0]}}
part = [{{repository = "{repository}", commit = "{commit}", licence = "MIT", paths = {{folders = [{folder}]}}}}]
"""
HELD_OUT, TRAINED, OTHER = photograph(3), photograph(4), photograph(5)


def clone_with(folder: Path, other: Image.Image, name: str = "other") -> str:
    """A repository of a held-out image, a training image, and one more image with a label map."""
    label = b"1 0.25 0.25 0.5 0.25 0.5 0.75 0.25 0.75\n"
    files = {"i/003.jpg": encoded(HELD_OUT, "JPEG"), "i/004.jpg": encoded(TRAINED, "JPEG")}
    files |= {"l/003.txt": label, "l/004.txt": label}
    shape = (other.height, other.width)
    files |= {f"p/{name}.png": encoded(other), f"m/{name}.png": png(rectangle(0, 0, 20, 20, shape))}
    return commit(folder, files)


def table_at(tmp_path: Path, at: str, **digests: str) -> Path:
    path = tmp_path / "sources.toml"
    path.write_text(
        TABLE.format(
            repository=REPOSITORY,
            commit=at,
            folder='{maps = "m", images = "p"}',
            **{"yolo": "", "maps": "", **digests},
        )
    )
    return path


def run(tmp_path: Path, table: Path, *options: str) -> Result:
    arguments = ["--repositories", str(tmp_path / "clones"), "--out", str(tmp_path / "out"), "--sources", str(table)]
    return CliRunner().invoke(main, [*arguments, *options])


def written(tmp_path: Path) -> list[str]:
    out = tmp_path / "out"
    return sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())


EXPECTED = [
    "coco128/heldout.json",
    "coco128/images/003.jpg",
    "coco128/images/004.jpg",
    "coco128/train.json",
    "extra/davis/davis.json",
    "extra/davis/images/other.jpg",
]


def test_everything_is_written_and_masks_that_differ_from_the_table_are_named(tmp_path: Path) -> None:
    at = clone_with(tmp_path / "clones", OTHER)
    done = run(tmp_path, table_at(tmp_path, at))
    assert done.exit_code == 1
    assert "written, but the masks of coco128, davis are not those that `small` saw" in done.output
    assert "davis      1 images       1 masks" in done.output
    assert written(tmp_path) == EXPECTED
    assert [path.name for path in (tmp_path / "out").iterdir() if path.name.startswith(".")] == []


def test_masks_as_in_the_table_end_well_and_a_second_run_replaces_nothing_by_itself(tmp_path: Path) -> None:
    table = table_at(tmp_path, clone_with(tmp_path / "clones", OTHER))
    digests = [build_source(source, tmp_path / "clones").digest for source in read_sources(table)]
    at = read_sources(table)[0].parts[0].commit
    table = table_at(tmp_path, at, yolo=digests[0], maps=digests[1])
    assert run(tmp_path, table).exit_code == 0
    (tmp_path / "out/extra/davis/images/stale.jpg").write_bytes(b"")
    before = written(tmp_path)
    again = run(tmp_path, table)
    assert again.exit_code == 1
    assert "coco128, extra/davis: already there; remove it or add --overwrite" in again.output
    assert written(tmp_path) == before
    assert run(tmp_path, table, "--overwrite").exit_code == 0
    assert written(tmp_path) == EXPECTED


@pytest.mark.parametrize(
    "planted",
    [
        pytest.param(HELD_OUT, id="as it is"),
        pytest.param(HELD_OUT.transpose(Image.Transpose.FLIP_LEFT_RIGHT), id="mirrored"),
        pytest.param(HELD_OUT.resize((48, 32)), id="shrunk"),
        pytest.param(HELD_OUT.resize((48, 32)).transpose(Image.Transpose.FLIP_LEFT_RIGHT), id="shrunk and mirrored"),
        pytest.param(HELD_OUT.convert("L").convert("RGB"), id="grey"),
    ],
)
def test_a_planted_copy_of_a_test_image_stops_the_program(tmp_path: Path, planted: Image.Image) -> None:
    done = run(tmp_path, table_at(tmp_path, clone_with(tmp_path / "clones", planted)))
    assert done.exit_code == 1
    assert "extra/davis/images/other.jpg looks like coco128/images/003.jpg" in done.output
    assert written(tmp_path) == []


def test_a_test_images_name_stops_the_program(tmp_path: Path) -> None:
    done = run(tmp_path, table_at(tmp_path, clone_with(tmp_path / "clones", OTHER, name="003")))
    assert done.exit_code == 1
    assert "extra/davis/images/003.jpg has the name of coco128/images/003.jpg" in done.output
    assert written(tmp_path) == []


def test_different_photographs_are_no_leak_and_the_highest_likeness_is_told() -> None:
    seen = [Seen(f"{seed}.jpg", seed < 5, thumbnail_of(photograph(seed))) for seed in range(40)]
    assert 0 < check_leaks(seen) < 0.9
    assert check_leaks(seen[:5]) == 0


def test_missing_repositories_are_named_with_the_line_that_gets_them(tmp_path: Path) -> None:
    done = run(tmp_path, table_at(tmp_path, "0" * 40))
    assert done.exit_code == 1
    assert done.output.count(LINE) == 1  # two sources ask for it
    assert done.output.startswith(f"Error: {REPOSITORY}: no clone under {tmp_path / 'clones'}; run: {LINE}")
    assert done.output.rstrip().endswith(str(tmp_path / "clones" / FOLDER))
    assert not (tmp_path / "out").exists()


def test_a_wrong_commit_is_refused(tmp_path: Path) -> None:
    clone_with(tmp_path / "clones", OTHER)
    done = run(tmp_path, table_at(tmp_path, "0" * 40))
    assert done.exit_code == 1
    assert f"has no commit {'0' * 40}; remove it and run: {LINE}" in done.output
    assert not (tmp_path / "out").exists()


def test_an_older_commit_is_read_as_it_was(tmp_path: Path) -> None:
    at = commit(tmp_path, {"a/b.txt": b"then"})
    assert commit(tmp_path, {"a/b.txt": b"now", "c.txt": b""}) != at
    with open_repository(tmp_path, part_at(at)) as repository:
        assert repository.files == {"a/b.txt"}
        assert repository.read("a/b.txt") == b"then"


def part_at(at: str) -> Part:
    return Part(repository=REPOSITORY, commit=at, licence="", paths={})


@pytest.mark.parametrize("place", [FOLDER, "someone__pictures", f"{FOLDER}/repo", "someone__pictures/any.git"])
@pytest.mark.parametrize("bare", [False, True])
def test_clones_are_found_in_every_layout(tmp_path: Path, place: str, bare: bool) -> None:
    at = commit(tmp_path, {"a b/ü.txt": b"text\n", "a bc": b""}, "origin")
    (tmp_path / "clones" / place).parent.mkdir(parents=True, exist_ok=True)
    kind = ["--bare"] if bare else ["--no-checkout"]
    git(tmp_path, "clone", "--quiet", *kind, str(tmp_path / "origin"), str(tmp_path / "clones" / place))
    with open_repository(tmp_path / "clones", part_at(at)) as repository:
        assert repository.below("a b") == ["a b/ü.txt"]
        assert repository.read("a b/ü.txt") == b"text\n"


def test_a_file_that_a_partial_clone_lacks_is_named(tmp_path: Path) -> None:
    at = commit(tmp_path, {"a.txt": b"lost", "b.txt": b"there"})
    lost = git(tmp_path / FOLDER, "rev-parse", f"{at}:a.txt")
    (tmp_path / FOLDER / ".git" / "objects" / lost[:2] / lost[2:]).unlink()
    with open_repository(tmp_path, part_at(at)) as repository:
        with pytest.raises(SetupError, match=rf"a\.txt of commit {at} cannot be read; is the clone whole"):
            repository.read("a.txt")
        assert repository.read("b.txt") == b"there"


def test_without_scipy_the_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(matlab.importlib, "import_module", absent)
    with pytest.raises(SetupError, match="pip install scipy"):
        matlab.read_mat(b"")


def test_the_table_holds_what_the_mixes_name_and_nothing_else() -> None:
    mixes = [yaml.safe_load((RECIPE / name).read_text()) for name in ("mix.yaml", "test.yaml")]
    named = {entry["root"].removeprefix("data/") for mix in mixes for entry in mix["sources"]}
    table = read_sources()
    folders = {source.folder for source in table}
    assert folders == named
    assert {source.kind for source in table} == set(READERS | FINDERS)


def test_the_readme_lists_every_repository_of_the_table() -> None:
    text = (RECIPE / "README.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    for source in read_sources():
        for part in source.parts:
            found = [row for row in rows if part.repository in row]
            assert found, part.repository
            assert part.commit in found[0]
            assert part.licence in found[0]
        counts = [row for row in rows if f"`{source.folder}`" in row]
        assert counts, source.folder
        assert f"| {source.images:,} | {source.masks:,} |" in counts[0]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        pytest.param('kind = "yolo"', 'kid = "yolo"', "unexpected keyword argument 'kid'", id="unknown"),
        pytest.param('licence = "MIT", ', "", "missing 1 required", id="missing"),
        pytest.param('commit = "', 'commit = "x', "commit: expected 40 hex digits", id="commit"),
        pytest.param("someone/", "", "expected owner/name, got 'pictures'", id="repository"),
        pytest.param("images = 2", 'leave_out = ["davis"]\nimages = 2', "stands below: ", id="order"),
        pytest.param('"davis"', '"coco128"', "coco128: listed twice", id="twice"),
    ],
)
def test_a_faulty_table_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    table = table_at(tmp_path, "0" * 40)
    table.write_text(table.read_text().replace(old, new))
    with pytest.raises(SetupError, match=message):
        read_sources(table)


def test_a_full_disk_leaves_no_part_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at = clone_with(tmp_path / "clones", OTHER)

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("samtok_data.storage.os.fsync", full)
    done = run(tmp_path, table_at(tmp_path, at))
    assert done.exit_code == 1
    assert "No space left on device" in done.output
    assert written(tmp_path) == []
    shutil.rmtree(tmp_path / "out")
