"""What several Triton kernels compute in registers."""

# Triton compiles them; Python's types do not fit what stands in them.
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false, reportIndexIssue=false
from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def gelu(value):
    """GELU (the exact one), float32, to 3e-7 of 1 or of the value: x F(x) = max(x, 0) - |x| F(-|x|), F the normal
    distribution, whose logarithm to the base 2 is a polynomial of |x| here, fitted so that the largest error of the
    product is least. A third of the instructions of an error function, which is most of what a pass does."""
    size = tl.abs(value)
    inner = tl.minimum(size, 6.0)  # beyond, a billionth of the value is left
    power = 3.30928544e-05 * inner - 0.00076922002
    power = power * inner + 0.00808071748
    power = power * inner - 0.0534121055
    power = power * inner - 0.458770973
    power = power * inner - 1.1512017
    power = power * inner - 0.999993061
    return tl.maximum(value, 0.0) - size * tl.exp2(power)


@triton.jit
def layer_norm(value, scale, shift, eps, D: tl.constexpr):
    """Layer norm of rows of D channels, a power of two: float32, (rows, D)."""
    channel = tl.arange(0, D)
    centred = value - (tl.sum(value, axis=1) / D)[:, None]
    spread = tl.rsqrt(tl.sum(centred * centred, axis=1) / D + eps)
    return centred * spread[:, None] * tl.load(scale + channel)[None, :] + tl.load(shift + channel)[None, :]
