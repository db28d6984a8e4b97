"""Prompts from runs are those that torch makes of the full masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image

from samtok_data import masks
from samtok_data.masks import RLE, Mask
from tokenizer_model import SMALL, Prepared
from tokenizer_model.pieces import MaskPieces
from tokenizer_model.prompts import draw_prompt

CLOSE = 1e-5


def resized(mask_HW: Mask, side: int) -> NDArray[np.float32]:
    mask_11HW = torch.from_numpy(np.ascontiguousarray(mask_HW)).float()[None, None]
    size = (side, side)
    return F.interpolate(mask_11HW, size=size, mode="bilinear", align_corners=False, antialias=True)[0, 0].numpy()


def prompts_of(regions: list[RLE], side: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    pieces = MaskPieces.of(regions)
    drawn = [draw_prompt(pieces, mask, (regions[0].height, regions[0].width), side) for mask in range(len(regions))]
    return np.stack(drawn), pieces.boxes


@st.composite
def some_masks(draw: st.DrawFn) -> list[Mask]:
    shape = draw(st.tuples(st.integers(1, 70), st.integers(1, 70)))
    found = draw(st.lists(arrays(np.bool_, shape), min_size=1, max_size=4))
    return [mask_HW if mask_HW.any() else np.ones(shape, np.bool_) for mask_HW in found]


@given(some_masks(), st.sampled_from([4, 16, 33, 64]))
def test_any_masks_are_resized_as_torch_resizes_them(found: list[Mask], side: int) -> None:
    regions = [masks.encode(mask_HW) for mask_HW in found]
    prompts_NPP, boxes_N4 = prompts_of(regions, side)
    assert (prompts_NPP.dtype, prompts_NPP.shape) == (np.float32, (len(found), side, side))
    for mask_HW, rle, prompt_PP, box_4 in zip(found, regions, prompts_NPP, boxes_N4, strict=True):
        np.testing.assert_allclose(prompt_PP, resized(mask_HW, side), rtol=0, atol=CLOSE)
        np.testing.assert_array_equal(box_4, np.array(masks.prompt_box(rle), np.float32))


@pytest.mark.parametrize(
    "drawn",
    [
        pytest.param((slice(None), slice(None)), id="all-of-it"),
        pytest.param((slice(0, 1), slice(0, 1)), id="first-pixel"),
        pytest.param((slice(-1, None), slice(-1, None)), id="last-pixel"),
        pytest.param((slice(None), slice(700, 1100)), id="whole-columns-are-one-run"),
        pytest.param((slice(400, 401), slice(None)), id="a-row"),
        pytest.param((slice(100, 900), slice(300, 2000)), id="a-box"),
    ],
)
def test_masks_of_a_large_photograph(drawn: tuple[slice, slice]) -> None:
    mask_HW = np.zeros((1500, 2250), np.bool_)
    mask_HW[drawn] = True
    (prompt_PP,), _ = prompts_of([masks.encode(mask_HW)], 256)
    np.testing.assert_allclose(prompt_PP, resized(mask_HW, 256), rtol=0, atol=CLOSE)


def test_a_run_that_goes_on_over_columns() -> None:
    mask_HW = np.zeros((7, 9), np.bool_).T.copy().T
    mask_HW.T.reshape(-1)[3:40] = True  # column by column, as the runs go
    assert mask_HW.sum() == 37
    (prompt_PP,), _ = prompts_of([masks.encode(mask_HW)], 16)
    np.testing.assert_allclose(prompt_PP, resized(mask_HW, 16), rtol=0, atol=CLOSE)


def test_values_stay_between_0_and_1() -> None:
    rng = np.random.default_rng(0)
    prompts_NPP, _ = prompts_of([masks.encode(rng.random((300, 400)) < 0.9) for _ in range(3)], 32)
    assert prompts_NPP.min() >= 0
    assert prompts_NPP.max() <= 1


def test_an_empty_mask_is_refused_and_none_is_fine() -> None:
    empty = RLE(4, 5, masks.encode(np.zeros((4, 5), np.bool_)).counts)
    with pytest.raises(ValueError, match="region 1: expected a mask with foreground pixels, got an empty one"):
        prompts_of([masks.encode(np.ones((4, 5), np.bool_)), empty], 8)
    none = Prepared.of(Image.new("RGB", (5, 4)), [], SMALL)
    assert (none.num_masks, none.prompts.shape, none.pieces.boxes.shape) == (0, (0, 128, 128), (0, 4))


@given(some_masks())
def test_pieces_are_the_runs_of_each_column(found: list[Mask]) -> None:
    pieces = MaskPieces.of([masks.encode(mask_HW) for mask_HW in found])
    assert pieces.areas.tolist() == [mask_HW.sum() for mask_HW in found]
    drawn = [np.zeros_like(mask_HW) for mask_HW in found]
    for mask, mask_HW in enumerate(drawn):
        columns = range(pieces.mask_starts[mask], pieces.mask_starts[mask + 1])
        for x, column in enumerate(columns, pieces.lefts[mask]):
            for piece in range(pieces.column_starts[column], pieces.column_starts[column + 1]):
                assert not mask_HW[pieces.tops[piece] : pieces.afters[piece], x].any()  # each pixel in one piece
                mask_HW[pieces.tops[piece] : pieces.afters[piece], x] = True
    for mask_HW, again_HW in zip(found, drawn, strict=True):
        np.testing.assert_array_equal(again_HW, mask_HW)
