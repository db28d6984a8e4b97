"""Triton kernel of the mask decoder: from the transformer's positions to logits, with nothing between them in memory.

Two transposed convolutions of stride 2, each of a pixel by itself, so each is a product at the position: 256 channels
become 2 x 2 pixels of 64, each of them 2 x 2 of 32. What the backbone's finer levels give is added to both. One of the
first 2 x 2, a corner, is a program's, as the weights of all four do not fit into a multiprocessor.

Letters: n masks, B images, E side of the positions, Q = D / 4 channels of a corner, O = D / 8 channels of a pixel.
"""

# Triton compiles the kernels; Python's types do not fit what stands in them.
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false, reportIndexIssue=false
from __future__ import annotations

import triton
import triton.language as tl

from tokenizer_model.fast.functions import gelu, layer_norm


@triton.jit
def upscale(
    owners, positions, middle, fine, corner_weights, scale, shift, eps, pixel_weights, vectors, out,
    POSITIONS: tl.constexpr, PART: tl.constexpr, SIDE: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Logits of one corner of some positions of a mask; four of a corner's pixels lie side by side as channels.

    Args:
        owners: int32, (n,), the image of each mask.
        positions: (n, E^2, D).
        middle: (B, 4, E^2, Q), by corner: what is added to the first convolution, with its bias.
        fine: (B, 4, E^2, 4 * O), the same of the second.
        corner_weights: (4, D, Q).
        scale: float32, (Q,), of the norm, as shift and eps.
        shift: see there.
        eps: see there.
        pixel_weights: (Q, 4 * O).
        vectors: float32, (n, O), whose products with the pixels are the logits.
        out: float32, (n, 4 * E, 4 * E).
        POSITIONS: E^2.
        PART: positions of a program.
        SIDE: E.
        D: channels.
        BLOCK: positions of a step.
        PRECISION: of products of float32.
    """
    Q: tl.constexpr = D // 4
    FOUR: tl.constexpr = 4 * (D // 8)
    corner = tl.program_id(0)  # next to each other, as the four read the same positions
    mask = tl.program_id(2).to(tl.int64)
    of_corner = (tl.load(owners + mask).to(tl.int64) * 4 + corner) * POSITIONS
    wide, channel, pixels = tl.arange(0, D), tl.arange(0, Q), tl.arange(0, FOUR)
    kind = positions.dtype.element_ty
    corner_weight = tl.load(corner_weights + (corner * D + wide)[:, None] * Q + channel[None, :])
    pixel_weight = tl.load(pixel_weights + channel[:, None] * FOUR + pixels[None, :])
    vector = tl.load(vectors + mask * (D // 8) + pixels % (D // 8))
    pixel = tl.arange(0, 4)
    for start in range(tl.program_id(1) * PART, tl.program_id(1) * PART + PART, BLOCK):
        position = start + tl.arange(0, BLOCK)
        here = tl.load(positions + (mask * POSITIONS + position)[:, None] * D + wide[None, :])
        value = tl.dot(here, corner_weight, input_precision=PRECISION)
        value += tl.load(middle + (of_corner + position)[:, None] * Q + channel[None, :]).to(tl.float32)
        value = gelu(layer_norm(value, scale, shift, eps, Q)).to(kind)
        value = tl.dot(value, pixel_weight, input_precision=PRECISION)
        value += tl.load(fine + (of_corner + position)[:, None] * FOUR + pixels[None, :]).to(tl.float32)
        logits = tl.sum(tl.reshape(gelu(value) * vector[None, :], (BLOCK, 4, D // 8)), axis=2)
        row = position // SIDE * 4 + corner // 2 * 2
        column = position % SIDE * 4 + corner % 2 * 2
        place = (row[:, None] + pixel[None, :] // 2) * (4 * SIDE) + column[:, None] + pixel[None, :] % 2
        tl.store(out + mask * (16 * POSITIONS) + place, logits)
