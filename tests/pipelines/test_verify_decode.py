"""verify and decode as a user meets them: what they find in an output, and the sentence that names it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.run import Summary
from samtok_data.shards import unpack
from tests.pipelines.commands import invoke


@pytest.fixture
def copied(reference: tuple[Path, Summary], tmp_path: Path) -> Path:
    """A finished output that a test may spoil."""
    shutil.copytree(reference[0], tmp_path / "out")
    return tmp_path / "out"


def flip_byte(folder: Path) -> None:
    path = folder / "gres-train-000001.tar"
    data = bytearray(path.read_bytes())
    data[700] ^= 1
    path.write_bytes(bytes(data))


def change_manifest(folder: Path) -> None:
    """A shard whose checksum fits and whose samples do not: one sample too few in the entry."""
    path = folder / ".samtok" / "manifest.json"
    manifest = json.loads(path.read_bytes())
    manifest["units"][0]["samples"] += 1
    path.write_text(json.dumps(manifest))


def change_run(folder: Path) -> None:
    path = folder / ".samtok" / "run.json"
    run = json.loads(path.read_bytes())
    run["fingerprint"]["limit"] = 5
    path.write_text(json.dumps(run))


def change_totals(folder: Path) -> None:
    path = folder / ".samtok" / "manifest.json"
    manifest = json.loads(path.read_bytes())
    manifest["totals"]["masks"] += 1
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (flip_byte, "gres-train-000001.tar: its sha256 is not the manifest's; delete it and run tokenize again"),
        (lambda folder: (folder / "gres-train-000002.tar").unlink(), "gres-train-000002.tar: in the manifest, but not"),
        (lambda folder: (folder / "extra.tar").write_bytes(b""), "extra.tar: not in the manifest"),
        (lambda folder: (folder / ".samtok" / "manifest.json").unlink(), "the run is not complete"),
        (change_totals, "the manifest's totals are not the sums of its units"),
        (lambda folder: (folder / ".samtok" / "manifest.json").write_text("{"), "the manifest is damaged"),
        (change_run, "the manifest is of another run than the run file"),
        (
            lambda folder: shutil.rmtree(folder / ".samtok" / "rejects"),
            "unit 2: rejects {'annotation-missing': 1} in the manifest, {} in the list",
        ),
        (change_manifest, "unit 0: its samples and rejects are not its 13 records"),
    ],
    ids=[
        "flipped byte",
        "lost shard",
        "foreign tar",
        "incomplete",
        "wrong totals",
        "damaged",
        "another run",
        "lost rejects",
        "wrong count",
    ],
)
def test_verify_finds_what_is_wrong(copied: Path, spoil: Callable[[Path], object], words: str) -> None:
    assert invoke("verify", str(copied)).exit_code == 0
    spoil(copied / "gres" / "train")
    result = invoke("verify", str(copied))
    assert result.exit_code == 1
    assert words in result.output


@pytest.mark.parametrize("is_relative", [False, True])
@pytest.mark.parametrize("level", ["", "gres", "gres/train"])
def test_verify_takes_any_level_of_the_output(
    copied: Path, monkeypatch: pytest.MonkeyPatch, level: str, is_relative: bool
) -> None:
    if is_relative:
        monkeypatch.chdir(copied / level)
    result = invoke("verify", "." if is_relative else str(copied / level))
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[1].split() == ["gres/train", "8", "67", "57", "1", "0"]


def test_verify_of_an_empty_folder_says_so(tmp_path: Path) -> None:
    result = invoke("verify", str(tmp_path))
    assert result.exit_code == 1
    assert "no run of samtok-data lies here" in result.stderr


def test_decode_draws_every_word(copied: Path, tmp_path: Path) -> None:
    shard = copied / "gres" / "train" / "gres-train-000000.tar"
    result = invoke("decode", str(shard), "--out", str(tmp_path / "png"), "--limit", "3")
    assert result.exit_code == 0, result.output
    samples = list(unpack(shard.read_bytes()))[:3]
    pictures = sorted(path.stem for path in (tmp_path / "png").glob("*.png"))
    assert pictures == sorted(sample.key for sample in samples)
    with Image.open(tmp_path / "png" / f"{pictures[0]}.png") as sheet:
        assert np.asarray(sheet).std() > 0
    assert result.output.startswith("3 overlays of 3 masks in ")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sha256": "f" * 64}, "(sha256 ffffffffffff), not by small"),
        ({"name": "ours"}, "was made by the tokenizer ours: say where it is with --tokenizer"),
    ],
    ids=["other weights", "a checkpoint"],
)
def test_decode_refuses_the_words_of_another_tokenizer(
    copied: Path, tmp_path: Path, changes: dict[str, str], words: str
) -> None:
    path = copied / "gres" / "train" / ".samtok" / "units" / "000000.json"
    fields = json.loads(path.read_bytes())
    fields["tokenizer"] |= changes
    path.write_text(json.dumps(fields))
    shard = copied / "gres" / "train" / "gres-train-000000.tar"
    result = invoke("decode", str(shard), "--out", str(tmp_path / "png"))
    assert result.exit_code == 1
    assert words in result.stderr


def test_decode_wants_the_run_beside_the_shard(copied: Path, tmp_path: Path) -> None:
    shutil.copy(copied / "gres" / "train" / "gres-train-000000.tar", tmp_path / "stray.tar")
    result = invoke("decode", str(tmp_path / "stray.tar"), "--out", str(tmp_path / "png"))
    assert result.exit_code == 1
    assert "no run of samtok-data lies here" in result.stderr
