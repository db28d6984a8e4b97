"""Triton kernels for pictures: Pillow's bicubic resize.

Letters: S side of the network's image, H and W of an image as it came, K pixels that make one.
"""

# Triton compiles the kernels; Python's types do not fit what stands in them.
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false, reportIndexIssue=false
# pyright: reportOperatorIssue=false
from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from tokenizer_model.fast.launches import launch
from tokenizer_model.resizing import PRECISION_BITS

_PLACES = 1024  # of a program's block
_BITS = tl.constexpr(PRECISION_BITS)
_ROUNDING = tl.constexpr(1 << (PRECISION_BITS - 1))


@dataclass(frozen=True, slots=True)
class BicubicTables:
    """``resizing.BicubicAxis`` on the GPU.

    Attributes:
        firsts_S: as there.
        weights_SK: as there.
    """

    firsts_S: Tensor
    weights_SK: Tensor


def resize(
    pixels_HW3: Tensor, rows: BicubicTables, columns: BicubicTables, out_SS3: Tensor, *, is_rows_first: bool
) -> None:
    """A picture in the network's square, bicubic, with Pillow's whole numbers.

    Args:
        pixels_HW3: uint8, contiguous.
        rows: of H.
        columns: of W.
        out_SS3: uint8, contiguous.
        is_rows_first: whether rows are put together first, then columns. Each pass is rounded, so the order counts.
    """
    (height, width), side, device = pixels_HW3.shape[:2], len(out_SS3), out_SS3.device
    if is_rows_first:
        half_SW3 = torch.empty(side, width, 3, dtype=torch.uint8, device=device)
        _resize_rows(pixels_HW3, half_SW3, rows)
        _resize_columns(half_SW3, out_SS3, columns)
    else:
        half_HS3 = torch.empty(height, side, 3, dtype=torch.uint8, device=device)
        _resize_columns(pixels_HW3, half_HS3, columns)
        _resize_rows(half_HS3, out_SS3, rows)


def _resize_rows(source: Tensor, target: Tensor, tables: BicubicTables) -> None:
    step = 3 * target.shape[1]
    launch(
        _rows_together, (len(target), triton.cdiv(step, _PLACES)),
        source, target, tables.firsts_S, tables.weights_SK, len(source), step, tables.weights_SK.shape[1], _PLACES,
        num_warps=8,
    )  # fmt: skip


def _resize_columns(source: Tensor, target: Tensor, tables: BicubicTables) -> None:
    step = 3 * target.shape[1]
    launch(
        _columns_together, (len(target), triton.cdiv(step, _PLACES)),
        source, target, tables.firsts_S, tables.weights_SK, source.shape[1], step, tables.weights_SK.shape[1], _PLACES,
        num_warps=8,
    )  # fmt: skip


@triton.jit(do_not_specialize=["length", "taps"])
def _rows_together(source, target, firsts, weights, length, step, taps, BLOCK: tl.constexpr):
    line = tl.program_id(0)
    place = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    first = tl.load(firsts + line)
    total = tl.full((BLOCK,), _ROUNDING, tl.int32)
    for tap in range(taps):
        row = tl.minimum(first + tap, length - 1).to(tl.int64)  # behind the last that counts weights are zero
        pixel = tl.load(source + row * step + place, mask=place < step, other=0)
        total += pixel.to(tl.int32) * tl.load(weights + line * taps + tap)
    _store_pixels(target, line, place, step, total)


@triton.jit(do_not_specialize=["length", "taps"])
def _columns_together(source, target, firsts, weights, length, step, taps, BLOCK: tl.constexpr):
    line = tl.program_id(0)
    place = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    column = place // 3
    first = tl.load(firsts + column, mask=place < step, other=0)
    total = tl.full((BLOCK,), _ROUNDING, tl.int32)
    for tap in range(taps):
        there = tl.minimum(first + tap, length - 1) * 3 + place % 3
        pixel = tl.load(source + line.to(tl.int64) * 3 * length + there, mask=place < step, other=0)
        total += pixel.to(tl.int32) * tl.load(weights + column * taps + tap, mask=place < step, other=0)
    _store_pixels(target, line, place, step, total)


@triton.jit
def _store_pixels(target, line, place, step, total):
    value = tl.minimum(tl.maximum(total >> _BITS, 0), 255)
    tl.store(target + line.to(tl.int64) * step + place, value.to(tl.uint8), mask=place < step)
