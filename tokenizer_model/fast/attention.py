"""Triton kernels of the two-way transformers: each passes over the positions of the image once, for one mask.

The tokens of a mask (T) attend to the positions (E^2), and the positions to the tokens, with H heads. T * H = R is
small, so all heads of all tokens go through the tensor cores together, and nothing is projected at the positions: a
score is (W x) q = x (W' q), with W' q made once for each head and token, and a sum of values is (sum of p x) W'. In the
first layer x is what the image gives, shared by its masks, plus a product with the M channels of the small mask; where
there is none (the decoder), M is 0. Of two tokens that are the same all the way, one is computed: the other is TWICE.
Positions of the softmax over them come block by block, as in FlashAttention (arXiv 2205.14135); a pass may be split,
and the parts are put together by ``Parts.merged``.

Letters: n masks, S parts of a pass, E^2 positions, D channels, HALF = D / 2, M channels of the small mask, TWICE number
of the token that stands for two, -1: none does.
"""

# Triton compiles the kernels; Python's types do not fit what stands in them.
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false, reportIndexIssue=false
from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from tokenizer_model.fast.functions import layer_norm


@dataclass(frozen=True, slots=True)
class Parts:
    """What tokens saw of the positions, for each part of a pass.

    Attributes:
        most: float32, (n, S, R): the largest score.
        total: float32, (n, S, R): sum of the scores' exponentials.
        seen: float32, (n, S, R, X): by them, sum of what stands at the positions.
    """

    most: Tensor
    total: Tensor
    seen: Tensor

    @classmethod
    def empty(cls, masks: int, parts: int, rows: int, channels: int, device: torch.device) -> Parts:
        """Room for them."""
        both = torch.empty(2, masks, parts, rows, device=device)
        return cls(both[0], both[1], torch.empty(masks, parts, rows, channels, device=device))

    def merged(self) -> Tensor:
        """The mean of what stands at the positions, by the softmax of the scores: float32, (n, R, X)."""
        weight = torch.exp(self.most - self.most.amax(1, keepdim=True))
        total = (self.total * weight).sum(1).unsqueeze(2)
        return (self.seen * weight.unsqueeze(3)).sum(1) / total


_LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def _softmax_step(scores, most, total):
    """One block more of a softmax over positions: what scores count, and what earlier sums still count."""
    larger = tl.maximum(most, tl.max(scores, axis=0))
    shares = tl.exp(scores - larger[None, :])
    kept = tl.exp(most - larger)
    return larger, total * kept + tl.sum(shares, axis=0), shares, kept


@triton.jit
def _shares(scores, BLOCK: tl.constexpr, T: tl.constexpr, H: tl.constexpr, TWICE: tl.constexpr):
    """The softmax of positions over tokens, by head; (BLOCK, R). What counts twice gets the shares of both."""
    if TWICE >= 0:
        scores += tl.where(tl.arange(0, T * H) // H == TWICE, _LN_2, 0.0)[None, :]
    parted = tl.reshape(scores, (BLOCK, T, H))
    raised = tl.exp(parted - tl.max(parted, axis=1)[:, None, :])
    return tl.reshape(raised / tl.sum(raised, axis=1)[:, None, :], (BLOCK, T * H))


@triton.jit
def first_look(
    owners, small, image_keys, image_values, queries, small_queries, most_at, total_at, seen_at,
    POSITIONS: tl.constexpr, PART: tl.constexpr, HALF: tl.constexpr, M: tl.constexpr, R: tl.constexpr,
    BLOCK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """First layer, tokens to positions. Seen are the image's values and the small mask, side by side."""
    mask = tl.program_id(0).to(tl.int64)
    owner = tl.load(owners + mask).to(tl.int64)
    row, channel = tl.arange(0, R), tl.arange(0, HALF)
    query = tl.load(queries + (mask * R + row)[None, :] * HALF + channel[:, None])
    most = tl.full((R,), -float("inf"), tl.float32)
    total = tl.zeros((R,), tl.float32)
    seen = tl.zeros((R, HALF), tl.float32)
    if M:
        few = tl.arange(0, M)
        small_query = tl.load(small_queries + (mask * R + row)[None, :] * M + few[:, None])
        seen_small = tl.zeros((R, M), tl.float32)
    for start in range(tl.program_id(1) * PART, tl.program_id(1) * PART + PART, BLOCK):
        position = start + tl.arange(0, BLOCK)
        place = (owner * POSITIONS + position)[:, None] * HALF + channel[None, :]
        scores = tl.dot(tl.load(image_keys + place), query, input_precision=PRECISION)
        if M:
            here = tl.load(small + (mask * POSITIONS + position)[:, None] * M + few[None, :])
            scores += tl.dot(here, small_query, input_precision=PRECISION)
        most, total, shares, kept = _softmax_step(scores, most, total)
        share = tl.trans(shares.to(image_values.dtype.element_ty))
        seen = seen * kept[:, None] + tl.dot(share, tl.load(image_values + place), input_precision=PRECISION)
        if M:
            seen_small = seen_small * kept[:, None] + tl.dot(share, here, input_precision=PRECISION)
    part = (mask * tl.num_programs(1) + tl.program_id(1)) * R + row
    tl.store(most_at + part, most)
    tl.store(total_at + part, total)
    tl.store(seen_at + part[:, None] * (HALF + M) + channel[None, :], seen)
    if M:
        tl.store(seen_at + part[:, None] * (HALF + M) + HALF + few[None, :], seen_small)


@triton.jit
def second_look(
    owners, small, image, image_queries, small_to_image, keys1, small_keys1, values1, out_bias, scale, shift, eps,
    queries, position_keys, position_queries, out, most_at, total_at, seen_at,
    POSITIONS: tl.constexpr, PART: tl.constexpr, D: tl.constexpr, HALF: tl.constexpr, M: tl.constexpr, T: tl.constexpr,
    H: tl.constexpr, TWICE: tl.constexpr, BLOCK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """First layer, positions to tokens, with its norm, which is kept; second layer, tokens to positions."""
    R: tl.constexpr = T * H
    mask = tl.program_id(0).to(tl.int64)
    owner = tl.load(owners + mask).to(tl.int64)
    row, channel, wide = tl.arange(0, R), tl.arange(0, HALF), tl.arange(0, D)
    kind = image.dtype.element_ty
    if M:
        few = tl.arange(0, M)
        to_image = tl.load(small_to_image + few[:, None] * D + wide[None, :])
        small_key1 = tl.load(small_keys1 + (mask * R + row)[None, :] * M + few[:, None])
    key1 = tl.load(keys1 + (mask * R + row)[None, :] * HALF + channel[:, None])
    value1 = tl.load(values1 + (mask * R + row)[:, None] * D + wide[None, :])
    query2 = tl.load(queries + (mask * R + row)[None, :] * D + wide[:, None])
    position_query2 = tl.load(position_queries + (mask * R + row)[None, :] * HALF + channel[:, None])
    most = tl.full((R,), -float("inf"), tl.float32)
    total = tl.zeros((R,), tl.float32)
    seen = tl.zeros((R, D), tl.float32)
    for start in range(tl.program_id(1) * PART, tl.program_id(1) * PART + PART, BLOCK):
        position = start + tl.arange(0, BLOCK)
        of_image = owner * POSITIONS + position
        query1 = tl.load(image_queries + of_image[:, None] * HALF + channel[None, :])
        scores = tl.dot(query1, key1, input_precision=PRECISION)
        value = (
            tl.load(image + of_image[:, None] * D + wide[None, :]).to(tl.float32) + tl.load(out_bias + wide)[None, :]
        )
        if M:
            here = tl.load(small + (mask * POSITIONS + position)[:, None] * M + few[None, :])
            scores += tl.dot(here, small_key1, input_precision=PRECISION)
            value += tl.dot(here, to_image, input_precision=PRECISION)
        shares = _shares(scores, BLOCK, T, H, TWICE)
        value += tl.dot(shares.to(kind), value1, input_precision=PRECISION)
        normed = layer_norm(value, scale, shift, eps, D).to(kind)
        tl.store(out + (mask * POSITIONS + position)[:, None] * D + wide[None, :], normed)
        scores = tl.dot(normed, query2, input_precision=PRECISION)
        place = tl.load(position_keys + position[:, None] * HALF + channel[None, :])
        scores += tl.dot(place, position_query2, input_precision=PRECISION)
        most, total, shares, kept = _softmax_step(scores, most, total)
        seen = seen * kept[:, None] + tl.dot(tl.trans(shares.to(kind)), normed, input_precision=PRECISION)
    part = (mask * tl.num_programs(1) + tl.program_id(1)) * R + row
    tl.store(most_at + part, most)
    tl.store(total_at + part, total)
    tl.store(seen_at + part[:, None] * D + wide[None, :], seen)


@triton.jit
def last_look(
    positions, keys2, position_queries2, position_keys2, values2, out_bias, scale, shift, eps,
    queries, position_keys, position_queries, most_at, total_at, seen_at,
    POSITIONS: tl.constexpr, PART: tl.constexpr, D: tl.constexpr, HALF: tl.constexpr, T: tl.constexpr, H: tl.constexpr,
    TWICE: tl.constexpr, KEEPS: tl.constexpr, BLOCK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Second layer, positions to tokens, with its norm, which is kept in place if it KEEPS; last attention of the
    tokens to the positions."""
    R: tl.constexpr = T * H
    mask = tl.program_id(0).to(tl.int64)
    row, channel, wide = tl.arange(0, R), tl.arange(0, HALF), tl.arange(0, D)
    kind = positions.dtype.element_ty
    key2 = tl.load(keys2 + (mask * R + row)[None, :] * D + wide[:, None])
    position_key2 = tl.load(position_keys2 + (mask * R + row)[None, :] * HALF + channel[:, None])
    value2 = tl.load(values2 + (mask * R + row)[:, None] * D + wide[None, :])
    query3 = tl.load(queries + (mask * R + row)[None, :] * D + wide[:, None])
    position_query3 = tl.load(position_queries + (mask * R + row)[None, :] * HALF + channel[:, None])
    most = tl.full((R,), -float("inf"), tl.float32)
    total = tl.zeros((R,), tl.float32)
    seen = tl.zeros((R, D), tl.float32)
    for start in range(tl.program_id(1) * PART, tl.program_id(1) * PART + PART, BLOCK):
        position = start + tl.arange(0, BLOCK)
        at = positions + (mask * POSITIONS + position)[:, None] * D + wide[None, :]
        before = tl.load(at)
        place = tl.load(position_queries2 + position[:, None] * HALF + channel[None, :])
        scores = tl.dot(before, key2, input_precision=PRECISION)
        scores += tl.dot(place, position_key2, input_precision=PRECISION)
        shares = _shares(scores, BLOCK, T, H, TWICE)
        value = before.to(tl.float32) + tl.load(out_bias + wide)[None, :]
        value += tl.dot(shares.to(kind), value2, input_precision=PRECISION)
        normed = layer_norm(value, scale, shift, eps, D).to(kind)
        if KEEPS:
            tl.store(at, normed)
        place = tl.load(position_keys + position[:, None] * HALF + channel[None, :])
        scores = tl.dot(normed, query3, input_precision=PRECISION)
        scores += tl.dot(place, position_query3, input_precision=PRECISION)
        most, total, shares, kept = _softmax_step(scores, most, total)
        seen = seen * kept[:, None] + tl.dot(tl.trans(shares.to(kind)), normed, input_precision=PRECISION)
    part = (mask * tl.num_programs(1) + tl.program_id(1)) * R + row
    tl.store(most_at + part, most)
    tl.store(total_at + part, total)
    tl.store(seen_at + part[:, None] * D + wide[None, :], seen)
