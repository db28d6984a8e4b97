"""A two-way transformer for many masks of a few images: tokens of a mask and positions of its image look at each other.

What the masks of an image share is computed once for it: the first layer's projections of the image. The positions (E^2
of them) are passed over three times (``attention``); between the passes stand the tokens of a mask, in float32.

Letters: N masks of a pass, n of them that are there, B images, D channels, I = D / 2, M channels of the small mask,
T tokens, H heads, R = T * H.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from sam2.modeling.sam.transformer import Attention, TwoWayAttentionBlock, TwoWayTransformer
from torch import Tensor
from triton.runtime.errors import OutOfResources

from tokenizer_model.config import NUM_HEADS
from tokenizer_model.fast import attention
from tokenizer_model.fast.attention import Parts
from tokenizer_model.fast.launches import launch, only_compiling


@dataclass(frozen=True, slots=True)
class ImageTables:
    """What the masks of images share.

    Attributes:
        image: (B, E^2, D): the embedding with what the prompts of all masks add to it.
        keys: (B, E^2, I): of the first layer, tokens to positions; the next likewise.
        values: (B, E^2, I).
        queries: (B, E^2, I): of the first layer, positions to tokens.
    """

    image: Tensor
    keys: Tensor
    values: Tensor
    queries: Tensor


@dataclass(frozen=True, slots=True)
class Steps:
    """How a program goes over positions.

    Attributes:
        block: positions of a step.
        warps: of the program.
    """

    block: int
    warps: int


@dataclass(frozen=True, slots=True)
class Passes:
    """How the positions are passed over.

    Attributes:
        tokens: T, different ones.
        twice: number of the token that stands for two; -1: none.
        keeps: whether the positions are wanted after the last pass.
        parts: of a pass, each a program's.
        steps: of the three passes.
    """

    tokens: int
    twice: int
    keeps: bool
    parts: int
    steps: tuple[Steps, Steps, Steps]


class TwoWay:
    """A transformer's weights, put together for the passes.

    Args:
        transformer: of sam2, with two layers.
        positions_QD: float32, the positions' encoding, (E^2, D).
        small_DM: float32: what the small mask's channels add to the image, (D, M); None: there is no small mask.
        kind: of what stands at the positions: a 16-bit type, or float32 to compare with the modules.
        passes: how they are done, until ``fit`` finds that they cannot be.
    """

    def __init__(
        self,
        transformer: TwoWayTransformer,
        positions_QD: Tensor,
        small_DM: Tensor | None,
        kind: torch.dtype,
        passes: Passes,
    ) -> None:
        self._transformer, self._kind, self.passes = transformer, kind, passes
        self._layers = [cast("TwoWayAttentionBlock", layer) for layer in transformer.layers]
        if len(self._layers) != 2:
            raise ValueError(f"expected a transformer of two layers, got {len(self._layers)}")
        self._num_positions, self._channels = positions_QD.shape
        first, second, final = *self._layers, transformer.final_attn_token_to_image
        looks = (first.cross_attn_token_to_image, second.cross_attn_token_to_image, final)
        backs = (first.cross_attn_image_to_token, second.cross_attn_image_to_token)
        self._looks = [_Look(look, positions_QD, kind) for look in looks]
        self._backs = [_Back(back, positions_QD, kind) for back in backs]
        # What the first layer makes of the image: keys and values for the tokens, and the positions' own queries.
        projections = (looks[0].k_proj, looks[0].v_proj, backs[0].q_proj)
        self._shared = torch.cat([layer.weight for layer in projections]).T.to(kind).contiguous()
        plain_QI = cast("Tensor", looks[0].v_proj.bias).expand(len(positions_QD), -1)
        self._shared_bias = torch.cat([self._looks[0].position_keys, plain_QI, self._backs[0].position_queries], 1)
        self._small_channels = 0 if small_DM is None else small_DM.shape[1]
        self._of_small = [] if small_DM is None else [layer.weight @ small_DM for layer in projections]
        self._small_MD = None if small_DM is None else self._half(small_DM.T)

    def fit(self, choices: Sequence[tuple[Steps, Steps, Steps]], call: Callable[[], object]) -> bool:
        """Takes the first steps whose programs fit this GPU; False: none does.

        Args:
            choices: the best first.
            call: launches all kernels that are wanted; they are only compiled.
        """
        for steps in choices:
            self.passes = replace(self.passes, steps=steps)
            with contextlib.suppress(OutOfResources), only_compiling():
                call()
                return True
        return False

    def tables(self, image_BQD: Tensor) -> ImageTables:
        """Of images, float32, row by row, with what the prompts of all masks add; once for all their masks."""
        image = self._half(image_BQD)
        found = torch.matmul(image, self._shared).float() + self._shared_bias
        return ImageTables(image, *(self._half(part) for part in found.chunk(3, dim=2)))

    def __call__(
        self, tables: ImageTables, owners_n: Tensor, small_nQM: Tensor | None, prompt_NTD: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The tokens and the positions as the transformer leaves them.

        The tokens are computed for all N rows, whatever they hold, so that their products have one shape; the passes
        over positions for the n masks that there are.

        Args:
            tables: of the images.
            owners_n: int32, number of the image of each mask.
            small_nQM: (n, E^2, M): what stands at the positions of the small masks, row by row.
            prompt_NTD: float32, the tokens as they come in; only the first n rows count.

        Returns:
            float32, (N, T, D), and (n, E^2, D), which is one layer behind unless the passes keep it.
        """
        first, second = self._layers
        value_NTD = self._doubled(prompt_NTD)
        tokens_NTD = first.norm1(first.self_attn(q=prompt_NTD, k=value_NTD, v=value_NTD))
        seen_NTD = self._first_look(tables, owners_n, small_nQM, tokens_NTD + prompt_NTD)
        tokens_NTD = _after_look(first, tokens_NTD, seen_NTD)
        query_NTD = tokens_NTD + prompt_NTD
        offer = self._backs[0].offer(query_NTD, tokens_NTD)
        found_NTD = second.self_attn(q=query_NTD, k=self._doubled(query_NTD), v=self._doubled(tokens_NTD))
        tokens_NTD = second.norm1(tokens_NTD + found_NTD)
        positions_nQD, seen_NTD = self._second_look(tables, owners_n, small_nQM, offer, tokens_NTD + prompt_NTD)
        tokens_NTD = _after_look(second, tokens_NTD, seen_NTD)
        offer = self._backs[1].offer(tokens_NTD + prompt_NTD, tokens_NTD)
        seen_NTD = self._last_look(positions_nQD, offer, tokens_NTD + prompt_NTD)
        return self._transformer.norm_final_attn(tokens_NTD + seen_NTD), positions_nQD

    def _doubled(self, tokens_NTD: Tensor) -> Tensor:
        """All tokens: with the one that stands for two once more."""
        twice = self.passes.twice
        return tokens_NTD if twice < 0 else torch.cat([tokens_NTD, tokens_NTD[:, twice : twice + 1]], dim=1)

    def _first_look(self, tables: ImageTables, owners_n: Tensor, small_nQM: Tensor | None, query_NTD: Tensor) -> Tensor:
        look, channels = self._looks[0], tables.keys.shape[2]
        queries_NRI = look.queries(query_NTD)
        parts = self._parts(0, len(queries_NRI), channels + self._small_channels)
        launch(
            attention.first_look, self._grid(0, owners_n),
            owners_n, small_nQM, tables.keys, tables.values,
            self._half(queries_NRI), self._of_small_mask(queries_NRI, 0), parts.most, parts.total, parts.seen,
            **self._sizes(0, "POSITIONS", "PART", "HALF", "M", "R", "BLOCK", "PRECISION"),
        )  # fmt: skip
        seen_NRI, seen_NRM = parts.merged().split((channels, self._small_channels), dim=2)
        return look.out(seen_NRI + seen_NRM @ self._of_small[1].T if self._of_small else seen_NRI)

    def _second_look(
        self, tables: ImageTables, owners_n: Tensor, small_nQM: Tensor | None, offer: Offer, query_NTD: Tensor
    ) -> tuple[Tensor, Tensor]:
        look, norm = self._looks[1], self._layers[0].norm4
        queries_NRI = look.queries(query_NTD)
        parts = self._parts(1, len(queries_NRI), self._channels)
        shape = len(owners_n), self._num_positions, self._channels
        positions_nQD = torch.empty(shape, dtype=self._kind, device=query_NTD.device)
        launch(
            attention.second_look, self._grid(1, owners_n),
            owners_n, small_nQM, tables.image, tables.queries, self._small_MD,
            self._half(offer.keys), self._of_small_mask(offer.keys, 2), self._half(offer.values),
            self._backs[0].bias, norm.weight, norm.bias, norm.eps,
            self._half(look.to_positions(queries_NRI)), look.keys, self._half(queries_NRI),
            positions_nQD, parts.most, parts.total, parts.seen,
            **self._sizes(1, "POSITIONS", "PART", "D", "HALF", "M", "T", "H", "TWICE", "BLOCK", "PRECISION"),
        )  # fmt: skip
        return positions_nQD, look.out(look.values(parts.merged()))

    def _last_look(self, positions_nQD: Tensor, offer: Offer, query_NTD: Tensor) -> Tensor:
        look, back, norm = self._looks[2], self._backs[1], self._layers[1].norm4
        queries_NRI = look.queries(query_NTD)
        parts = self._parts(2, len(queries_NRI), self._channels)
        launch(
            attention.last_look, self._grid(2, positions_nQD),
            positions_nQD, self._half(back.to_positions(offer.keys)), back.queries, self._half(offer.keys),
            self._half(offer.values), back.bias, norm.weight, norm.bias, norm.eps,
            self._half(look.to_positions(queries_NRI)), look.keys, self._half(queries_NRI),
            parts.most, parts.total, parts.seen,
            **self._sizes(2, "POSITIONS", "PART", "D", "HALF", "T", "H", "TWICE", "KEEPS", "BLOCK", "PRECISION"),
        )  # fmt: skip
        return look.out(look.values(parts.merged()))

    def _of_small_mask(self, rows_NRI: Tensor, projection: int) -> Tensor | None:
        """What gives the part of a score that is the small mask's by a product with it, (N, R, M)."""
        return self._half(rows_NRI @ self._of_small[projection]) if self._of_small else None

    def _parts(self, number: int, masks: int, channels: int) -> Parts:
        rows = self.passes.tokens * NUM_HEADS
        return Parts.empty(masks, self._num_parts(number), rows, channels, self._shared.device)

    def _num_parts(self, number: int) -> int:
        passes = self.passes
        return passes.parts if self._num_positions >= passes.parts * passes.steps[number].block else 1

    def _grid(self, number: int, of_masks: Tensor) -> tuple[int, int]:
        return len(of_masks), self._num_parts(number)

    def _sizes(self, number: int, *names: str) -> dict[str, Any]:
        """What a kernel is compiled for: those of the names, and its launch."""
        passes, steps = self.passes, self.passes.steps[number]
        sizes: dict[str, Any] = {
            "POSITIONS": self._num_positions,
            "PART": self._num_positions // self._num_parts(number),
            "D": self._channels,
            "HALF": self._channels // 2,
            "M": self._small_channels,
            "T": passes.tokens,
            "H": NUM_HEADS,
            "R": passes.tokens * NUM_HEADS,
            "TWICE": passes.twice,
            "KEEPS": passes.keeps,
            "BLOCK": min(steps.block, self._num_positions),
            "PRECISION": "ieee" if self._kind == torch.float32 else "tf32",
        }
        return {name: sizes[name] for name in names} | {"num_warps": steps.warps, "num_stages": 1}

    def _half(self, value: Tensor) -> Tensor:
        return value.to(self._kind).contiguous()


class _Look:
    """Tokens look at positions: what of an attention is done at the tokens."""

    def __init__(self, look: Attention, positions_QD: Tensor, kind: torch.dtype) -> None:
        self._look = look
        # What the keys' projection makes of the positions' encoding, (E^2, I).
        self.position_keys = F.linear(positions_QD, look.k_proj.weight, look.k_proj.bias)
        self.keys = self.position_keys.to(kind)

    def queries(self, token_NTD: Tensor) -> Tensor:
        """Scaled queries, (N, R, I), zero but for the channels of the row's head."""
        return _by_head(_scaled(self._look.q_proj(token_NTD)))

    def to_positions(self, queries_NRI: Tensor) -> Tensor:
        """What gives a position's score by a product with it, (N, R, D)."""
        return queries_NRI @ self._look.k_proj.weight

    def values(self, seen_NRD: Tensor) -> Tensor:
        """Values of the mean of what was seen: (N, R, I)."""
        return self._look.v_proj(seen_NRD)

    def out(self, values_NRI: Tensor) -> Tensor:
        """The attention's output, (N, T, D): of each row the channels of its head count."""
        cut = values_NRI.unflatten(1, (-1, NUM_HEADS)).unflatten(3, (NUM_HEADS, -1))
        own = cut.diagonal(dim1=2, dim2=3).movedim(3, 2).flatten(2)
        return self._look.out_proj(own)


@dataclass(frozen=True, slots=True)
class Offer:
    """What positions find at the tokens.

    Attributes:
        keys: scaled, (N, R, I), zero but for the channels of the row's head.
        values: (N, R, D): of each token and head, behind the last projection, without its bias.
    """

    keys: Tensor
    values: Tensor


class _Back:
    """Positions look at tokens: what of an attention is done at the tokens."""

    def __init__(self, back: Attention, positions_QD: Tensor, kind: torch.dtype) -> None:
        self._back = back
        self.position_queries = F.linear(positions_QD, back.q_proj.weight, back.q_proj.bias)
        self.queries = self.position_queries.to(kind)
        self.bias = back.out_proj.bias

    def offer(self, key_NTD: Tensor, value_NTD: Tensor) -> Offer:
        """Of tokens as keys and as values."""
        value_NTHC = self._back.v_proj(value_NTD).unflatten(2, (NUM_HEADS, -1))
        out_HCD = self._back.out_proj.weight.T.unflatten(0, (NUM_HEADS, -1))
        values_NRD = torch.einsum("nthc,hcd->nthd", value_NTHC, out_HCD).flatten(1, 2)
        return Offer(_by_head(_scaled(self._back.k_proj(key_NTD))), values_NRD)

    def to_positions(self, keys_NRI: Tensor) -> Tensor:
        """What gives a position's score by a product with it, (N, R, D)."""
        return keys_NRI @ self._back.q_proj.weight


def _by_head(tokens_NTI: Tensor) -> Tensor:
    """Each token once for each head, zero but for its channels: (N, R, I)."""
    cut = tokens_NTI.unflatten(2, (NUM_HEADS, -1))
    eye_HH1 = torch.eye(NUM_HEADS, device=tokens_NTI.device).unsqueeze(2)
    return (cut.unsqueeze(2) * eye_HH1).flatten(3).flatten(1, 2)


def _scaled(tokens_NTI: Tensor) -> Tensor:
    return tokens_NTI / math.sqrt(tokens_NTI.shape[2] // NUM_HEADS)


def _after_look(layer: TwoWayAttentionBlock, tokens_NTD: Tensor, seen_NTD: Tensor) -> Tensor:
    tokens_NTD = layer.norm2(tokens_NTD + seen_NTD)
    return layer.norm3(tokens_NTD + layer.mlp(tokens_NTD))
