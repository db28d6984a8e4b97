"""The fast path on a GPU: the words of the plain path, whatever else is in a batch, and what happens without memory."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pictures import bar, disc, drawn_image
from PIL import Image

from samtok_data import masks
from samtok_data.masks import RLE
from tokenizer_model import LOGIT_THRESHOLD, MaskTokenizer, Prepared, open_tokenizer
from tokenizer_model.config import Precision
from tokenizer_model.overlaps import intersections_over_unions

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


def test_ious_are_those_of_the_full_masks(fast: MaskTokenizer, images: list[Prepared]) -> None:
    width, height = 1500, 2250
    noise_HW = np.random.default_rng(0).random((height, width)) < 0.4  # 800,000 runs
    regions = [disc(width, height, 0.1 + 0.01 * one, 0.5, 300 + 5 * one) for one in range(60)]
    regions += [masks.encode(noise_HW), bar(width, height, 0, 0, width, height), bar(width, height, 0, 9, 1, 10)]
    images = [*images, fast.prepare(drawn_image(width, height, 0.6), regions)]
    measured, logits = fast.measure_prepared(images)[1], fast.reconstruct_logits(images)[1]
    for one, ious_n, logits_nPP in zip(images, measured, logits, strict=True):
        on_gpu = torch.from_numpy(logits_nPP).to(fast.device)
        wanted_n = intersections_over_unions(on_gpu, one, range(one.num_masks), LOGIT_THRESHOLD).cpu().numpy()
        allowed_n = 1e-5 + 1 / one.pieces.areas  # of small masks a pixel on the very edge of the threshold
        assert (np.abs(ious_n - wanted_n) <= allowed_n).all()


@pytest.fixture
def drawn(fast: MaskTokenizer) -> tuple[list[Image.Image], list[NDArray[np.int64]]]:
    """Pictures of some sizes, and codes for 1, 3 and 70 masks of them."""
    pictures = [drawn_image(90, 700, 0.3), drawn_image(160, 120, 0.5), drawn_image(1200, 800, 0.7)]
    rng, config = np.random.default_rng(0), fast.config
    return pictures, [rng.integers(config.codebook_size, size=(number, config.depth)) for number in (1, 3, 70)]


def test_logits_are_close_to_those_of_fp32(
    fast: MaskTokenizer, drawn: tuple[list[Image.Image], list[NDArray[np.int64]]]
) -> None:
    allowed = 1e-2 if fast.precision == "fp16" else 8e-2
    wanted = np.concatenate(open_tokenizer("small", device="cuda").decode_logits(*drawn))
    apart = np.linalg.norm(np.concatenate(fast.decode_logits(*drawn)) - wanted, axis=(1, 2))
    close = apart <= allowed * np.linalg.norm(wanted, axis=(1, 2))
    assert close.mean() > 0.9  # of a few another of the decoder's three masks may look best


def test_logits_do_not_depend_on_their_neighbours(
    fast: MaskTokenizer, drawn: tuple[list[Image.Image], list[NDArray[np.int64]]]
) -> None:
    pictures, codes = drawn
    together = fast.decode_logits(pictures, codes)
    for picture, of_picture, wanted in zip(pictures, codes, together, strict=True):
        np.testing.assert_array_equal(fast.decode_logits([picture], [of_picture])[0], wanted)
    again = fast.decode_logits(pictures[::-1] * 5, codes[::-1] * 5)
    for one, wanted in zip(again, together[::-1] * 5, strict=True):
        np.testing.assert_array_equal(one, wanted)
    np.testing.assert_array_equal(fast.decode_logits(pictures[2:], [codes[2][7:9]])[0], together[2][7:9])


def test_what_is_decoded_lasts_while_more_is_encoded_and_decoded(fast: MaskTokenizer, images: list[Prepared]) -> None:
    """Recorded launches share memory; here passes of encoder and decoder take turns on one pass of the backbone."""
    picture, most = drawn_image(320, 240, 0.3), fast.sizes.masks
    regions = [disc(320, 240, 0.2 + 0.5 * one / most, 0.5, 20 + 40 * one / most) for one in range(most + 44)]
    together = fast.reconstruct_logits([*images, fast.prepare(picture, regions)])
    for some in (slice(0, 5), slice(most - 50, most + 10), slice(most + 40, None)):
        alone = fast.reconstruct_logits([fast.prepare(picture, regions[some])])
        for (found,), (*_, wanted) in zip(alone, together, strict=True):
            np.testing.assert_array_equal(found, wanted[some])


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
