"""Matrix products with what follows them in registers.

Letters: T rows, K channels that are summed over, N channels that come out.
"""

# Triton compiles the kernel; Python's types do not fit what stands in it.
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false, reportIndexIssue=false
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from tokenizer_model.fast.functions import gelu
from tokenizer_model.fast.launches import launch

try:
    from triton.tools.tensor_descriptor import TensorDescriptor as _Descriptor
except ImportError:  # before Triton 3.4
    _Descriptor: Any = None

# Of a program: its rows and channels, and the channels that it takes in at once, where they divide K.
_ROWS, _CHANNELS = 128, 128
_WIDE, _NARROW = 64, 32
# Numbers of channels are multiples of this: GPUs fetch blocks whose lines begin at multiples of 16 bytes.
WHOLE = 8
_ELEMENTS = 4096  # of a block of GELU alone


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
    if not _fetches_blocks(x_TK.device):
        found_TN = torch.addmm(bias_N, x_TK, weight_NK.T)
        return _gelu_of(found_TN) if is_gelu else found_TN
    (rows, inner), outer = x_TK.shape, len(weight_NK)
    out_TN = torch.empty(rows, outer, dtype=x_TK.dtype, device=x_TK.device)
    step = _WIDE if is_wide(inner) else _NARROW
    launch(
        _linear,
        (triton.cdiv(rows, _ROWS) * triton.cdiv(outer, _CHANNELS),),
        _Descriptor.from_tensor(x_TK, [_ROWS, step]),
        _Descriptor.from_tensor(weight_NK, [_CHANNELS, step]),
        bias_N,
        _Descriptor.from_tensor(out_TN, [_ROWS, _CHANNELS]),
        inner, outer, is_gelu, "ieee" if x_TK.dtype == torch.float32 else "tf32", _ROWS, _CHANNELS, step,
        num_warps=4, num_stages=_stages(x_TK, step),
    )  # fmt: skip
    return out_TN


def _fetches_blocks(device: torch.device) -> bool:
    """Whether GPUs fetch blocks by descriptors, which they do from Hopper on. Elsewhere Triton makes single loads of
    them, nothing is fetched ahead, and cuBLAS with a pass for GELU is the better way."""
    return _Descriptor is not None and (device.type != "cuda" or torch.cuda.get_device_capability(device) >= (9, 0))


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


def _gelu_of(x: Tensor) -> Tensor:
    """GELU in place, in float32."""
    size = x.numel()
    launch(_gelu, (triton.cdiv(size, _ELEMENTS),), x, size, _ELEMENTS, num_warps=8)
    return x


@triton.jit
def _gelu(x, size, BLOCK: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + place, mask=place < size, other=0.0).to(tl.float32)
    tl.store(x + place, gelu(value).to(x.dtype.element_ty), mask=place < size)


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
