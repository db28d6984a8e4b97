"""A Triton kernel for attention inside small windows.

Windows of 16 and 64 tokens leave most of the tiles empty that attention for long sequences works on. Here a tile holds
the tokens of as many windows as fit, and each token sees those of its own.

Letters: T tokens, w windows, Lq and Lk queries and keys of a window, h heads, d channels of a head, C = h * d.
"""

# Triton compiles the kernels; Python's types do not fit what stands in them.
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false, reportIndexIssue=false
from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from tokenizer_model.fast.launches import launch

MAX_KEYS = 64
"""Keys of a window up to which this is faster than attention for long sequences."""
_LEAST_QUERIES = 16  # of a tile, for the tensor cores


def window_attention(queries: Tensor, all_three: Tensor, length: int, heads: int, precision: str) -> Tensor:
    """Attention of each window's queries to its keys.

    Args:
        queries: (w * Lq, C), its rows any distance apart: of each window either all tokens or those that were pooled.
        all_three: (T, 3 C): queries, keys and values of all tokens, window by window, contiguous.
        length: Lk, a power of two up to ``MAX_KEYS``.
        heads: h.
        precision: of products in float32, as ``tl.dot`` names it.

    Returns:
        (w * Lq, C), contiguous.
    """
    tokens, channels = len(all_three), queries.shape[1]
    out = torch.empty(len(queries), channels, dtype=queries.dtype, device=queries.device)
    fewer = tokens // len(queries)
    keys = min(max(MAX_KEYS, _LEAST_QUERIES * fewer), triton.next_power_of_2(tokens))
    size = channels // heads
    launch(
        _attend, (triton.cdiv(tokens, keys), heads),
        queries, all_three, out, queries.stride(0), tokens, math.log2(math.e) / math.sqrt(size), channels,
        length, length // fewer, size, max(16, triton.next_power_of_2(size)), keys // fewer, keys, precision,
        num_warps=4,
    )  # fmt: skip
    return out


@triton.jit
def _attend(
    queries, all_three, out, query_step, tokens, scale, CHANNELS: tl.constexpr, KEYS: tl.constexpr,
    QUERIES: tl.constexpr, SIZE: tl.constexpr, WIDE: tl.constexpr, QUERY_BLOCK: tl.constexpr, KEY_BLOCK: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(0).to(tl.int64)
    start = tl.program_id(1) * SIZE
    query = block * QUERY_BLOCK + tl.arange(0, QUERY_BLOCK)
    key = block * KEY_BLOCK + tl.arange(0, KEY_BLOCK)
    channel = tl.arange(0, WIDE)
    is_query = (query < tokens * QUERIES // KEYS)[:, None] & (channel < SIZE)[None, :]
    is_key = (key < tokens)[:, None] & (channel < SIZE)[None, :]
    asked = tl.load(queries + query[:, None] * query_step + start + channel[None, :], mask=is_query, other=0.0)
    place = all_three + key[:, None] * (3 * CHANNELS) + start + channel[None, :]
    offered = tl.load(place + CHANNELS, mask=is_key, other=0.0)
    scores = tl.dot(asked, tl.trans(offered), input_precision=PRECISION) * scale
    is_own = (query // QUERIES)[:, None] == (key // KEYS)[None, :]
    scores = tl.where(is_own, scores, -float("inf"))
    raised = tl.exp2(scores - tl.max(scores, axis=1)[:, None])
    values = tl.load(place + 2 * CHANNELS, mask=is_key, other=0.0)
    found = tl.dot(raised.to(values.dtype), values, input_precision=PRECISION) / tl.sum(raised, axis=1)[:, None]
    tl.store(out + query[:, None] * CHANNELS + start + channel[None, :], found.to(out.dtype.element_ty), mask=is_query)
