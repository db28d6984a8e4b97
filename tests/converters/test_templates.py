"""Wordings: the published one, replacements, and what cannot be one."""

from __future__ import annotations

import hashlib
import random
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from converters.dialogues import templates
from samtok_data.errors import SetupError

GOOD: dict[str, Any] = {
    "task": "referring-segmentation",
    "questions": ["Show {phrase}.", "{phrase}?"],
    "label": "one of the {phrase}",
    "no_target": "Nothing.",
}


def _toml(**changes: Any) -> bytes:
    rows = ((key, value) for key, value in {**GOOD, **changes}.items() if value is not ...)
    return "\n".join(f"{key} = {value!r}" for key, value in rows).encode()


def test_the_published_wording_has_eight_questions_with_and_without_their_final_mark() -> None:
    wording = templates.open_wording()
    assert len(wording.questions) == len(set(wording.questions)) == 16
    bare = {question.rstrip(".?") for question in wording.questions}
    assert len(bare) == 8
    assert bare < set(wording.questions)
    assert "Please segment {phrase} in this image." in wording.questions
    assert (wording.label, wording.no_target) == ("{phrase}", "No target.")


def test_the_sha256_is_that_of_the_file() -> None:
    shipped = Path(templates.__file__).parent / "wording" / "referring-segmentation.toml"
    assert templates.open_wording().sha256 == hashlib.sha256(shipped.read_bytes()).hexdigest()


@pytest.mark.parametrize("protocol", ["", "file://"])
def test_a_wording_of_the_users_is_read(tmp_path: Path, protocol: str) -> None:
    (tmp_path / "mine.toml").write_bytes(_toml())
    wording = templates.open_wording(f"{protocol}{tmp_path}/mine.toml")
    assert wording.questions == ("Show {phrase}.", "{phrase}?")
    assert wording.label == "one of the {phrase}"


def test_a_wording_beside_the_working_directory_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.toml").write_bytes(_toml())
    monkeypatch.chdir(tmp_path)
    assert templates.open_wording("mine.toml").no_target == "Nothing."


def test_braces_in_a_phrase_mean_nothing() -> None:
    wording = templates.read_wording(_toml(questions=["a {phrase} b {phrase} c"]), "x")
    phrase = "{phrase} {0} {a!r} \\1 %s"
    assert wording.question(phrase, 0, "k") == f"a {phrase} b {phrase} c"


def test_the_question_depends_on_seed_and_key_alone() -> None:
    wording = templates.open_wording()
    keys = [f"gres-{number}-0" for number in range(500)]
    first = {key: wording.question("x", 7, key) for key in keys}
    random.seed(1)
    assert {key: wording.question("x", 7, key) for key in reversed(keys)} == first
    assert {wording.question("x", 7, key) for key in keys} == {q.replace("{phrase}", "x") for q in wording.questions}
    assert any(wording.question("x", 8, key) != first[key] for key in keys)


def test_known_draws() -> None:
    wording = templates.open_wording()
    assert [wording.question("x", 0, f"gres-{number}-0") for number in range(3)] == [
        "Can you highlight the x in this image with a segmentation mask?",
        "Can you highlight the x in this image with a segmentation mask",
        "Please segment x in this image",
    ]


BAD = {
    "no-toml": (b"task = ", "x.toml: no TOML file in UTF-8: "),
    "no-utf-8": (b"\xff\xfe", "x.toml: no TOML file in UTF-8: "),
    "missing-key": (_toml(label=...), "expected the keys task, questions, label, no_target, got task, questions, no_"),
    "foreign-key": (
        _toml(lable="x"),
        "expected the keys task, questions, label, no_target, got task, questions, label",
    ),
    "empty": (b"", "expected the keys task, questions, label, no_target, got none"),
    "task": (_toml(task="chat"), "expected a wording of the task 'referring-segmentation', got 'chat'"),
    "no-list": (_toml(questions="{phrase}"), "questions: expected a list of one text or more, got '{phrase}'"),
    "no-question": (_toml(questions=[]), "questions: expected a list of one text or more, got []"),
    "number": (_toml(questions=[3]), "question 1: expected a text, got 3"),
    "blank": (_toml(questions=["{phrase}", " "]), "question 2: expected a text, got ' '"),
    "no-phrase": (_toml(questions=["Segment it."]), "question 1: expected {phrase} in it, got 'Segment it.'"),
    "typo": (_toml(questions=["{phrase} {sent}"]), "question 1: {sent} stands for nothing here; the only placeholder"),
    "empty-braces": (_toml(label="{}"), "label: {} stands for nothing here; the only placeholder is {phrase}"),
    "image-mark": (_toml(questions=["<image> {phrase}"]), "question 1: '<image> {phrase}' holds '<image>', which"),
    "mask-token": (_toml(label="<|mt_start|>"), "label: '<|mt_start|>' holds '<|mt_', which has"),
    "no-answer": (_toml(no_target=""), "no_target: expected a text, got ''"),
    "phrase-in-answer": (_toml(no_target="No {phrase}."), "no_target: expected no {phrase} in it, got 'No {phrase}.'"),
}


@pytest.mark.parametrize(("data", "message"), BAD.values(), ids=BAD)
def test_what_is_no_wording_says_why(data: bytes, message: str) -> None:
    with pytest.raises(SetupError, match=re.escape(message)):
        templates.read_wording(data, "x.toml")


@pytest.mark.parametrize("name", ["absent.toml", "", ".."])
def test_a_wording_that_is_not_there_names_the_option(tmp_path: Path, name: str) -> None:
    with pytest.raises(SetupError, match=r"the wording cannot be read \(.*\); give a TOML file to --wording"):
        templates.open_wording(f"{tmp_path}/{name}")


def test_the_shipped_file_is_toml_of_the_documented_keys() -> None:
    shipped = Path(templates.__file__).parent / "wording" / "referring-segmentation.toml"
    assert list(tomllib.loads(shipped.read_text(encoding="utf-8"))) == list(GOOD)
