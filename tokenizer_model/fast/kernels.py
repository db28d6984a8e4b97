"""Triton kernels for memory that is passed over once: sums with layer norm, prompts from pieces.

Letters: T rows, C channels of a row; n masks of an image; P side of a prompt, E = P / 4; H, W of the image.
"""

# Triton compiles the kernels; Python's types do not fit what stands in them.
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false, reportIndexIssue=false
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor, nn

from tokenizer_model.fast.functions import gelu, layer_norm
from tokenizer_model.fast.launches import launch

_ELEMENTS = 4096  # of a program's block
_POSITIONS = 64


def add_norm(
    terms: Sequence[Tensor],
    norm: nn.LayerNorm,
    out_TC: Tensor,
    *,
    total_TC: Tensor | None = None,
    order: Tensor | None = None,
) -> None:
    """The layer norm of a sum, in one pass over memory.

    Args:
        terms: one to three, (T, C), of any floating types; added up in this order, in float32.
        norm: weight and bias in float32.
        out_TC: the norm, of any floating type. All are contiguous.
        total_TC: where the sum is kept, float32; without ``order`` it may be one of the terms. None: it is not.
        order: int32, (M,): row t of what comes out is row ``order[t % M]`` of its M rows. None: the same row.
    """
    rows, channels = out_TC.shape
    width = triton.next_power_of_2(channels)
    at_once = max(1, _ELEMENTS // width)
    launch(
        _add_norm,
        (triton.cdiv(rows, at_once),),
        *[*terms, terms[0], terms[0]][:3],
        norm.weight,
        norm.bias,
        out_TC,
        terms[0] if total_TC is None else total_TC,
        terms[0] if order is None else order,
        rows,
        channels,
        0 if order is None else len(order),
        norm.eps,
        len(terms),
        total_TC is not None,
        order is not None,
        at_once,
        width,
        num_warps=4,
    )


@triton.jit
def _add_norm(
    x, y, z, weight, bias, out, total, order, rows, channels, of_image, eps,
    TERMS: tl.constexpr, KEEPS: tl.constexpr, IS_ORDERED: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    channel = tl.arange(0, WIDTH)
    is_there = (row[:, None] < rows) & (channel[None, :] < channels)
    source = row
    if IS_ORDERED:
        source = row // of_image * of_image + tl.load(order + row % of_image, mask=row < rows, other=0)
    at = source[:, None] * channels + channel[None, :]
    value = tl.load(x + at, mask=is_there, other=0.0).to(tl.float32)
    if TERMS > 1:
        value += tl.load(y + at, mask=is_there, other=0.0).to(tl.float32)
    if TERMS > 2:
        value += tl.load(z + at, mask=is_there, other=0.0).to(tl.float32)
    place = row[:, None] * channels + channel[None, :]
    if KEEPS:
        tl.store(total + place, value, mask=is_there)
    mean = tl.sum(value, axis=1) / channels
    centred = tl.where(is_there, value - mean[:, None], 0.0)
    scale = tl.rsqrt(tl.sum(centred * centred, axis=1) / channels + eps)
    scales = tl.load(weight + channel, mask=channel < channels, other=0.0)
    shifts = tl.load(bias + channel, mask=channel < channels, other=0.0)
    normed = centred * scale[:, None] * scales[None, :] + shifts[None, :]
    tl.store(out + place, normed.to(out.dtype.element_ty), mask=is_there)


@dataclass(frozen=True, slots=True)
class AxisTables:
    """``prompts.Axis`` on the GPU.

    Attributes:
        suffix_LP: as there.
        weights_PL: as there.
        reach: as there.
    """

    suffix_LP: Tensor
    weights_PL: Tensor
    reach: float


class DevicePieces(NamedTuple):
    """``MaskPieces`` on the GPU, int32; of them some masks that follow each other are wanted.

    Attributes:
        tops_r: as there.
        afters_r: as there.
        column_starts: as there.
        mask_starts: as there, of the masks that are wanted, with the end of the last.
        lefts_n: as there, of the masks that are wanted.
    """

    tops_r: Tensor
    afters_r: Tensor
    column_starts: Tensor
    mask_starts: Tensor
    lefts_n: Tensor


def draw_prompts(
    pieces: DevicePieces,
    suffix_LP: Tensor,
    columns: AxisTables,
    out_nPP: Tensor,
) -> None:
    """The prompts of some masks of an image, as ``prompts.draw_prompt`` gives them, but transposed.

    Args:
        pieces: of the masks.
        suffix_LP: ``Axis.suffix_LP`` of the image's height.
        columns: of its width.
        out_nPP: float32, (n, P, P): of each mask column by column.
    """
    masks, side = out_nPP.shape[:2]
    width = columns.weights_PL.shape[1]
    launch(
        _draw, (masks, side),
        *pieces, suffix_LP, columns.weights_PL, out_nPP,
        width, width / side, columns.reach, side, num_warps=2,
    )  # fmt: skip


# Pieces begin anywhere in what was sent; one kernel shall do for all.
ANYWHERE = ["tops", "afters", "column_starts", "mask_starts", "lefts"]


@triton.jit(do_not_specialize=["width"], do_not_specialize_on_alignment=ANYWHERE)
def _draw(
    tops, afters, column_starts, mask_starts, lefts, suffix, weights, out,
    width, scale, reach, SIDE: tl.constexpr,
):  # fmt: skip
    mask = tl.program_id(0)
    column = tl.program_id(1)
    first = tl.load(mask_starts + mask)
    count = tl.load(mask_starts + mask + 1) - first
    left = tl.load(lefts + mask)
    centre = scale * (column + 0.5)
    low = tl.maximum((centre - reach).to(tl.int32) - 1, left)
    high = tl.minimum((centre + reach).to(tl.int32) + 2, left + count)
    row = tl.arange(0, SIDE)
    drawn = tl.zeros((SIDE,), tl.float32)
    for x in range(low, high):
        weight = tl.load(weights + column * width + x)
        start = tl.load(column_starts + first + x - left)
        end = tl.load(column_starts + first + x - left + 1)
        for piece in range(start, end):
            top = tl.load(tops + piece)
            after = tl.load(afters + piece)
            part = tl.load(suffix + top * SIDE + row) - tl.load(suffix + after * SIDE + row)
            drawn += weight * part
    drawn = tl.minimum(tl.maximum(drawn, 0.0), 1.0)
    tl.store(out + (mask * SIDE + column).to(tl.int64) * SIDE + row, drawn)


def shrink_prompts(
    prompts_nPP: Tensor, first: tuple[Tensor, ...], second: tuple[Tensor, ...], eps: float, out: Tensor
) -> None:
    """The prompt encoder's two convolutions of stride 2 over transposed prompts, each with its norm and GELU.

    Args:
        prompts_nPP: float32, column by column.
        first: weight (c, 1, 2, 2) and bias (c,) of the first convolution, weight and bias of its norm; float32.
        second: the same of the second, (C, c, 2, 2).
        eps: of the norms.
        out: (n, E * E, C), of any floating type: row by row.
    """
    masks, side = prompts_nPP.shape[:2]
    positions = (side // 4) ** 2
    channels, inner = second[0].shape[:2]
    block = min(_POSITIONS, positions)
    launch(
        _shrink,
        (masks, triton.cdiv(positions, block)),
        prompts_nPP,
        *first,
        *second,
        out,
        eps,
        side,
        positions,
        inner,
        channels,
        block,
        num_warps=4,
    )


@triton.jit
def _shrink(
    prompts, weight1, bias1, scale1, shift1, weight2, bias2, scale2, shift2, out, eps,
    SIDE: tl.constexpr, POSITIONS: tl.constexpr, INNER: tl.constexpr, CHANNELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    mask = tl.program_id(0).to(tl.int64)
    position = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    is_there = position < POSITIONS
    y = position // (SIDE // 4) * 4
    x = position % (SIDE // 4) * 4
    inner = tl.arange(0, INNER)
    channel = tl.arange(0, CHANNELS)
    found = tl.zeros((BLOCK, CHANNELS), tl.float32) + tl.load(bias2 + channel)[None, :]
    base = prompts + mask * SIDE * SIDE
    for corner in tl.static_range(4):
        hidden = tl.zeros((BLOCK, INNER), tl.float32) + tl.load(bias1 + inner)[None, :]
        for pixel in tl.static_range(4):
            row = y + corner // 2 * 2 + pixel // 2
            column = x + corner % 2 * 2 + pixel % 2
            value = tl.load(base + column * SIDE + row, mask=is_there, other=0.0)
            hidden += value[:, None] * tl.load(weight1 + inner * 4 + pixel)[None, :]
        hidden = gelu(layer_norm(hidden, scale1, shift1, eps, INNER))
        for each in tl.static_range(INNER):
            chosen = tl.sum(tl.where(inner[None, :] == each, hidden, 0.0), axis=1)
            found += chosen[:, None] * tl.load(weight2 + (channel * INNER + each) * 4 + corner)[None, :]
    found = gelu(layer_norm(found, scale2, shift2, eps, CHANNELS))
    place = (mask * POSITIONS + position)[:, None] * CHANNELS + channel[None, :]
    tl.store(out + place, found.to(out.dtype.element_ty), mask=is_there[:, None])
