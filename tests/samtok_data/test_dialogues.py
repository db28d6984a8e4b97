"""From structured answers to text that holds mask words."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samtok_data.dialogues import check_text, json_text, render, render_turn
from samtok_data.errors import RecordError
from samtok_data.scenes import Dialogue, MaskRef, Turn
from samtok_data.words import MaskVocabulary

CAT, DOG = MaskRef("cat"), MaskRef("dog", "crop")
WORDS = {CAT: MaskVocabulary().format((11, 91)), DOG: MaskVocabulary().format((3, 0))}

NASTY = [
    'the "left" one',
    "back\\slash",
    "two\nlines\r\n\ttab",
    "\u0000\u001f\u007f",
    "\u2028 and \u2029",
    "größer, 猫, кот",
    "\U0001f9d1\u200d\U0001f680 astronaut",
    "</s> {} [] ,: null",
    '"mask": "',
    "%s {0} $x",
    "\ufdcf\ufdd1\ufffe",
    "",
]


def spoken(value: Any, *, indent_items: bool = False) -> str:
    """The text of an answer, rendered."""
    return render_turn(Turn("gpt", json_text(value, indent_items=indent_items)), WORDS)["value"]


def with_words(value: Any) -> Any:
    """The structure with words for references."""
    if isinstance(value, MaskRef):
        return WORDS[value]
    if isinstance(value, dict):
        return {name: with_words(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [with_words(part) for part in value]
    return value


@pytest.mark.parametrize("phrase", NASTY)
@pytest.mark.parametrize("indent_items", [False, True])
def test_an_answer_is_valid_json_whatever_the_phrase(phrase: str, indent_items: bool) -> None:
    answer = [{"label": phrase, "mask": CAT}, {phrase: [DOG, phrase, CAT]}]
    assert json.loads(spoken(answer, indent_items=indent_items)) == with_words(answer)


leaves = st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from([CAT, DOG])
structures = st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12)


@given(st.lists(structures), st.booleans())
def test_json_text_holds_the_structure_with_words(value: list[Any], indent_items: bool) -> None:
    before = copy.deepcopy(value)
    if "\ufdd0" in json.dumps(value, default=str, ensure_ascii=False):
        with pytest.raises(RecordError):
            json_text(value, indent_items=indent_items)
    else:
        assert json.loads(spoken(value, indent_items=indent_items)) == with_words(value)
    assert value == before


def test_an_answer_of_known_text() -> None:
    answer = [{"mask_2d": CAT, "label": "猫"}, {"mask_2d": DOG, "label": "dog"}]
    assert spoken(answer) == (
        '[{"mask_2d": "<|mt_start|><|mt_0011|><|mt_0347|><|mt_end|>", "label": "猫"}, '
        '{"mask_2d": "<|mt_start|><|mt_0003|><|mt_0256|><|mt_end|>", "label": "dog"}]'
    )
    assert spoken(answer, indent_items=True) == (
        '[{"mask_2d": "<|mt_start|><|mt_0011|><|mt_0347|><|mt_end|>", "label": "猫"},\n'
        '{"mask_2d": "<|mt_start|><|mt_0003|><|mt_0256|><|mt_end|>", "label": "dog"}]'
    )


def test_json_text_keeps_the_references_in_the_order_of_the_text() -> None:
    text = json_text([DOG, {"a": CAT, "b": [CAT, DOG]}])
    assert text == ('["', DOG, '", {"a": "', CAT, '", "b": ["', CAT, '", "', DOG, '"]}]')
    assert json_text(CAT) == ('"', CAT, '"')
    assert json_text([], indent_items=True) == ("[]",)


@pytest.mark.parametrize(
    ("value", "kind"),
    [({1, 2}, "set"), ([b"bytes"], "bytes"), ({"a": object()}, "object"), ([Turn("gpt", ())], "Turn")],
)
def test_json_text_refuses_what_is_no_json(value: Any, kind: str) -> None:
    with pytest.raises(TypeError, match=f"^expected JSON values and MaskRefs, got {kind}$"):
        json_text(value)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_json_text_refuses_numbers_that_json_does_not_have(number: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_text([number])


@pytest.mark.parametrize("value", [["\ufdd0"], {"\ufdd0": 1}, [CAT, "a\ufdd0b"]])
def test_the_noncharacter_that_stands_for_a_reference_is_refused(value: Any) -> None:
    with pytest.raises(RecordError, match=re.escape("text: holds the Unicode noncharacter U+FDD0 [record-invalid]")):
        json_text(value)


@pytest.mark.parametrize("text", [*NASTY, "an image", "<Image>", "< image>", "<|mt", "mt_0011", "<|im_start|>"])
def test_ordinary_text_passes(text: str) -> None:
    check_text(text)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a <image> b", "holds '<image>', which has a meaning of its own here"),
        ("<|mt_start|>", "holds '<|mt_', which has a meaning of its own here"),
        ("x<|mt_0011|>", "holds '<|mt_', which has a meaning of its own here"),
        ("<|mt_", "holds '<|mt_', which has a meaning of its own here"),
        ("\ufdd0", "holds '\\ufdd0', which has a meaning of its own here"),
        ("half \ud83d", "holds half of a surrogate pair"),
        ("\udc00 half", "holds half of a surrogate pair"),
    ],
)
def test_text_that_would_be_read_as_something_else_is_refused(text: str, what: str) -> None:
    with pytest.raises(RecordError) as caught:
        check_text(text)
    assert str(caught.value) == f"sentence: {text!r} {what} [record-invalid]"


@given(st.text(st.characters(codec="utf-8")).filter(lambda text: not re.search("<image>|<\\|mt_|\ufdd0", text)))
def test_text_that_passes_can_stand_in_an_answer(text: str) -> None:
    check_text(text)
    assert json.loads(spoken([{"label": text, "mask": CAT}])) == [{"label": text, "mask": WORDS[CAT]}]


def test_render_replaces_every_reference_and_nothing_else() -> None:
    turns = (
        Turn("human", ("<image>\nfind ", DOG, "?")),
        Turn("gpt", (CAT, CAT)),
        Turn("human", ()),
        Turn("gpt", ("ok",)),
    )
    dialogue = Dialogue("k", "task", turns)
    words = dict(WORDS)
    assert render(dialogue, words) == [
        {"from": "human", "value": f"<image>\nfind {WORDS[DOG]}?"},
        {"from": "gpt", "value": WORDS[CAT] * 2},
        {"from": "human", "value": ""},
        {"from": "gpt", "value": "ok"},
    ]
    assert (dialogue, words) == (Dialogue("k", "task", turns), WORDS)


def test_render_needs_a_word_for_every_reference() -> None:
    dialogue = Dialogue("k", "task", (Turn("gpt", (CAT, MaskRef("bird"))),))
    with pytest.raises(KeyError, match="bird"):
        render(dialogue, WORDS)
