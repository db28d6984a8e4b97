"""The fast path on a GPU: the words of the plain path, whatever else is in a batch, and what happens without memory."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from pictures import bar, disc, drawn_image

from samtok_data.masks import RLE
from tokenizer_model import MaskTokenizer, Prepared, open_tokenizer
from tokenizer_model.config import Precision

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


@pytest.fixture(scope="module", params=["fp16", "bf16"])
def fast(request: pytest.FixtureRequest) -> MaskTokenizer:
    precision: Precision = request.param
    tokenizer = open_tokenizer("small", device="cuda", precision=precision)
    assert tokenizer.resizes
    return tokenizer


@pytest.fixture
def images(fast: MaskTokenizer) -> list[Prepared]:
    """Three images of three sizes, one larger than the network's and one higher than wide."""
    regions: dict[tuple[int, int], list[RLE]] = {
        (160, 120): [disc(160, 120, 0.3, 0.4, 25), bar(160, 120, 0, 0, 160, 120), bar(160, 120, 159, 119, 160, 120)],
        (90, 700): [disc(90, 700, 0.5, 0.5, 40)],
        (1200, 800): [disc(1200, 800, 0.1 + 0.02 * one, 0.5, 60 + one) for one in range(40)],
    }
    return [fast.prepare(drawn_image(*size, 0.3), of_image) for size, of_image in regions.items()]


def test_embeddings_are_close_to_those_of_fp32(fast: MaskTokenizer, images: list[Prepared]) -> None:
    allowed = 2e-3 if fast.precision == "fp16" else 2e-2
    plain = open_tokenizer("small", device="cuda")
    for ours, theirs in zip(fast.embed_prepared(images)[0], plain.embed_prepared(images)[0], strict=True):
        assert np.linalg.norm(ours - theirs) <= allowed * np.linalg.norm(theirs)


def test_a_word_does_not_depend_on_its_neighbours(fast: MaskTokenizer, images: list[Prepared]) -> None:
    together = fast.embed_prepared(images)[0]
    for one, wanted in zip(images, together, strict=True):
        (alone,), _ = fast.embed_prepared([one])
        np.testing.assert_array_equal(alone, wanted)
    for again, wanted in zip(fast.embed_prepared(images[::-1] * 4)[0], together[::-1] * 4, strict=True):
        np.testing.assert_array_equal(again, wanted)
    few = fast.prepare(drawn_image(1200, 800, 0.3), [disc(1200, 800, 0.1 + 0.02 * 7, 0.5, 67)])
    np.testing.assert_array_equal(fast.embed_prepared([few])[0][0][0], together[2][7])


def test_a_picture_is_resized_as_pillow_does_it(fast: MaskTokenizer, images: list[Prepared]) -> None:
    fast.encode_prepared(images)  # of each size one picture is held against Pillow
    resized = [Prepared(one.square, one.pieces, one.size, one.side) for one in images]
    for ours, theirs in zip(fast.embed_prepared(images)[0], fast.embed_prepared(resized)[0], strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_measured_ious_are_close_to_those_of_fp32(fast: MaskTokenizer, images: list[Prepared]) -> None:
    plain = open_tokenizer("small", device="cuda")
    (codes, ious), (wanted_codes, wanted) = fast.measure_prepared(images), plain.measure_prepared(images)
    for codes_nL, ious_n, others_nL, others_n in zip(codes, ious, wanted_codes, wanted, strict=True):
        same = (codes_nL == others_nL).all(axis=1)
        assert same.mean() > 0.5
        np.testing.assert_allclose(ious_n[same], others_n[same], atol=0.02)


@pytest.fixture
def little_memory() -> Iterator[None]:
    """Some hundred MB beside what is held already."""
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + (400 << 20)) / total)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


def test_too_little_memory_halves_the_batch_and_loses_nothing(
    little_memory: None, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer = open_tokenizer("small", device="cuda", precision="fp16", image_batch=64, mask_batch=256)
    regions = [disc(320, 240, 0.3 + 0.05 * one, 0.5, 20 + one) for one in range(8)]
    images = [tokenizer.prepare(drawn_image(320, 240, one / 64), regions) for one in range(64)]
    with caplog.at_level(logging.WARNING):
        codes = tokenizer.encode_prepared(images)
    said = [record.getMessage() for record in caplog.records]
    assert said
    assert all("The GPU's memory is too small for" in one for one in said)
    assert tokenizer.sizes.images < 64 or tokenizer.sizes.masks < 256
    count = len(said)
    again = tokenizer.encode_prepared(images)
    assert len(caplog.records) == count  # said once
    for one, other in zip(codes, again, strict=True):
        assert one.shape == (8, 2)
        np.testing.assert_array_equal(one, other)
