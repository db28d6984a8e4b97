"""The image backbone's first convolution, from the pixels to tokens that lie window by window, in one Triton kernel.

Each token sees 7 x 7 pixels; neighbours are 4 pixels apart. Of a line of the picture that are 21 bytes, within 24 that
begin at a multiple of 4: six words, the first of whose eight pixels has no weight. So a token is a product of 7 x 6
words, filled up to 48, with weights laid out for their 192 bytes.

Nothing is normalised: bytes less 128 are exact in 16 bits, their scale goes into the weights, and what is left of the
shift, which is the tokens of a picture that is 128 everywhere, into the position encoding. So outside of the picture,
where the convolution sees a normalised 0, there are bytes of 128.

Letters: B images, S side of the network's image, F = S / 4 side in tokens, w side of a window, C channels, K = 192.
"""

# Triton compiles the kernel; Python's types do not fit what stands in it.
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false, reportIndexIssue=false
# pyright: reportOperatorIssue=false
from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from tokenizer_model.fast.launches import launch
from tokenizer_model.network import IMAGE_MEAN, IMAGE_STD

# A program makes so many tiles of so many tokens, one after the other, and keeps the weights.
_TOKENS = 64
_TILES = 8
_WARPS = 4
_STAGES = 1  # of the loop over tiles; from 2 on pixels of the next are fetched early

_SIDE, _STRIDE = 7, 4  # of the convolution; it pads with 3
_LEAST = 16  # channels of a product


@dataclass(frozen=True, slots=True)
class Patches:
    """The convolution's weights and the position encoding, as the kernel reads them.

    Attributes:
        weight_KC: in the type of the products, times 128: by line, byte of its 24, and channel; zeros for the first
            pixel's bytes and for an eighth line.
        places_TC: float32, (F^2, C): position encoding, bias and a picture that is 128 everywhere, window by window.
        side: F.
        window: w.
    """

    weight_KC: Tensor
    places_TC: Tensor
    side: int
    window: int

    @classmethod
    def of(cls, weight_C377: Tensor, bias_C: Tensor, places_FFC: Tensor, window: int, kind: torch.dtype) -> Patches:
        """Lays them out.

        Args:
            weight_C377: of the convolution, float32.
            bias_C: of the convolution, float32.
            places_FFC: position encoding, float32, row by row; a leading axis of 1 does not matter.
            window: w, which divides F.
            kind: of the products: a 16-bit type, or float32.
        """
        side, channels = places_FFC.shape[-2:]
        mean_3, std_3 = weight_C377.new_tensor(IMAGE_MEAN), weight_C377.new_tensor(IMAGE_STD)
        grey_3SS = ((128 / 255 - mean_3) / std_3)[:, None, None].expand(3, _STRIDE * side, _STRIDE * side)
        # In float64, which no GPU rounds to TF32.
        seen_CFF = F.conv2d(grey_3SS.double(), weight_C377.double(), bias_C.double(), _STRIDE, _SIDE // 2).float()
        places_FFC = places_FFC.view(side, side, channels) + seen_CFF.permute(1, 2, 0)
        cut = places_FFC.view(side // window, window, side // window, window, channels).transpose(1, 2)
        of_lines = (weight_C377 * (128 / 255) / std_3[:, None, None]).permute(2, 3, 1, 0)
        weight_KC = F.pad(of_lines, (0, 0, 0, 0, 1, 0, 0, 1)).reshape(-1, channels)
        return cls(weight_KC.to(kind).contiguous(), cut.reshape(-1, channels).contiguous(), side, window)


def patch_tokens(pixels_BSS3: Tensor, patches: Patches, out: Tensor | None = None) -> Tensor:
    """The first tokens of some pictures: the convolution of normalised pixels, with the position encoding added.

    Args:
        pixels_BSS3: uint8, contiguous, beginning at a multiple of 4 bytes.
        patches: laid out for pictures of this side.
        out: float32, (B F^2, C), contiguous; None: it is made.

    Returns:
        ``out``: tokens picture by picture, window by window.
    """
    weight_KC, (tokens, channels) = patches.weight_KC, patches.places_TC.shape
    number = len(pixels_BSS3)
    if out is None:
        out = torch.empty(number * tokens, channels, device=pixels_BSS3.device)
    # Products are of powers of two: 144 channels are 128 and 16.
    wide = max(_LEAST, 1 << (channels.bit_length() - 1))
    rest = max(_LEAST, triton.next_power_of_2(channels - wide)) if channels > wide else 0
    block = min(_TOKENS, tokens)
    launch(
        _patches, (triton.cdiv(number * tokens // block, _TILES),),
        pixels_BSS3.view(number, -1).view(torch.int32), weight_KC, patches.places_TC, out, number,
        patches.side, patches.window, channels, wide, rest, block, _TILES, _STAGES,
        "ieee" if weight_KC.dtype == torch.float32 else "tf32", num_warps=_WARPS,
    )  # fmt: skip
    return out


_WORDS = tl.constexpr(6)  # of a line
_LINES = tl.constexpr(_SIDE)
_PADDING = tl.constexpr(_SIDE // 2)
_CHUNK = tl.constexpr(16)  # words whose products are summed at once
_GREY = tl.constexpr(-0x7F7F7F80)  # four bytes of 128
_UNIT = tl.constexpr(1 / 128)


@triton.jit
def _seen(
    picture, line, column,
    FIRST: tl.constexpr, SIDE: tl.constexpr, TOKENS: tl.constexpr, KIND: tl.constexpr,
):  # fmt: skip
    """What tokens see in 16 of their 48 words, from FIRST on: (TOKENS, 64)."""
    word = FIRST + tl.arange(0, _CHUNK)
    down, right = word // _WORDS, word % _WORDS
    # Only above and to the left there are pixels that are not there: 4 tokens' pixels end where the picture ends.
    is_there = ((line[:, None] + down[None, :]) >= 0) & ((column[:, None] + right[None, :]) >= 0)
    is_there = is_there & (down < _LINES)[None, :]
    place = (line * (3 * SIDE) + column)[:, None] + (down * (3 * SIDE) + right)[None, :]
    words = tl.load(picture + place, mask=is_there, other=_GREY)
    even = tl.join(_byte(words, 0, KIND), _byte(words, 2, KIND))
    odd = tl.join(_byte(words, 1, KIND), _byte(words, 3, KIND))
    return tl.reshape(tl.join(even, odd), (TOKENS, 4 * _CHUNK))


@triton.jit
def _byte(words, NUMBER: tl.constexpr, KIND: tl.constexpr):
    """One of the four of each word, less 128."""
    return (((words >> (8 * NUMBER)) & 255).to(tl.float32) - 128).to(KIND)


@triton.jit
def _weights(weights, FIRST: tl.constexpr, START: tl.constexpr, WIDTH: tl.constexpr, C: tl.constexpr):
    """Of 16 words, for WIDTH channels from START on: (64, WIDTH)."""
    byte = 4 * FIRST + tl.arange(0, 4 * _CHUNK)
    channel = START + tl.arange(0, WIDTH)
    return tl.load(weights + byte[:, None] * C + channel[None, :], mask=(channel < C)[None, :], other=0.0)


@triton.jit
def _store(out, places, found, token, START: tl.constexpr, WIDTH: tl.constexpr, C: tl.constexpr):
    """Tokens with their places added."""
    channel = START + tl.arange(0, WIDTH)
    place = token[:, None] * C + channel[None, :]
    is_there = (channel < C)[None, :]
    tl.store(out + place, found * _UNIT + tl.load(places + place, mask=is_there, other=0.0), mask=is_there)


@triton.jit(do_not_specialize=["number"])
def _patches(
    pixels, weights, places, out, number,
    SIDE: tl.constexpr, WINDOW: tl.constexpr, C: tl.constexpr, WIDE: tl.constexpr, REST: tl.constexpr,
    TOKENS: tl.constexpr, TILES: tl.constexpr, STAGES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    AROUND: tl.constexpr = SIDE // WINDOW
    kind = weights.dtype.element_ty
    wide0 = _weights(weights, 0, 0, WIDE, C)
    wide1 = _weights(weights, _CHUNK, 0, WIDE, C)
    wide2 = _weights(weights, 2 * _CHUNK, 0, WIDE, C)
    if REST:
        rest0 = _weights(weights, 0, WIDE, REST, C)
        rest1 = _weights(weights, _CHUNK, WIDE, REST, C)
        rest2 = _weights(weights, 2 * _CHUNK, WIDE, REST, C)
    first = tl.program_id(0) * TILES
    for step in tl.range(0, tl.minimum(number * (SIDE * SIDE // TOKENS) - first, TILES), num_stages=STAGES):
        # A tile of all pictures, then the next tile: what it adds to them is read from far away once.
        image = ((first + step) % number).to(tl.int64)
        token = (first + step) // number * TOKENS + tl.arange(0, TOKENS)
        window, inside = token // (WINDOW * WINDOW), token % (WINDOW * WINDOW)
        line = (window // AROUND * WINDOW + inside // WINDOW) * 4 - _PADDING
        column = (window % AROUND * WINDOW + inside % WINDOW) * 3 - 3  # in words
        picture = pixels + image * (12 * SIDE * SIDE)
        target = out + image * (SIDE * SIDE * C)
        seen = _seen(picture, line, column, 0, SIDE, TOKENS, kind)
        found = tl.dot(seen, wide0, input_precision=PRECISION)
        if REST:
            other = tl.dot(seen, rest0, input_precision=PRECISION)
        seen = _seen(picture, line, column, _CHUNK, SIDE, TOKENS, kind)
        found = tl.dot(seen, wide1, found, input_precision=PRECISION)
        if REST:
            other = tl.dot(seen, rest1, other, input_precision=PRECISION)
        seen = _seen(picture, line, column, 2 * _CHUNK, SIDE, TOKENS, kind)
        found = tl.dot(seen, wide2, found, input_precision=PRECISION)
        if REST:
            other = tl.dot(seen, rest2, other, input_precision=PRECISION)
        _store(target, places, found, token, 0, WIDE, C)
        if REST:
            _store(target, places, other, token, WIDE, REST, C)
