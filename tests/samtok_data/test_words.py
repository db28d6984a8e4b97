"""The spelling of mask words: printing, reading, finding and mending them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samtok_data.words import END, MISSING, PREFIX, START, FoundMask, MaskVocabulary

PUBLISHED = MaskVocabulary()  # 256 codes, 2 levels
WORD = "<|mt_start|><|mt_0011|><|mt_0347|><|mt_end|>"

vocabularies = st.builds(MaskVocabulary, st.sampled_from([1, 2, 256, 300, 5000]), st.integers(1, 4))


def spelt(short: str) -> str:
    """``[11 347] x`` with S, E and numbers for tokens: ``<|mt_start|>`` for S, ``<|mt_0011|>`` for 11."""
    names = {"S": "<|mt_start|>", "E": "<|mt_end|>", "_": " "}
    return "".join(names.get(part, f"<|mt_{part}|>" if part.isdigit() else part) for part in short.split())


@st.composite
def words(draw: st.DrawFn) -> tuple[MaskVocabulary, tuple[int, ...]]:
    vocabulary = draw(vocabularies)
    codes = st.integers(0, vocabulary.codebook_size - 1)
    return vocabulary, draw(st.tuples(*[codes] * vocabulary.depth))


@pytest.mark.parametrize(
    ("vocabulary", "codes", "word"),
    [
        (PUBLISHED, (11, 91), WORD),
        (PUBLISHED, (0, 0), "<|mt_start|><|mt_0000|><|mt_0256|><|mt_end|>"),
        (PUBLISHED, (255, 255), "<|mt_start|><|mt_0255|><|mt_0511|><|mt_end|>"),
        (MaskVocabulary(1, 1), (0,), "<|mt_start|><|mt_0000|><|mt_end|>"),
        (MaskVocabulary(1, 3), (0, 0, 0), "<|mt_start|><|mt_0000|><|mt_0001|><|mt_0002|><|mt_end|>"),
        (MaskVocabulary(300, 3), (7, 0, 299), "<|mt_start|><|mt_0007|><|mt_0300|><|mt_0899|><|mt_end|>"),
        (MaskVocabulary(5000, 2), (3, 4999), "<|mt_start|><|mt_0003|><|mt_9999|><|mt_end|>"),
        (MaskVocabulary(5000, 3), (3, 0, 4999), "<|mt_start|><|mt_00003|><|mt_05000|><|mt_14999|><|mt_end|>"),
    ],
)
def test_words_of_known_spelling(vocabulary: MaskVocabulary, codes: tuple[int, ...], word: str) -> None:
    assert vocabulary.format(codes) == word
    assert vocabulary.parse(word) == codes


def test_the_published_vocabulary_has_514_tokens_in_order() -> None:
    tokens = PUBLISHED.tokens
    assert tokens == ["<|mt_start|>", *(f"<|mt_{number:04d}|>" for number in range(512)), "<|mt_end|>"]
    assert len(tokens) == len(set(tokens)) == 514


@given(vocabularies)
def test_every_token_of_a_vocabulary_has_the_same_digits(vocabulary: MaskVocabulary) -> None:
    first, *codes, last = vocabulary.tokens
    assert (first, last) == (START, END)
    assert len(codes) == vocabulary.codebook_size * vocabulary.depth
    assert len({len(token) for token in codes}) == 1
    assert codes == sorted(set(codes))
    assert all(token.startswith(PREFIX) for token in vocabulary.tokens)


@given(words())
def test_format_and_parse_are_inverse(case: tuple[MaskVocabulary, tuple[int, ...]]) -> None:
    vocabulary, codes = case
    word = vocabulary.format(codes)
    assert vocabulary.parse(word) == codes
    assert re.findall(r"<\|mt_\w+\|>", word) == [token for token in vocabulary.tokens if token in word]


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        ((), "expected 2 codes, got 0"),
        ((11,), "expected 2 codes, got 1"),
        ((11, 91, 3), "expected 2 codes, got 3"),
        ((11, 256), "expected codes in 0..255, got 256"),
        ((-1, 91), "expected codes in 0..255, got -1"),
        ((3, MISSING), "expected codes in 0..255, got -1"),
    ],
)
def test_codes_that_are_no_mask_are_not_printed(codes: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        PUBLISHED.format(codes)


@pytest.mark.parametrize(("size", "depth"), [(0, 2), (256, 0), (-1, 1)])
def test_a_vocabulary_without_codes_is_refused(size: int, depth: int) -> None:
    with pytest.raises(ValueError, match=f"codebook_size and depth must be at least 1, got {size}, {depth}"):
        MaskVocabulary(size, depth)


@pytest.mark.parametrize(
    "text",
    ["", " ", "no mask", WORD + " ", " " + WORD, WORD * 2, WORD[:-1], WORD[1:], START + END, spelt("S 0011 E"),
     spelt("S 0011 0347"), spelt("0011 0347 E"), spelt("S 0347 0011 E"), spelt("S 0011 0347 0348 E"),
     spelt("S 0011 0999 E"), spelt("S 11 347 E"), spelt("S 0011 _ 0347 E"), spelt("S 0011 0012 E")],
)  # fmt: skip
def test_parse_takes_exactly_one_well_formed_word(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"expected one mask word of 2 codes, got {text!r}")):
        PUBLISHED.parse(text)


X = MISSING


@pytest.mark.parametrize(
    ("short", "codes"),
    [
        pytest.param("S 0011 0347 E", [(11, 91)], id="well-formed"),
        pytest.param("a S 0011 0347 E b S 0001 0257 E c", [(11, 91), (1, 1)], id="two-in-a-text"),
        pytest.param("S 0011 0347 E S 0001 0257 E", [(11, 91), (1, 1)], id="two-side-by-side"),
        pytest.param("S 0011 0347 0348 E", [(11, 91)], id="a-third-code-is-dropped"),
        pytest.param("S 0011 0012 0347 E", [(11, 91)], id="a-second-code-of-a-level-is-dropped"),
        pytest.param("S 0347 0011 E", [(11, 91)], id="levels-in-the-wrong-order"),
        pytest.param("S 11 347 E", [(11, 91)], id="too-few-digits"),
        pytest.param("S 000011 0000347 E", [(11, 91)], id="too-many-digits"),
        pytest.param("S 0011 E", [(11, X)], id="second-level-missing"),
        pytest.param("S 0347 E", [(X, 91)], id="first-level-missing"),
        pytest.param("S 0011 0512 E", [(11, X)], id="number-of-no-level"),
        pytest.param("S 0512 9999 E", [], id="only-numbers-of-no-level"),
        pytest.param("S 0011 0347", [(11, 91)], id="no-end"),
        pytest.param("0011 0347 E", [(11, 91)], id="no-start"),
        pytest.param("0011 0347", [(11, 91)], id="neither"),
        pytest.param("S 0011 0347 S 0001 0257 E", [(11, 91), (1, 1)], id="no-end-before-the-next"),
        pytest.param("S S 0011 0347 E", [(11, 91)], id="two-starts"),
        pytest.param("S 0011 0347 E E", [(11, 91)], id="two-ends"),
        pytest.param("S 0011 0347 E 0001 0257", [(11, 91), (1, 1)], id="codes-after-the-end"),
        pytest.param("S 0011 _ 0347 _ E", [(11, 91)], id="white-space-inside"),
        pytest.param("S 0011 and 0347 E", [(11, X), (X, 91)], id="text-inside"),
        pytest.param("S text 0011 0347 E", [(11, 91)], id="text-after-the-start"),
        pytest.param("S 0011 0347 text E", [(11, 91)], id="text-before-the-end"),
        pytest.param("0011 text 0012", [(11, X), (12, X)], id="single-codes"),
        pytest.param("S E", [], id="no-codes"),
        pytest.param("S", [], id="a-start-alone"),
        pytest.param("E", [], id="an-end-alone"),
        pytest.param("mask", [], id="no-tokens"),
        pytest.param("<|mt_|> <|mt_-001|> <|mt_START|> <|mt_0011", [], id="no-tokens-of-ours"),
        pytest.param("S <|mt_\u0661\u0661|> <|mt_\u00b2|> E", [], id="digits-of-other-scripts"),
        pytest.param(f"S {'9' * 5000} E", [], id="a-number-that-python-does-not-convert"),
    ],
)
def test_find_says_what_a_text_holds(short: str, codes: list[tuple[int, ...]]) -> None:
    assert [mask.codes for mask in PUBLISHED.find(spelt(short))] == codes


def test_find_says_where_and_whether_well_formed() -> None:
    text = f"a {WORD} b {spelt('S 0011 0347 0348 E')}, {spelt('S 0011')} c"
    found = PUBLISHED.find(text)
    assert [(text[mask.start : mask.end], mask.well_formed) for mask in found] == [
        (WORD, True),
        (spelt("S 0011 0347 0348 E"), False),
        (spelt("S 0011"), False),
    ]
    assert found[0] == FoundMask(2, 2 + len(WORD), (11, 91), well_formed=True)


def test_another_vocabulary_reads_the_same_text_in_its_own_way() -> None:
    assert MaskVocabulary(256, 3).find(WORD)[0].codes == (11, 91, X)
    assert MaskVocabulary(512, 1).find(WORD)[0].codes == (11,)
    assert MaskVocabulary(100, 4).find(WORD)[0].codes == (11, X, X, 47)


@pytest.mark.parametrize(
    ("broken", "mended"),
    [
        ("", ""),
        ("no mask", "no mask"),
        (WORD, WORD),
        (f"1. {WORD}, 2. {WORD}", f"1. {WORD}, 2. {WORD}"),
        (spelt("x S 0011 0347 0348 E y"), f"x{WORD}y"),
        (spelt("x S 0347 0011 E y"), f"x{WORD}y"),
        (spelt("x S 0011 0347 y"), f"x{WORD}y"),
        (spelt("x 0011 0347 E y"), f"x{WORD}y"),
        (spelt("x 0011 0347 y"), f"x{WORD}y"),
        (spelt("x S 11 _ 347 E y"), f"x{WORD}y"),
        (spelt("x S 0011 0347 text E y"), f"x{WORD}text{END}y"),
        (spelt("x S 0011 E y"), "xy"),
        (spelt("x S 0347 y"), "xy"),
        (spelt("x 0512 0011 y"), "xy"),
        (f"{spelt('S 0011')}{WORD}{spelt('S 0347 E')}", WORD),
        # What stands around a removed group spells a token, and with it a group that lacks a level.
        (f"x<|mt_{spelt('S 0011 E')}0011|>y", "xy"),
        (f"x{START}<|mt_{spelt('0011')}0011|>{spelt('0347')}y", "xy"),
    ],
)
def test_repair_rewrites_whole_groups_and_removes_the_others(broken: str, mended: str) -> None:
    assert PUBLISHED.repair(broken) == mended


# Texts of tokens, half tokens and what may stand between them.
pieces = st.sampled_from(
    [START, END, *(f"<|mt_{number}|>" for number in ("0000", "0001", "1", "0002", "0003", "0004", "9999")),
     "<|mt_", "0001|>", "start|>", "|>", "<|", " ", "\n", "a", "ä", '"', "\u0663"]
)  # fmt: skip
texts = st.lists(pieces, max_size=14).map("".join)
small_vocabularies = st.sampled_from([MaskVocabulary(2, 2), MaskVocabulary(1, 1), MaskVocabulary(4, 1), PUBLISHED])


@given(small_vocabularies, texts)
def test_repair_leaves_only_well_formed_groups_and_nothing_to_repair(vocabulary: MaskVocabulary, text: str) -> None:
    mended = vocabulary.repair(text)
    assert all(mask.well_formed for mask in vocabulary.find(mended))
    assert vocabulary.repair(mended) == mended


@given(words(), st.lists(st.text(st.characters(codec="utf-8")), min_size=2, max_size=4))
def test_well_formed_words_are_found_and_left_as_they_are(
    case: tuple[MaskVocabulary, tuple[int, ...]], between: list[str]
) -> None:
    vocabulary, codes = case
    word = vocabulary.format(codes)
    text = word.join(between)
    assert vocabulary.repair(text) == text
    found = vocabulary.find(text)
    assert [mask.codes for mask in found] == [codes] * (len(between) - 1)
    assert {text[mask.start : mask.end] for mask in found} == {word}


@given(small_vocabularies, texts)
def test_groups_lie_in_order_and_apart(vocabulary: MaskVocabulary, text: str) -> None:
    found = vocabulary.find(text)
    edges = [edge for mask in found for edge in (mask.start, mask.end)]
    assert edges == sorted(edges)
    for mask in found:
        assert mask.start < mask.end
        assert any(code != MISSING for code in mask.codes)
        assert mask.well_formed == (
            MISSING not in mask.codes and text[mask.start : mask.end] == vocabulary.format(mask.codes)
        )
