"""The image backbone, a Hiera trunk with its neck, for a GPU.

Tokens lie in the order of the attention windows from one end of a stage to the other: a window's tokens follow each
other, so nothing is cut into windows and put together again in each block; attention over the whole image does not care
for the order. Products are in 16 bits, the sums of the residual stream and the norms in float32.

Letters: B images, S side of the network's image, F side of a stage in tokens, w side of its windows, C channels,
T = B * F^2 tokens, E = S / 16, D channels of the neck.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from sam2.modeling.backbones.hieradet import Hiera, MultiScaleBlock
from torch import Tensor, nn

from tokenizer_model.fast.kernels import add_norm
from tokenizer_model.fast.patches import Patches, patch_tokens
from tokenizer_model.fast.pooling import pooled
from tokenizer_model.fast.products import WHOLE, is_wide, linear
from tokenizer_model.fast.windows import MAX_KEYS, window_attention
from tokenizer_model.network import StillSam2


@dataclass(frozen=True, slots=True)
class Tokens:
    """What stands at the tokens of a stage.

    Attributes:
        rows: (T, C), of any floating type, window by window.
        side: F.
        window: w.
    """

    rows: Tensor
    side: int
    window: int

    def in_rows(self) -> Tensor:
        """(B, F, F, C), row by row of the image."""
        around = self.side // self.window
        cut = self.rows.view(-1, around, around, self.window, self.window, self.rows.shape[1])
        return cut.transpose(2, 3).reshape(-1, self.side, self.side, self.rows.shape[1])

    def windowed(self, window: int) -> Tokens:
        """The same in windows of another side."""
        return self if window == self.window else into_windows(self.in_rows(), window)


def into_windows(image_BFFC: Tensor, window: int) -> Tokens:
    """Tokens of an image, row by row, in windows."""
    side, channels = image_BFFC.shape[2:]
    cut = image_BFFC.view(-1, side // window, window, side // window, window, channels)
    return Tokens(cut.transpose(2, 3).reshape(-1, channels), side, window)


class FastTrunk:
    """Trunk and neck.

    Args:
        network: the weights, on the device that is to compute.
        kind: of the products: a 16-bit type, or float32 to compare with the modules.
    """

    def __init__(self, network: StillSam2, kind: torch.dtype) -> None:
        encoder = cast("Any", network.image_encoder)
        trunk: Hiera = encoder.trunk
        self.network, self.kind = network, kind
        patches = cast("nn.Conv2d", trunk.patch_embed.proj)
        side = network.image_size // patches.stride[0]
        windows = windows_of(trunk)
        places = cast("Any", trunk)._get_pos_embed((side, side))
        self._patches = Patches.of(patches.weight, cast("Tensor", patches.bias), places, windows[0], kind)
        self._stage_ends = set(trunk.stage_ends)
        self._blocks, came = list[_Block](), windows[0]
        for module, window in zip(trunk.blocks, windows, strict=True):
            block = cast("MultiScaleBlock", module)
            self._blocks.append(_Block(block, kind, side, came, window))
            stride = block.q_stride[0] if block.q_stride else 1
            side, came = side // stride, window // stride
        self._laterals = [_linear(convolution.conv, kind) for convolution in reversed(list(encoder.neck.convs))]

    def __call__(self, pixels_BSS3: Tensor) -> list[Tokens]:
        """What comes out of each stage, for uint8 pixels."""
        patches = self._patches
        stream = _Stream((patch_tokens(pixels_BSS3, patches),), patches.side, patches.window)
        stages: list[Tokens] = []
        for number, block in enumerate(self._blocks):
            stream, entered = block(stream)
            if number - 1 in self._stage_ends:
                stages.append(entered)
        return [*stages, stream.total()]

    def embedding(self, stages: list[Tokens]) -> Tensor:
        """The image embedding with the no-memory embedding added: float32, (B, E^2, D), row by row."""
        last, above = stages[2], stages[3]
        top = above.windowed(last.window // 2)  # the same windows of the image, at half the resolution
        sums = self._lateral(3, top).float().view(-1, top.window, 1, top.window, 1, self._laterals[3][1].shape[0])
        found = self._lateral(2, last).float().view(-1, top.window, 2, top.window, 2, sums.shape[-1]) + sums
        rows = Tokens(found.view(len(last.rows), -1), last.side, last.window).in_rows()
        return rows.flatten(1, 2) + self.network.no_mem_embed.reshape(1, 1, -1)

    def fine(self, stages: list[Tokens]) -> Tensor:
        """The neck's finest level, (B, D, 4 E, 4 E)."""
        return self._level(0, stages)

    def middle(self, stages: list[Tokens]) -> Tensor:
        """The neck's middle level, (B, D, 2 E, 2 E)."""
        return self._level(1, stages)

    def _level(self, level: int, stages: list[Tokens]) -> Tensor:
        tokens = stages[level]
        found = Tokens(self._lateral(level, tokens), tokens.side, tokens.window).in_rows()
        return found.permute(0, 3, 1, 2)

    def _lateral(self, level: int, tokens: Tokens) -> Tensor:
        weight, bias = self._laterals[level]
        return torch.addmm(bias, tokens.rows.to(self.kind), weight)


def windows_of(trunk: Hiera) -> list[int]:
    """The window of each block's tokens as they come in; blocks that see the whole image take what there is."""
    windows: list[int] = []
    for number, block in enumerate(trunk.blocks):
        own = int(cast("Any", block).window_size)
        after_pooling = number > 0 and cast("Any", trunk.blocks[number - 1]).q_stride is not None
        if own:
            windows.append(own)
        elif after_pooling:
            windows.append(windows[-1] // 2)
        else:
            windows.append(windows[-1])
    return windows


@dataclass(frozen=True, slots=True)
class _Stream:
    """The residual stream between two blocks. What a block adds to it is added up where it is read next, by a norm, so
    that float32 sums are written once a block.

    Attributes:
        terms: one to three, (T, C): the stream is their sum, in this order and in float32.
        side: F.
        window: w, of the rows' order.
    """

    terms: tuple[Tensor, ...]
    side: int
    window: int

    def total(self) -> Tokens:
        """The sum."""
        first, *others = self.terms
        rows = first.float()
        for term in others:
            rows = rows + term
        return Tokens(rows, self.side, self.window)


class _Block:
    """One block: attention and MLP, each on the norm of the residual stream and added to it.

    Args:
        block: the module.
        kind: of the products.
        side: F of what comes in.
        came: w of what comes in.
        window: w of the block's own order.
    """

    def __init__(self, block: MultiScaleBlock, kind: torch.dtype, side: int, came: int, window: int) -> None:
        self._kind, self._precision = kind, "ieee" if kind == torch.float32 else "tf32"
        self._is_global = block.window_size == 0
        self._stride = block.q_stride[0] if block.q_stride else 1
        self._heads = block.attn.num_heads
        self._norm1, self._norm2 = cast("nn.LayerNorm", block.norm1), cast("nn.LayerNorm", block.norm2)
        self._qkv, self._out = _linear(block.attn.qkv, kind), _linear(block.attn.proj, kind)
        self._wider = _linear(block.proj, kind) if block.dim != block.dim_out else None
        self._hidden, self._back = (_linear(cast("nn.Linear", layer), kind) for layer in block.mlp.layers)
        self._order = None if came == window else _order(side, came, window).to(self._out[0].device)
        self._window = window

    def __call__(self, stream: _Stream) -> tuple[_Stream, Tokens]:
        """The stream behind the block, and before it, added up, in the block's order. The latter is written over by the
        next block, unless this one pools or changes its width."""
        normed, entered = self._entered(stream)
        found = torch.addmm(self._out[1], self._attention(normed, entered), self._out[0])
        terms, side, window = (entered.rows, found), entered.side // self._stride, self._window // self._stride
        if self._wider is not None:
            wide = torch.addmm(self._wider[1], normed, self._wider[0])
            terms = (pooled(wide, self._window, self._kind) if self._stride > 1 else wide, found)
        normed = torch.empty_like(found)
        add_norm(terms, self._norm2, normed)
        hidden = linear(normed, self._hidden[0].T, self._hidden[1], is_gelu=True)
        return _Stream((*terms, torch.addmm(self._back[1], hidden, self._back[0])), side, window), entered

    def _entered(self, stream: _Stream) -> tuple[Tensor, Tokens]:
        """The first norm, and the stream added up."""
        first = stream.terms[0]
        normed = torch.empty_like(first, dtype=self._kind)
        is_kept = len(stream.terms) > 1 or self._order is not None
        is_inside = first.dtype == torch.float32 and self._order is None
        total = first if is_inside else torch.empty_like(first, dtype=torch.float32)
        add_norm(stream.terms, self._norm1, normed, total_TC=total if is_kept else None, order=self._order)
        return normed, Tokens(total, stream.side, self._window)

    def _attention(self, normed: Tensor, tokens: Tokens) -> Tensor:
        length = tokens.side**2 if self._is_global else tokens.window**2
        weight, bias = self._qkv
        all_three = torch.addmm(bias, normed, weight) if is_wide(len(weight)) else linear(normed, weight.T, bias)
        queries = all_three[:, : self._out[0].shape[0]]
        if self._stride > 1:
            queries = pooled(queries, tokens.window, self._kind)
        if length <= MAX_KEYS:
            return window_attention(queries, all_three, length, self._heads, self._precision)
        _, keys, values = all_three.view(-1, length, 3, self._heads, self._head_size).unbind(2)
        queries = queries.unflatten(1, (self._heads, self._head_size)).unflatten(0, (len(keys), -1))
        found = F.scaled_dot_product_attention(queries.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2))
        return found.transpose(1, 2).reshape(-1, self._heads * self._head_size)

    @property
    def _head_size(self) -> int:
        return self._out[0].shape[0] // self._heads


def _linear(layer: nn.Linear | nn.Conv2d, kind: torch.dtype) -> tuple[Tensor, Tensor]:
    """Weight, (in, out), as products take it, and bias; of a convolution of one pixel too."""
    weight = layer.weight.flatten(1)
    return weight.to(kind).contiguous().T, cast("Tensor", layer.bias).to(kind)


def _order(side: int, came: int, window: int) -> Tensor:
    """Which row of an image in windows of one side comes where in windows of another: int32, (F^2,)."""
    places = torch.arange(side**2, dtype=torch.int32)[:, None]
    return Tokens(places, side, came).windowed(window).rows[:, 0]


def unsupported(network: StillSam2) -> Iterator[str]:
    """Why this trunk cannot be computed here; nothing where it can."""
    trunk: Hiera = cast("Any", network.image_encoder).trunk
    side = network.image_size // 4
    for number, (module, window) in enumerate(zip(trunk.blocks, windows_of(trunk), strict=True)):
        block = cast("Any", module)
        if number - 1 in trunk.stage_ends and block.dim == block.dim_out:
            yield "a stage is no wider than the one before it, whose sums it would write over"
        if side % window:
            yield f"windows of {window} do not fit {side} tokens"
        if block.dim % WHOLE:
            yield f"its {block.dim} channels of a stage are no multiple of {WHOLE}"
        side //= 2 if block.q_stride else 1
