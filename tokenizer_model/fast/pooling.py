"""The largest of each 2 x 2 tokens of a window, by a Triton kernel that passes over memory once.

Letters: T tokens, window by window; w side of a window; C channels.
"""

# Triton compiles the kernel; Python's types do not fit what stands in it.
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false, reportIndexIssue=false
from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from tokenizer_model.fast.launches import launch

_ELEMENTS = 2048  # that a program makes
_WARPS = 8
_GROUP = 8  # of 16 bits what a thread reads at once


def pooled(rows_TC: Tensor, window: int, kind: torch.dtype) -> Tensor:
    """The largest of each 2 x 2 tokens, by channel; NaN where one is.

    Args:
        rows_TC: of any floating type, row by row of each window; columns of a wider matrix may be left out.
        window: w, even.
        kind: of what is returned: float32, or that of ``rows_TC``.

    Returns:
        (T / 4, C), contiguous, row by row of each window.
    """
    tokens, channels = rows_TC.shape
    if rows_TC.stride(1) != 1:
        raise ValueError(f"channels must lie side by side, got rows of strides {rows_TC.stride()}")
    out = torch.empty(tokens // 4, channels, dtype=kind, device=rows_TC.device)
    launch(
        _pool, (triton.cdiv(out.numel(), _ELEMENTS),),
        rows_TC, out, out.numel(), rows_TC.stride(0), window // 2, channels, math.gcd(channels, _GROUP), _ELEMENTS,
        num_warps=_WARPS,
    )  # fmt: skip
    return out


@triton.jit(do_not_specialize=["size"])
def _pool(rows, out, size, step, HALVED: tl.constexpr, C: tl.constexpr, GROUP: tl.constexpr, BLOCK: tl.constexpr):
    # Channels go in groups: so the compiler sees that they lie side by side.
    group = tl.program_id(0).to(tl.int64) * (BLOCK // GROUP) + tl.arange(0, BLOCK // GROUP)
    is_there = (group < size // GROUP)[:, None]
    token, inside = group // (C // GROUP), tl.arange(0, GROUP)[None, :]
    # Windows follow each other, so their lines of tokens do: two of each make one.
    source = (token // HALVED * (4 * HALVED) + token % HALVED * 2) * step + group % (C // GROUP) * GROUP
    first = source[:, None] + inside
    below = first + 2 * HALVED * step
    a = tl.load(rows + first, mask=is_there)
    b = tl.load(rows + first + step, mask=is_there)
    c = tl.load(rows + below, mask=is_there)
    d = tl.load(rows + below + step, mask=is_there)
    largest = _larger(_larger(a, b), _larger(c, d))
    tl.store(out + group[:, None] * GROUP + inside, largest.to(out.dtype.element_ty), mask=is_there)


@triton.jit
def _larger(a, b):
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)
