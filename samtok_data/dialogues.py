"""From dialogues to text: JSON answers that hold references, and rendering with mask words."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from samtok_data.errors import RecordError
from samtok_data.scenes import Dialogue, MaskRef, Text, Turn
from samtok_data.words import PREFIX

# A Unicode noncharacter: it never stands in interchanged text, and a JSON library passes it through.
_MARK = "\ufdd0"

_SURROGATE = re.compile("[\ud800-\udfff]")

IMAGE_MARK = "<image>"


def check_text(text: str) -> None:
    """Refuses source text that would be read as something else once it stands in a dialogue.

    Raises:
        RecordError: ``record-invalid``, for the image mark, a mask token, a Unicode noncharacter, or half of a
            surrogate pair, which no UTF-8 file can hold.
    """
    if _SURROGATE.search(text):
        raise RecordError("record-invalid", f"sentence: {text!r} holds half of a surrogate pair")
    for foreign in (IMAGE_MARK, PREFIX, _MARK):
        if foreign in text:
            raise RecordError(
                "record-invalid", f"sentence: {text!r} holds {foreign!r}, which has a meaning of its own here"
            )


def json_text(value: Any, *, indent_items: bool = False) -> Text:
    """A structure as JSON text, non-ASCII characters as they are.

    Args:
        value: lists, dicts, strings, numbers and MaskRefs; each MaskRef becomes a JSON string that will
            hold the mask word.
        indent_items: one item of the outer list a line, as the published answers have it.
    """
    refs: list[MaskRef] = []

    def mark(ref: Any) -> str:
        if not isinstance(ref, MaskRef):
            raise TypeError(f"expected JSON values and MaskRefs, got {type(ref).__name__}")
        refs.append(ref)
        return _MARK

    def dump(part: Any) -> str:
        return json.dumps(part, ensure_ascii=False, default=mark, allow_nan=False)

    text = "[" + ",\n".join(dump(item) for item in value) + "]" if indent_items else dump(value)
    pieces = text.split(_MARK)
    if len(pieces) != len(refs) + 1:
        raise RecordError("record-invalid", "text: holds the Unicode noncharacter U+FDD0")
    joined: list[str | MaskRef] = [pieces[0]]
    for ref, piece in zip(refs, pieces[1:], strict=True):
        joined += [ref, piece]
    return tuple(joined)


def render_turn(turn: Turn, words: Mapping[MaskRef, str]) -> dict[str, str]:
    """One turn with its references replaced, as ``{"from": speaker, "value": text}`` (LLaVA's form)."""
    pieces = (words[piece] if isinstance(piece, MaskRef) else piece for piece in turn.text)
    return {"from": turn.speaker, "value": "".join(pieces)}


def render(dialogue: Dialogue, words: Mapping[MaskRef, str]) -> list[dict[str, str]]:
    """All turns of a dialogue.

    Args:
        dialogue: what to render; it is not changed.
        words: the mask word of every reference in it.

    Raises:
        KeyError: a reference has no word.
    """
    return [render_turn(turn, words) for turn in dialogue.turns]
