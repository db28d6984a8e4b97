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
from triton.tools.tensor_descriptor import TensorDescriptor

from tokenizer_model.fast.functions import gelu
from tokenizer_model.fast.launches import launch

# Of a program: its rows and channels, and the channels that it takes in at once, where they divide K.
_ROWS, _CHANNELS = 128, 128
_WIDE, _NARROW = 64, 32
# Numbers of channels are multiples of this: GPUs fetch blocks whose lines begin at multiples of 16 bytes.
WHOLE = 8


def linear(x_TK: Tensor, weight_NK: Tensor, bias_N: Tensor, *, is_gelu: bool = False) -> Tensor:
    """``x weight' + bias``, and its GELU (the exact one), which otherwise is a pass over memory of its own.

    Args:
        x_TK: of a floating type; K and N are multiples of ``WHOLE``.
        weight_NK: of the same type. Both are contiguous.
        bias_N: of a floating type.
        is_gelu: whether the GELU is taken, in float32 before anything is rounded.

    Returns:
        (T, N), of the type of ``x_TK``.
    """
    (rows, inner), outer = x_TK.shape, len(weight_NK)
    out_TN = torch.empty(rows, outer, dtype=x_TK.dtype, device=x_TK.device)
    step = _WIDE if is_wide(inner) else _NARROW
    launch(
        _linear,
        (triton.cdiv(rows, _ROWS) * triton.cdiv(outer, _CHANNELS),),
        TensorDescriptor.from_tensor(x_TK, [_ROWS, step]),
        TensorDescriptor.from_tensor(weight_NK, [_CHANNELS, step]),
        bias_N,
        TensorDescriptor.from_tensor(out_TN, [_ROWS, _CHANNELS]),
        inner, outer, is_gelu, "ieee" if x_TK.dtype == torch.float32 else "tf32", _ROWS, _CHANNELS, step,
        num_warps=4, num_stages=_stages(x_TK, step),
    )  # fmt: skip
    return out_TN


def is_wide(inner: int) -> bool:
    """Whether steps of 64 channels divide K. cuBLAS takes such steps; where they do not, ``linear`` is faster."""
    return inner % _WIDE == 0


def _stages(x_TK: Tensor, step: int) -> int:
    """How many steps are fetched ahead: as many as help, and as this GPU's multiprocessors hold."""
    wanted = 3 if step == _WIDE else 4
    if x_TK.device.type != "cuda":
        return wanted
    room = torch.cuda.get_device_properties(x_TK.device).shared_memory_per_block_optin
    return max(1, min(wanted, room // ((_ROWS + _CHANNELS) * step * x_TK.element_size())))


@triton.jit
def _linear(
    x, weight, bias, out, K: tl.constexpr, N: tl.constexpr, GELU: tl.constexpr, PRECISION: tl.constexpr,
    ROWS: tl.constexpr, CHANNELS: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    # Programs beside each other share their rows: these are fetched once, and the weight stays in the second cache.
    parts = tl.cdiv(N, CHANNELS)
    row = tl.program_id(0) // parts * ROWS
    first = tl.program_id(0) % parts * CHANNELS
    found = tl.zeros((ROWS, CHANNELS), tl.float32)
    # Beyond the last row or channel there are zeros, and nothing is written.
    for start in range(0, K, STEP):
        found = tl.dot(x.load([row, start]), weight.load([first, start]).T, found, input_precision=PRECISION)
    channel = first + tl.arange(0, CHANNELS)
    found += tl.load(bias + channel, mask=channel < N, other=0.0).to(tl.float32)[None, :]
    if GELU:
        found = gelu(found)
    out.store([row, first], found.to(out.dtype))
