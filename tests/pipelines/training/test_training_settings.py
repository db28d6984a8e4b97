"""The configuration file of a training run: a table of faults, and what a relative path is relative to."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.training.settings import TrainSettings, read_settings
from samtok_data.errors import SetupError
from tests.pipelines.training.runs import RECIPE, write_run

PROJECT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        pytest.param({"stepz": 3}, "'stepz' is no setting; known are address, compiled, device", id="unknown"),
        pytest.param({"recipe": {"step": 3}}, "'step' is no setting of recipe; known are architecture", id="recipe"),
        pytest.param({"recipe": {"losses": {"bcee": 1}}}, "'bcee' is no setting of losses", id="losses"),
        pytest.param({"recipe": 3}, "recipe should be a mapping of settings, got 3", id="no recipe"),
        pytest.param({"mix": None}, "mix is missing", id="mix"),
        pytest.param({"out": None}, "out is missing", id="out"),
        pytest.param({"out": "memory://run"}, "out should be a folder that every process can reach", id="memory"),
        pytest.param({"workers": 0}, "workers should be at least 1, got 0", id="workers"),
        pytest.param(
            {"workers": 3}, "2 images a step cannot be divided among 3 workers; change recipe.batch", id="share"
        ),
        pytest.param({"loaders": -1}, "loaders should be at least 0, got -1", id="loaders"),
        pytest.param({"keep": 0}, "keep should be at least 1, got 0", id="keep"),
        pytest.param({"save_every": 2.5}, "save_every should be at least 1, got 2.5", id="fraction"),
        pytest.param({"log_every": True}, "log_every should be at least 1, got True", id="bool"),
        pytest.param({"images_per_pass": "8"}, "images_per_pass should be at least 1, got '8'", id="text"),
        pytest.param({"max_minutes": 0}, "max_minutes should be above 0, got 0", id="minutes"),
        pytest.param({"max_minutes": "soon"}, "max_minutes should be above 0, got 'soon'", id="minutes as text"),
        pytest.param({"device": "gpu"}, "device should be cpu or cuda, got 'gpu'", id="device"),
        pytest.param({"compiled": "no"}, "compiled should be true or false, got 'no'", id="compiled"),
        pytest.param({"overwrite": 1}, "overwrite should be true or false, got 1", id="overwrite"),
        pytest.param({"validation": 3}, "validation should be a text, got 3", id="validation"),
        pytest.param({"address": 3}, "address should be a text, got 3", id="address"),
    ],
)
def test_a_fault_in_the_file_is_named(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    path = write_run(tmp_path)
    values = {**yaml.safe_load(path.read_text()), **change}
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(SetupError, match=re.escape(sentence)):
        read_settings(str(path))
    assert sorted(os.listdir(tmp_path)) == ["mix.yaml", "train.yaml"]


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        pytest.param(b"mix: [", "no valid YAML", id="yaml"),
        pytest.param(b"mix: \xff", "no valid YAML", id="bytes"),
        pytest.param(b"- mix", "expected a mapping of settings", id="list"),
        pytest.param(b"", "expected a mapping of settings", id="empty"),
        pytest.param(b"1: 2", "1 is no setting", id="number as name"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, data: bytes, sentence: str) -> None:
    path = tmp_path / "train.yaml"
    path.write_bytes(data)
    with pytest.raises(SetupError, match=re.escape(f"--config {path}: {sentence}")):
        read_settings(str(path))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"^--config .*gone\.yaml: No such file or directory$"):
        read_settings(str(tmp_path / "gone.yaml"))


def test_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    paths: dict[str, Any] = {"mix": "../a/mix.yaml", "validation": "~/validation.yaml", "out": "s3://bucket/run"}
    write_run(tmp_path / "b", recipe={"sam2_weights": "weights/sam2.pt"}, **paths)
    settings = read_settings("b/train.yaml")
    assert os.path.normpath(settings.mix) == f"{tmp_path}/a/mix.yaml"
    assert settings.validation == "/home/somebody/validation.yaml"
    assert settings.out == "s3://bucket/run"
    assert settings.recipe.sam2_weights == f"{tmp_path}/b/weights/sam2.pt"


@pytest.mark.parametrize(
    ("initial", "expected"),
    [
        ("small", "small"),
        ("samtok-256x2", "samtok-256x2"),
        ("first.safetensors", "{folder}/first.safetensors"),
        ("hf://owner/name/file.pth", "hf://owner/name/file.pth"),
        ("/elsewhere/first.pth", "/elsewhere/first.pth"),
    ],
)
def test_a_tokenizer_to_go_on_from_is_a_name_or_a_file(tmp_path: Path, initial: str, expected: str) -> None:
    path = write_run(tmp_path, recipe={"initial": initial})
    assert read_settings(str(path)).recipe.initial == expected.format(folder=tmp_path)


def test_what_is_given_on_the_command_line_counts_instead(tmp_path: Path) -> None:
    path = write_run(tmp_path, workers=2)
    settings = read_settings(str(path), out="elsewhere", workers=1, loaders=None, overwrite=None)
    assert (settings.out, settings.workers, settings.loaders, settings.overwrite) == ("elsewhere", 1, 0, False)


def test_what_is_left_away_has_its_default(tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    path.write_text("mix: mix.yaml\nout: out\n")
    expected = TrainSettings(mix=f"{tmp_path}/mix.yaml", out=f"{tmp_path}/out")
    assert read_settings(str(path)) == expected
    assert expected.recipe.json["steps"] != RECIPE["steps"]


@pytest.mark.parametrize("path", sorted((PROJECT / "recipes").rglob("train*.yaml")), ids=lambda path: path.parent.name)
def test_the_recipes_of_the_project_can_be_read(path: Path) -> None:
    assert read_settings(str(path)).recipe.steps > 0
