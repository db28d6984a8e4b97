"""Mask words: the text of one mask, e.g. ``<|mt_start|><|mt_0011|><|mt_0347|><|mt_end|>``.

The only place that knows their spelling. A mask is ``depth`` codes, each in ``0 .. codebook_size - 1``.
The code of level ``l`` is printed plus ``l * codebook_size``, so that every level has tokens of its own, with
four digits or as many as the largest one needs. Source: SAMTok's token table (256 codes, 2 levels,
``<|mt_0000|>`` to ``<|mt_0511|>``).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass

START = "<|mt_start|>"
END = "<|mt_end|>"
PREFIX = "<|mt_"  # what every mask token begins with
MISSING = -1

# Not \d, which matches the digits of every script; 18 of them are more than any vocabulary has.
_TOKEN = re.compile(r"<\|mt_(start|end|[0-9]{1,18})\|>")


@dataclass(frozen=True, slots=True)
class FoundMask:
    """A group of mask tokens in a text.

    Attributes:
        start: index of the group's first character.
        end: index after its last character.
        codes: one code a level, each in ``0 .. codebook_size - 1`` or ``MISSING``.
        well_formed: whether the group is spelt exactly as ``format`` would spell it.
    """

    start: int
    end: int
    codes: tuple[int, ...]
    well_formed: bool


@dataclass(frozen=True, slots=True)
class MaskVocabulary:
    """The spelling of masks for one tokenizer.

    Attributes:
        codebook_size: codes of each level, at least 1.
        depth: levels, at least 1.
    """

    codebook_size: int = 256
    depth: int = 2

    def __post_init__(self) -> None:
        if self.codebook_size < 1 or self.depth < 1:
            raise ValueError(f"codebook_size and depth must be at least 1, got {self.codebook_size}, {self.depth}")

    @property
    def tokens(self) -> list[str]:
        """Every token of the vocabulary, in the order in which a language model should add them."""
        digits = self._digits
        return [START, *(_token(number, digits) for number in range(self.codebook_size * self.depth)), END]

    def format(self, codes: Sequence[int]) -> str:
        """The word of one mask.

        Args:
            codes: ``depth`` codes, each in ``0 .. codebook_size - 1``.

        Raises:
            ValueError: another number of codes, or one out of range.
        """
        if len(codes) != self.depth:
            raise ValueError(f"expected {self.depth} codes, got {len(codes)}")
        for code in codes:
            if not 0 <= code < self.codebook_size:
                raise ValueError(f"expected codes in 0..{self.codebook_size - 1}, got {code}")
        digits = self._digits
        tokens = [_token(level * self.codebook_size + int(code), digits) for level, code in enumerate(codes)]
        return START + "".join(tokens) + END

    def parse(self, word: str) -> tuple[int, ...]:
        """The codes of one well-formed word.

        Raises:
            ValueError: the text is not exactly one well-formed word.
        """
        found = self.find(word)
        if len(found) != 1 or not found[0].well_formed or (found[0].start, found[0].end) != (0, len(word)):
            raise ValueError(f"expected one mask word of {self.depth} codes, got {word!r}")
        return found[0].codes

    def find(self, text: str) -> list[FoundMask]:
        """All groups of mask tokens in a text, malformed ones included, in order.

        A group opens at a start token, or at a code token that stands outside a group; it closes at its end
        token, before the next start token, or where other text than white space comes between. The first
        token of a level gives its code, later ones of the same level are ignored; levels without a token
        and tokens of no level are ``MISSING``. A group without any code is no mask and is not returned.
        """
        groups: list[list[re.Match[str]]] = []
        current: list[re.Match[str]] | None = None
        for match in _TOKEN.finditer(text):
            kind = match[1]
            touches = current is not None and not text[current[-1].end() : match.start()].strip()
            if kind == "start" or (kind != "end" and not touches):
                groups.append([])
                current = groups[-1]
            if current is not None and (touches or not current):
                current.append(match)
            if kind == "end":
                current = None
        found = (self._read(group, text) for group in groups)
        return [mask for mask in found if any(code != MISSING for code in mask.codes)]

    def repair(self, text: str) -> str:
        """The text with every malformed group that names all levels rewritten as a word, and the others removed.

        A group that lacks a level does not say which mask is meant; ``find`` still returns what it holds.
        """
        repaired = self._repair_once(text)
        while repaired != text:  # what stood around a removed group may itself spell a token now
            text, repaired = repaired, self._repair_once(repaired)
        return repaired

    def _repair_once(self, text: str) -> str:
        pieces: list[str] = []
        position = 0
        for mask in self.find(text):
            word = "" if MISSING in mask.codes else self.format(mask.codes)
            pieces += [text[position : mask.start], word]
            position = mask.end
        return "".join([*pieces, text[position:]])

    @property
    def _digits(self) -> int:
        return max(4, len(str(self.codebook_size * self.depth - 1)))

    def _read(self, group: list[re.Match[str]], text: str) -> FoundMask:
        start, end = group[0].start(), group[-1].end()
        codes = [MISSING] * self.depth
        for match in group:
            if not match[1].isdigit():
                continue
            level, code = divmod(int(match[1]), self.codebook_size)
            if level < self.depth and codes[level] == MISSING:
                codes[level] = code
        complete = MISSING not in codes
        return FoundMask(start, end, tuple(codes), complete and text[start:end] == self.format(codes))


@functools.lru_cache(maxsize=1 << 16)  # some megabytes; tables have a million words of few tokens
def _token(number: int, digits: int) -> str:
    return f"<|mt_{number:0{digits}d}|>"
