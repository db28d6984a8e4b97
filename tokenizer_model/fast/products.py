"""Matrix products with what follows them in registers.

Letters: T rows, K channels that are summed over, N channels that come out.
"""

# Triton compiles the kernel; Python's types do not fit what stands in it.
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false, reportIndexIssue=false
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from tokenizer_model.fast.functions import gelu
from tokenizer_model.fast.launches import launch

# Of a program: its rows and channels, and the channels that it takes in at once.
_ROWS, _CHANNELS = 128, 128
_WIDE, _NARROW = 64, 32


def linear(x_TK: Tensor, weight_NK: Tensor, bias_N: Tensor, *, is_gelu: bool = False) -> Tensor:
    """``x weight' + bias``, and its GELU (the exact one), which otherwise is a pass over memory of its own.

    Args:
        x_TK: of a floating type.
        weight_NK: of the same type. Both are contiguous.
        bias_N: of a floating type.
        is_gelu: whether the GELU is taken, in float32 before anything is rounded.

    Returns:
        (T, N), of the type of ``x_TK``.
    """
    (rows, inner), outer = x_TK.shape, len(weight_NK)
    out_TN = torch.empty(rows, outer, dtype=x_TK.dtype, device=x_TK.device)
    step = _WIDE if inner % _WIDE == 0 else _NARROW
    launch(
        _linear,
        (triton.cdiv(rows, _ROWS) * triton.cdiv(outer, _CHANNELS),),
        x_TK, weight_NK, bias_N, out_TN, rows, inner, outer,
        is_gelu, "ieee" if x_TK.dtype == torch.float32 else "tf32",
        _ROWS, _CHANNELS, step, num_warps=4, num_stages=3 if step == _WIDE else 4,
    )  # fmt: skip
    return out_TN


@triton.jit
def _linear(
    x, weight, bias, out, rows, K: tl.constexpr, N: tl.constexpr, GELU: tl.constexpr, PRECISION: tl.constexpr,
    ROWS: tl.constexpr, CHANNELS: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    # Programs beside each other share their rows: these are fetched once, and the weight stays in the second cache.
    parts = tl.cdiv(N, CHANNELS)
    row = (tl.program_id(0) // parts).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(0) % parts * CHANNELS + tl.arange(0, CHANNELS)
    inner = tl.arange(0, STEP)
    # Where there is no row or channel the first one is read, and nothing is written.
    x_at = x + tl.where(row < rows, row, 0)[:, None] * K + inner[None, :]
    weight_at = weight + tl.where(channel < N, channel, 0)[None, :] * K + inner[:, None]
    found = tl.zeros((ROWS, CHANNELS), tl.float32)
    for start in range(0, K, STEP):
        if K % STEP == 0:
            some, weights = tl.load(x_at), tl.load(weight_at)
        else:
            is_there = inner < K - start
            some = tl.load(x_at, mask=is_there[None, :], other=0.0)
            weights = tl.load(weight_at, mask=is_there[:, None], other=0.0)
        found = tl.dot(some, weights, found, input_precision=PRECISION)
        x_at += STEP
        weight_at += STEP
    found += tl.load(bias + channel, mask=channel < N, other=0.0).to(tl.float32)[None, :]
    if GELU:
        found = gelu(found)
    place = row[:, None] * N + channel[None, :]
    tl.store(out + place, found.to(out.dtype.element_ty), mask=(row < rows)[:, None] & (channel < N)[None, :])
