"""Configurations: what they refuse, and their way through JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tokenizer_model import SAMTOK_256X2, SMALL, Hiera, TokenizerConfig

WIDTHS = Hiera(embed_dim=48, num_heads=1, stages=(1, 2, 5, 1), global_blocks=(5, 7), windows=(8, 4, 16, 8))
FSQ: dict[str, Any] = {"quantizer": "fsq", "depth": 1, "fsq_levels": (8, 8, 4)}
QUANTIZERS: dict[str, dict[str, Any]] = {
    "shared": {"shared": True, "depth": 3},
    "vq": {"quantizer": "vq", "depth": 1},
    "fsq": FSQ,
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone": "huge"}, "backbone must be one of tiny, small, base\\+, large, got 'huge'"),
        ({"image_size": 1000}, "image_size must be a multiple of 32, got 1000"),
        ({"image_size": 0}, "image_size must be at least 1, got 0"),
        ({"hidden_size": 128}, "hidden_size must be 256 with backbone 'large', got 128"),
        ({"hidden_size": 24}, "hidden_size must be a multiple of 16, got 24"),
        ({"codebook_size": 0}, "codebook_size must be at least 1, got 0"),
        ({"depth": 2.0}, "depth must be a whole number, got 2.0"),
        ({"depth": True}, "depth must be a whole number, got True"),
        (
            {"backbone": replace(WIDTHS, windows=(6, 4, 4, 4))},
            r"image_size must be a multiple of the first window \(24\), got 1024",
        ),
        ({"quantizer": "rvq"}, "quantizer must be one of residual, vq, fsq, got 'rvq'"),
        ({"quantizer": "vq"}, "depth must be 1 with quantizer 'vq', got 2"),
        ({"quantizer": "fsq", "fsq_levels": (8, 8, 4)}, "depth must be 1 with quantizer 'fsq', got 2"),
        ({"shared": 1}, "shared must be true or false, got 1"),
        ({"quantizer": "vq", "depth": 1, "shared": True}, "shared is for quantizer 'residual' only, got 'vq'"),
        (FSQ | {"shared": True}, "shared is for quantizer 'residual' only, got 'fsq'"),
        ({"fsq_levels": (8, 8, 4)}, r"fsq_levels are for quantizer 'fsq' only, got \(8, 8, 4\)"),
        (FSQ | {"fsq_levels": [8, 8, 4]}, r"fsq_levels must be a tuple, got \[8, 8, 4\]"),
        (FSQ | {"fsq_levels": ()}, r"fsq_levels must be one or more, each at least 3, got \(\)"),
        (FSQ | {"fsq_levels": (128, 2)}, r"fsq_levels must be one or more, each at least 3, got \(128, 2\)"),
        (FSQ | {"fsq_levels": (16.0, 16)}, "fsq_levels must be a whole number, got 16.0"),
        (FSQ | {"fsq_levels": (8, 6, 5)}, r"codebook_size must be the product of fsq_levels \(240\), got 256"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_configuration_that_cannot_be_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SAMTOK_256X2, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"embed_dim": 0}, "embed_dim must be at least 1, got 0"),
        ({"num_heads": 5}, r"embed_dim must be a multiple of num_heads \(5\), got 48"),
        ({"stages": (1, 2, 5)}, "stages must have 4 numbers, got 3"),
        ({"stages": (1, 2, 0, 1)}, "stages must be at least 1, got 0"),
        ({"windows": (8, 3, 16, 8)}, r"windows must be even up to the last, got \(8, 3, 16, 8\)"),
        ({"global_blocks": (9,)}, r"global_blocks must be in 0\.\.8, got 9"),
        ({"global_blocks": (3,)}, "global_blocks must not name the first block of a stage, got 3"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_widths_that_cannot_be_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(WIDTHS, **change)


@pytest.mark.parametrize("config", [SAMTOK_256X2, SMALL], ids=["samtok-256x2", "small"])
def test_a_configuration_comes_back_from_json(config: TokenizerConfig) -> None:
    assert TokenizerConfig.from_json(json.loads(json.dumps(config.json))) == config


@pytest.mark.parametrize("change", QUANTIZERS.values(), ids=QUANTIZERS)
def test_a_quantizer_comes_back_from_json(change: dict[str, Any]) -> None:
    config = replace(SMALL, **change)
    read = TokenizerConfig.from_json(json.loads(json.dumps(config.json)))
    assert read == config
    assert hash(read) == hash(config)


def test_json_from_before_there_was_a_choice_of_quantizers_is_read() -> None:
    values = SMALL.json
    for name in ("quantizer", "shared", "fsq_levels"):
        del values[name]
    assert TokenizerConfig.from_json(values) == SMALL
    assert (SMALL.quantizer, SMALL.shared, SMALL.fsq_levels) == ("residual", False, ())


@pytest.mark.parametrize(
    ("change", "expected"),
    [({"depth": 3}, 3), ({"depth": 3, "shared": True}, 1), (QUANTIZERS["vq"], 1), (FSQ, 0)],
    ids=["residual", "shared", "vq", "fsq"],
)
def test_the_number_of_codebooks_follows_from_the_quantizer(change: dict[str, Any], expected: int) -> None:
    assert replace(SMALL, **change).num_codebooks == expected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], r"tokenizer configuration: expected an object, got \[\]"),
        ({"backbone": "large"}, r"expected the fields \['backbone', .*\], got \['backbone'\]"),
        (SAMTOK_256X2.json | {"colour": 1}, r"expected the fields .*, got \['backbone', 'codebook_size', 'colour'"),
        (SAMTOK_256X2.json | {"backbone": None}, "backbone: expected an object, got None"),
        (SMALL.json | {"backbone": SMALL.json["backbone"] | {"stages": 4}}, "stages must be a list, got 4"),
        (SMALL.json | {"fsq_levels": "884"}, "fsq_levels must be a list, got '884'"),
        (SMALL.json | {"quantizer": "pq"}, "quantizer must be one of residual, vq, fsq, got 'pq'"),
    ],
    ids=["no object", "missing", "unknown", "no backbone", "no list", "no levels", "quantizer"],
)
def test_json_that_is_no_configuration_is_refused(values: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TokenizerConfig.from_json(values)


def test_the_sides_follow_from_the_image_size() -> None:
    assert (SAMTOK_256X2.embedding_side, SAMTOK_256X2.logit_side) == (64, 256)
    assert (SMALL.embedding_side, SMALL.logit_side) == (32, 128)
