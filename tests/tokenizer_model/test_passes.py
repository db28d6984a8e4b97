"""Batches: what happens when memory runs out, when 16 bits do not hold a number, and in several threads."""

from __future__ import annotations

import logging
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from fake_path import FakePath, GivingLock, MeetingPath, NarrowPath, OverflowingPath, out_of_memory
from numpy.typing import NDArray
from tiny_tokenizer import some_prepared, tiny_tokenizer
from torch import Tensor

from samtok_data.errors import SetupError
from tokenizer_model import MaskTokenizer, Prepared, passes
from tokenizer_model.config import Precision
from tokenizer_model.passes import MaskPass, run_passes
from tokenizer_model.paths import PassSizes

COUNTS = [3, 0, 1, 4, 2, 0, 5, 1]
TOO_SMALL = (
    "The GPU's memory is too small for %d %s at once: going on with %d. Nothing is lost; a few words in a thousand "
    "may differ from those of a larger GPU."
)


def step(masks: MaskPass) -> tuple[Tensor, ...]:
    z_ND = masks.embeddings()
    numbers = [image for image, _, place in masks.spans() for _ in range(place.start, place.stop)]
    logits_NPP = masks.logits(z_ND)
    return z_ND, logits_NPP, torch.tensor(numbers), masks.ious(logits_NPP, 2.0)


def wanted(prepared: list[Prepared]) -> tuple[NDArray[np.floating], ...]:
    """What ``step`` gives of all masks, in order."""
    rows = [
        (*one.size, mask, one.pieces.areas[mask], index)
        for index, one in enumerate(prepared)
        for mask in range(one.num_masks)
    ]
    array = np.array(rows, np.float32)
    parts = array[:, 3].astype(np.float64) / (array[:, 0] * array[:, 1])
    return array[:, :4], array[:, [0, 1, 3]], array[:, 4], parts + 2.0


def run(path: FakePath, sizes: PassSizes, prepared: list[Prepared]) -> None:
    """Runs it and looks at what it gives."""
    found = run_passes(path, sizes, prepared, [one.num_masks for one in prepared], step)
    for array, rows in zip(found, wanted(prepared), strict=True):
        np.testing.assert_array_equal(array, rows)


@pytest.mark.parametrize(
    ("fits", "ends", "said"),
    [
        pytest.param((8, 64), (6, 16), [], id="enough"),
        pytest.param((3, 64), (3, 16), [(6, "images", 3)], id="images"),
        pytest.param((1, 64), (1, 16), [(6, "images", 3), (3, "images", 1)], id="images-to-1"),
        pytest.param((8, 5), (6, 4), [(16, "masks", 8), (8, "masks", 4)], id="masks"),
        pytest.param((2, 9), (1, 16), [(6, "images", 3), (3, "images", 1)], id="fewer-images-have-fewer-masks"),
        pytest.param(
            (4, 1),
            (3, 1),
            [(6, "images", 3), (16, "masks", 8), (8, "masks", 4), (4, "masks", 2), (2, "masks", 1)],
            id="both",
        ),
    ],
)
def test_a_batch_that_memory_does_not_hold_is_halved(
    caplog: pytest.LogCaptureFixture,
    fits: tuple[int, int],
    ends: tuple[int, int],
    said: list[tuple[int, str, int]],
) -> None:
    path, sizes, prepared = FakePath(*fits), PassSizes(6, 16), some_prepared(COUNTS)
    run(path, sizes, prepared)
    assert (sizes.images, sizes.masks) == ends
    assert [record.getMessage() for record in caplog.records] == [TOO_SMALL % one for one in said]
    assert {record.levelno for record in caplog.records} <= {logging.WARNING}


def test_batches_stay_small_afterwards(caplog: pytest.LogCaptureFixture) -> None:
    path, sizes, prepared = FakePath(3, 5), PassSizes(6, 16), some_prepared(COUNTS)
    run(path, sizes, prepared)
    assert len(caplog.records) == 3
    path.tries.clear()
    run(path, sizes, prepared)
    assert len(caplog.records) == 3
    assert [count for what, count in path.tries if what == "images"] == [3, 3]
    # Of the first three images 8 masks, of the last three 8; each pass is one of the encoder and one of the decoder.
    assert [count for what, count in path.tries if what == "masks"] == [4, 4, 4, 4, 4, 4, 4, 4]


def test_a_batch_that_breaks_late_is_computed_once() -> None:
    """The memory may run out in the last pass of many; what was there before is not given twice."""

    class Late(FakePath):
        def _take(self, what: str, count: int) -> None:
            super()._take(what, count)
            if len(self.tries) == 13:
                raise out_of_memory()

    path, sizes, prepared = Late(8, 64), PassSizes(2, 4), some_prepared(COUNTS)
    run(path, sizes, prepared)
    assert (sizes.images, sizes.masks) == (2, 2)
    assert path.tries[12] == ("masks", 2)  # the decoder, of the last masks


@pytest.mark.parametrize("fits", [(0, 9), (9, 0)], ids=["image", "mask"])
def test_memory_that_does_not_hold_one_image_with_one_mask_is_an_error(fits: tuple[int, int]) -> None:
    path, sizes, prepared = FakePath(*fits), PassSizes(4, 4), some_prepared([1, 2])
    with pytest.raises(
        SetupError,
        match="The GPU's memory does not hold one image with one mask: other programs may fill it; "
        "else take a smaller tokenizer or a GPU with more memory",
    ):
        run(path, sizes, prepared)
    assert (sizes.images, sizes.masks) == (1, 1)


def test_other_errors_are_not_caught() -> None:
    class Broken(FakePath):
        def features(self, staged: object) -> Tensor:
            raise RuntimeError("CUDA error: device-side assert triggered")

    sizes = PassSizes(4, 4)
    with pytest.raises(RuntimeError, match="device-side assert"):
        run(Broken(9, 9), sizes, some_prepared([1]))
    assert sizes == PassSizes(4, 4)
    run(FakePath(9, 9), sizes, some_prepared([1]))  # the lock is free


def test_threads_compute_one_at_a_time_and_each_gets_its_own() -> None:
    path, sizes = FakePath(2, 3), PassSizes(8, 16)
    calls = [some_prepared(COUNTS[first:] + COUNTS[:first]) for first in range(len(COUNTS))] * 3
    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(run, path, sizes, prepared) for prepared in calls]:
            done.result()


@pytest.mark.parametrize("is_late", [False, True], ids=["at-once", "one-later"])
@pytest.mark.parametrize(
    ("fits", "starts", "ends"),
    [((2, 9), (4, 4), (2, 4)), ((1, 9), (2, 1), (1, 1)), ((9, 1), (1, 2), (1, 1))],
    ids=["images", "images-to-1", "masks-to-1"],
)
def test_two_threads_that_run_out_of_memory_at_one_size_halve_it_once(
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    fits: tuple[int, int],
    starts: tuple[int, int],
    ends: tuple[int, int],
    is_late: bool,
) -> None:
    monkeypatch.setattr(passes, "_LAUNCHING", GivingLock())
    sizes = PassSizes(*starts)
    path = MeetingPath(*fits, sizes, is_late=is_late)
    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(run, path, sizes, some_prepared([2, 2, 1, 1])) for _ in range(2)]:
            done.result()
    assert (sizes.images, sizes.masks) == ends
    assert len(caplog.records) == 1


def codes_of(tokenizer: MaskTokenizer, prepared: list[Prepared]) -> list[list[list[int]]]:
    return [codes_nL.tolist() for codes_nL in tokenizer.encode_prepared(prepared)]


def test_codes_are_the_same_where_memory_runs_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    prepared = some_prepared(COUNTS)
    plain, narrow = tiny_tokenizer(4, 8), tiny_tokenizer(4, 8)
    monkeypatch.setattr(narrow, "_fast", NarrowPath(narrow.network, 2, 3))
    assert codes_of(narrow, prepared) == codes_of(plain, prepared)
    assert narrow.sizes == PassSizes(2, 2)
    assert len(caplog.records) == 3
    caplog.clear()
    assert [codes.tolist() for codes in narrow.measure_prepared(prepared)[0]] == codes_of(plain, prepared)
    measured, wanted_ious = (tokenizer.measure_prepared(prepared, 0.0)[1] for tokenizer in (narrow, plain))
    for ious_n, wanted_n in zip(measured, wanted_ious, strict=True):
        np.testing.assert_allclose(ious_n, wanted_n, rtol=0, atol=1e-2)  # pixels on the very edge of the threshold
    assert not caplog.records
    assert len({tuple(row) for codes in codes_of(plain, prepared) for row in codes}) > 8  # they can tell masks apart


def test_a_tokenizer_in_several_threads_gives_what_it_gives_in_one() -> None:
    tokenizer = tiny_tokenizer(2, 3)
    calls = [some_prepared(COUNTS[first:] + COUNTS[:first]) for first in range(len(COUNTS))]
    alone = [codes_of(tokenizer, prepared) for prepared in calls]
    with ThreadPoolExecutor(4) as threads:
        encoded = [threads.submit(codes_of, tokenizer, prepared) for prepared in calls]
        measured = [threads.submit(tokenizer.measure_prepared, prepared) for prepared in calls]
        assert [done.result() for done in encoded] == alone
        assert [[codes.tolist() for codes in done.result()[0]] for done in measured] == alone


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_what_16_bits_do_not_hold_is_computed_in_fp32(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, precision: Precision, value: float
) -> None:
    prepared = some_prepared(COUNTS)
    wrong = [0, 3, 7]
    tokenizer, plain = tiny_tokenizer(precision=precision), tiny_tokenizer()
    path = OverflowingPath(tokenizer.network, {prepared[index].size for index in wrong}, value)
    monkeypatch.setattr(tokenizer, "_fast", path)
    z, codes = tokenizer.embed_prepared(prepared)
    message = f"3 images exceed the range of {precision} and were computed in fp32."
    assert [record.getMessage() for record in caplog.records] == [message]
    fp32_z, fp32_codes = plain.embed_prepared(prepared)
    for index in range(len(prepared)):
        if index in wrong:
            np.testing.assert_array_equal(codes[index], fp32_codes[index])
            np.testing.assert_allclose(z[index], fp32_z[index], rtol=1e-5, atol=1e-5)
        else:  # as the path gave it
            np.testing.assert_allclose(z[index], fp32_z[index] + 1, rtol=1e-5, atol=1e-5)
    assert tokenizer.precision == precision


def test_measures_of_what_16_bits_do_not_hold_are_those_of_fp32(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    prepared = some_prepared(COUNTS)
    tokenizer, plain = tiny_tokenizer(precision="fp16"), tiny_tokenizer()
    wrong = [0, 3, 7]
    path = OverflowingPath(tokenizer.network, {prepared[index].size for index in wrong}, float("inf"))
    monkeypatch.setattr(tokenizer, "_fast", path)
    codes, ious = tokenizer.measure_prepared(prepared, 0.0)
    assert [record.getMessage() for record in caplog.records] == [
        "3 images exceed the range of fp16 and were computed in fp32."
    ]
    wanted_codes, wanted_ious = plain.measure_prepared(prepared, 0.0)
    assert all((ious_n > 0).all() for ious_n in ious)
    for index in wrong:
        np.testing.assert_array_equal(codes[index], wanted_codes[index])
        np.testing.assert_allclose(ious[index], wanted_ious[index], rtol=0, atol=1e-2)


@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp32"])
def test_weights_that_give_no_numbers_in_fp32_either_are_an_error(precision: Precision) -> None:
    tokenizer, prepared = tiny_tokenizer(precision=precision), some_prepared([1, 2])
    with torch.no_grad():
        tokenizer.network.sam_mask_encoder.mask_tokens.weight.fill_(float("nan"))
    for call in (tokenizer.encode_prepared, tokenizer.measure_prepared, tokenizer.reconstruct_logits):
        with pytest.raises(SetupError, match="tokenizer unnamed: its weights give embeddings that are no numbers"):
            call(prepared)


@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp32"])
def test_a_cpu_has_no_fast_path(caplog: pytest.LogCaptureFixture, precision: Precision) -> None:
    tokenizer, prepared = tiny_tokenizer(precision=precision), some_prepared(COUNTS)
    before = codes_of(tokenizer, prepared)
    tokenizer.use_fast_path()
    assert tokenizer._fast is None
    assert not tokenizer.resizes
    assert codes_of(tokenizer, prepared) == before
    assert not caplog.records


def test_without_triton_a_gpu_asks_for_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Going on by torch's modules would give other words than the nodes that have triton."""
    tokenizer = tiny_tokenizer(precision="fp16")
    monkeypatch.setattr(MaskTokenizer, "device", torch.device("cuda"))
    monkeypatch.setitem(sys.modules, "tokenizer_model.fast.path", None)
    with pytest.raises(SetupError, match=r"precision fp16 needs triton.*: install it, or take fp32"):
        tokenizer.use_fast_path()
