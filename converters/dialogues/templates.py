"""The wording of referring segmentation: questions, the label of an answer's items, the answer without a target.

A wording is a TOML file with exactly these keys:

    task = "referring-segmentation"
    questions = ["Please segment {phrase} in this image.", ...]     each holds {phrase}
    label = "{phrase}"
    no_target = "No target."

``converters/dialogues/wording/referring-segmentation.toml`` is the one of the released SAMTok models.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import posixpath
import random
import re
import tomllib
from dataclasses import dataclass
from typing import Any

from samtok_data.dialogues import check_text
from samtok_data.errors import RecordError, SetupError
from samtok_data.storage import Folder

TASK = "referring-segmentation"
PHRASE = "{phrase}"

_KEYS = ("task", "questions", "label", "no_target")
_PLACEHOLDER = re.compile(r"\{\w*\}")


@dataclass(frozen=True, slots=True)
class Wording:
    """Texts of one task; ``PHRASE`` in them stands for the sentence.

    Attributes:
        questions: one is drawn for each dialogue.
        label: of every item of an answer.
        no_target: the whole answer where the sentence fits nothing.
        sha256: of the file, hex.
    """

    questions: tuple[str, ...]
    label: str
    no_target: str
    sha256: str

    def question(self, phrase: str, seed: int, key: str) -> str:
        """The question of one dialogue: it depends on the seed and the key alone, never on order or worker."""
        # Of all draws, only random() is promised to stay the same in every version of Python.
        number = random.Random(f"{seed}/{key}").random()
        return fill(self.questions[int(number * len(self.questions))], phrase)


def fill(template: str, phrase: str) -> str:
    """The template with the phrase in it; braces in the phrase mean nothing."""
    return template.replace(PHRASE, phrase)


def open_wording(address: str | None = None) -> Wording:
    """Reads a wording.

    Args:
        address: a TOML file, by path or ``protocol://path``; None for the published wording.

    Raises:
        SetupError: the file is not there or is no such wording.
    """
    if address is None:
        shipped = importlib.resources.files("converters.dialogues") / "wording" / f"{TASK}.toml"
        return read_wording(shipped.read_bytes(), shipped.name)
    folder, name = posixpath.split(address)
    try:
        data = Folder(folder or ".").read(name)
    except (OSError, ValueError) as error:
        raise SetupError(f"{address}: the wording cannot be read ({error}); give a TOML file to --wording") from error
    return read_wording(data, address)


def read_wording(data: bytes, label: str) -> Wording:
    """Reads the bytes of a wording file.

    Args:
        data: TOML, UTF-8.
        label: the file's name for messages.

    Raises:
        SetupError: it is no TOML, lacks a text, holds a foreign key, or a text cannot be used.
    """
    try:
        table = tomllib.loads(data.decode("utf-8"))
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        raise SetupError(f"{label}: no TOML file in UTF-8: {error}") from error
    if sorted(table) != sorted(_KEYS):
        found = ", ".join(table) or "none"
        raise SetupError(f"{label}: expected the keys {', '.join(_KEYS)}, got {found}")
    if table["task"] != TASK:
        raise SetupError(f"{label}: expected a wording of the task {TASK!r}, got {table['task']!r}")
    questions = table["questions"]
    if not isinstance(questions, list) or not questions:
        raise SetupError(f"{label}: questions: expected a list of one text or more, got {questions!r}")
    for number, question in enumerate(questions, start=1):
        _check(question, f"{label}: question {number}")
        if PHRASE not in question:
            raise SetupError(f"{label}: question {number}: expected {PHRASE} in it, got {question!r}")
    _check(table["label"], f"{label}: label")
    _check(table["no_target"], f"{label}: no_target")
    if PHRASE in table["no_target"]:
        raise SetupError(f"{label}: no_target: expected no {PHRASE} in it, got {table['no_target']!r}")
    return Wording(tuple(questions), table["label"], table["no_target"], hashlib.sha256(data).hexdigest())


def _check(text: Any, where: str) -> None:
    if not isinstance(text, str) or not text.strip():
        raise SetupError(f"{where}: expected a text, got {text!r}")
    for placeholder in _PLACEHOLDER.findall(text):
        if placeholder != PHRASE:
            raise SetupError(f"{where}: {placeholder} stands for nothing here; the only placeholder is {PHRASE}")
    try:
        check_text(text)
    except RecordError as error:
        raise SetupError(f"{where}: {error.message.removeprefix('sentence: ')}") from error
