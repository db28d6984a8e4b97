"""SAMTok's mask encoder for many masks of a few images.

What the masks of an image share is computed once for it: the first layer's projections of the image. A mask adds to
them a product of its own M = 16 channels, since the last convolution of its prompt and the projections are linear. The
positions (E^2 of them) are passed over three times (``attention``); between the passes stand the four tokens of a mask,
in float32.

Letters: N masks of a pass, B images, D channels, I = D / 2, T = 4 tokens, H heads, R = T * H, P side of a prompt.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from sam2.modeling.sam.transformer import Attention, TwoWayAttentionBlock
from torch import Tensor

from tokenizer_model.config import NUM_HEADS
from tokenizer_model.fast import attention
from tokenizer_model.fast.attention import Parts
from tokenizer_model.fast.kernels import shrink_prompts
from tokenizer_model.network import StillSam2

TOKENS = 4  # the mask's own, two corners, and the padding point
_BLOCK = 32  # positions of a step of a pass
_PARTS = 2  # of a pass
_LAUNCH: dict[str, Any] = {"num_warps": 4, "num_stages": 1}  # two such programs share a multiprocessor without spills


@dataclass(frozen=True, slots=True)
class ImageTables:
    """What the masks of images share.

    Attributes:
        image: (B, E^2, D): the embedding with the bias of the mask's last convolution.
        keys: (B, E^2, I): of the first layer, tokens to positions; the next likewise.
        values: (B, E^2, I).
        queries: (B, E^2, I): of the first layer, positions to tokens.
    """

    image: Tensor
    keys: Tensor
    values: Tensor
    queries: Tensor


class FastMaskEncoder:
    """The mask encoder's weights, put together for the passes.

    Args:
        network: the weights, on the device that is to compute.
        kind: of what stands at the positions: a 16-bit type, or float32 to compare with the modules.
    """

    def __init__(self, network: StillSam2, kind: torch.dtype) -> None:
        self.network, self.kind = network, kind
        self.side = network.image_size
        prompts, transformer = network.sam_prompt_encoder, network.sam_mask_encoder.transformer
        layers = [cast("TwoWayAttentionBlock", layer) for layer in transformer.layers]
        if len(layers) != 2:
            raise ValueError(f"expected a transformer of two layers, got {len(layers)}")
        self.layers, self.transformer = layers, transformer
        self.precision = "ieee" if kind == torch.float32 else "tf32"
        self.positions_QD = prompts.get_dense_pe()[0].flatten(1).T.float().contiguous()
        shrink = cast("Any", prompts.mask_downscaling)
        self._first = (shrink[0].weight, shrink[0].bias, shrink[1].weight, shrink[1].bias)
        self._second = (shrink[3].weight, shrink[3].bias, shrink[4].weight, shrink[4].bias)
        self._norm_eps = float(shrink[1].eps)
        small_DM, self._small_bias_D = shrink[6].weight.flatten(1), shrink[6].bias
        self.small_channels = small_DM.shape[1]
        first, second, final = *layers, transformer.final_attn_token_to_image
        looks = (first.cross_attn_token_to_image, second.cross_attn_token_to_image, final)
        backs = (first.cross_attn_image_to_token, second.cross_attn_image_to_token)
        self._looks = [_Look(look, self.positions_QD, kind) for look in looks]
        self._backs = [_Back(back, self.positions_QD, kind) for back in backs]
        # What the first layer makes of the image: keys and values for the tokens, and the positions' own queries.
        projections = (looks[0].k_proj, looks[0].v_proj, backs[0].q_proj)
        self._shared = torch.cat([layer.weight for layer in projections]).T.to(kind).contiguous()
        plain_QI = cast("Tensor", looks[0].v_proj.bias).expand(len(self.positions_QD), -1)
        self._shared_bias = torch.cat([self._looks[0].position_keys, plain_QI, self._backs[0].position_queries], 1)
        self._of_small = [layer.weight @ small_DM for layer in projections]
        self._small_MD = self._half(small_DM.T)

    def tables(self, embedding_BQD: Tensor) -> ImageTables:
        """Of the embeddings of images, row by row; once for all their masks."""
        image = self._half(embedding_BQD.float() + self._small_bias_D)
        found = torch.matmul(image, self._shared).float() + self._shared_bias
        return ImageTables(image, *(self._half(part) for part in found.chunk(3, dim=2)))

    def __call__(self, tables: ImageTables, owners_N: Tensor, prompts_nPP: Tensor, boxes_N4: Tensor) -> Tensor:
        """Mask embeddings.

        The tokens are computed for all N rows, whatever they hold, so that their products have one shape; the passes
        over positions for the n masks that there are.

        Args:
            tables: of the images.
            owners_N: int32, number of the image of each mask; only the first n count, as of the boxes.
            prompts_nPP: float32, transposed: column by column.
            boxes_N4: float32, as ``StillSam2.mask_embeddings`` takes them.

        Returns:
            float32, (N, D); the first n rows are those of the masks.
        """
        masks = len(prompts_nPP)
        small_nQM = torch.empty(
            masks, len(self.positions_QD), self.small_channels, dtype=self.kind, device=prompts_nPP.device
        )
        shrink_prompts(prompts_nPP, self._first, self._second, self._norm_eps, small_nQM)
        prompt_NTD = self._tokens(boxes_N4)
        first, second = self.layers
        tokens_NTD = first.norm1(first.self_attn(q=prompt_NTD, k=prompt_NTD, v=prompt_NTD))
        seen_NTD = self._first_look(tables, owners_N, small_nQM, tokens_NTD + prompt_NTD)
        tokens_NTD = _after_look(first, tokens_NTD, seen_NTD)
        offer = self._backs[0].offer(tokens_NTD + prompt_NTD, tokens_NTD)
        query_NTD = tokens_NTD + prompt_NTD
        tokens_NTD = second.norm1(tokens_NTD + second.self_attn(q=query_NTD, k=query_NTD, v=tokens_NTD))
        positions_nQD, seen_NTD = self._second_look(tables, owners_N, small_nQM, offer, tokens_NTD + prompt_NTD)
        tokens_NTD = _after_look(second, tokens_NTD, seen_NTD)
        offer = self._backs[1].offer(tokens_NTD + prompt_NTD, tokens_NTD)
        seen_NTD = self._last_look(positions_nQD, offer, tokens_NTD + prompt_NTD)
        return self.transformer.norm_final_attn(tokens_NTD + seen_NTD)[:, 0]

    def _tokens(self, boxes_N4: Tensor) -> Tensor:
        encoder = self.network.sam_prompt_encoder
        corners_N22 = boxes_N4.reshape(-1, 2, 2) * self.side
        labels_N2 = torch.arange(2, 4, dtype=torch.int32, device=boxes_N4.device).expand(len(boxes_N4), 2)
        sparse_N3D, _ = encoder(points=(corners_N22, labels_N2), boxes=None, masks=None)
        own_N1D = self.network.sam_mask_encoder.mask_tokens.weight.expand(len(boxes_N4), 1, -1)
        return torch.cat([own_N1D, sparse_N3D], dim=1)

    def _first_look(self, tables: ImageTables, owners_N: Tensor, small_nQM: Tensor, query_NTD: Tensor) -> Tensor:
        look, channels = self._looks[0], tables.keys.shape[2]
        queries_NRI = look.queries(query_NTD)
        parts = self._parts(queries_NRI, channels + self.small_channels)
        attention.first_look[self._grid(small_nQM)](
            owners_N, small_nQM, tables.keys, tables.values,
            self._half(queries_NRI), self._half(queries_NRI @ self._of_small[0]), parts.most, parts.total, parts.seen,
            **self._sizes("POSITIONS", "PART", "HALF", "M", "R", "BLOCK", "PRECISION"), **_LAUNCH,
        )  # fmt: skip
        seen_NRI, seen_NRM = parts.merged().split((channels, self.small_channels), dim=2)
        return look.out(seen_NRI + seen_NRM @ self._of_small[1].T)

    def _second_look(
        self, tables: ImageTables, owners_N: Tensor, small_nQM: Tensor, offer: Offer, query_NTD: Tensor
    ) -> tuple[Tensor, Tensor]:
        look, norm = self._looks[1], self.layers[0].norm4
        queries_NRI = look.queries(query_NTD)
        parts = self._parts(queries_NRI, query_NTD.shape[2])
        positions_nQD = torch.empty(*small_nQM.shape[:2], query_NTD.shape[2], dtype=self.kind, device=query_NTD.device)
        attention.second_look[self._grid(small_nQM)](
            owners_N, small_nQM, tables.image, tables.queries, self._small_MD,
            self._half(offer.keys), self._half(offer.keys @ self._of_small[2]), self._half(offer.values),
            self._backs[0].bias, norm.weight, norm.bias, norm.eps,
            self._half(look.to_positions(queries_NRI)), look.keys, self._half(queries_NRI),
            positions_nQD, parts.most, parts.total, parts.seen,
            **self._sizes("POSITIONS", "PART", "D", "HALF", "M", "T", "H", "BLOCK", "PRECISION"),
            **_LAUNCH,
        )  # fmt: skip
        return positions_nQD, look.out(look.values(parts.merged()))

    def _last_look(self, positions_nQD: Tensor, offer: Offer, query_NTD: Tensor) -> Tensor:
        look, back, norm = self._looks[2], self._backs[1], self.layers[1].norm4
        queries_NRI = look.queries(query_NTD)
        parts = self._parts(queries_NRI, query_NTD.shape[2])
        attention.last_look[self._grid(positions_nQD)](
            positions_nQD, self._half(back.to_positions(offer.keys)), back.queries, self._half(offer.keys),
            self._half(offer.values), back.bias, norm.weight, norm.bias, norm.eps,
            self._half(look.to_positions(queries_NRI)), look.keys, self._half(queries_NRI),
            parts.most, parts.total, parts.seen,
            **self._sizes("POSITIONS", "PART", "D", "HALF", "T", "H", "BLOCK", "PRECISION"), **_LAUNCH,
        )  # fmt: skip
        return look.out(look.values(parts.merged()))

    def _parts(self, rows_NRX: Tensor, channels: int) -> Parts:
        masks, rows, _ = rows_NRX.shape
        return Parts.empty(masks, self._num_parts, rows, channels, rows_NRX.device)

    @property
    def _num_parts(self) -> int:
        return _PARTS if len(self.positions_QD) >= _PARTS * _BLOCK else 1

    def _grid(self, of_masks: Tensor) -> tuple[int, int]:
        return len(of_masks), self._num_parts

    def _sizes(self, *names: str) -> dict[str, Any]:
        positions, channels = self.positions_QD.shape
        sizes: dict[str, Any] = {
            "POSITIONS": positions,
            "PART": positions // self._num_parts,
            "D": channels,
            "HALF": channels // 2,
            "M": self.small_channels,
            "T": TOKENS,
            "H": NUM_HEADS,
            "R": TOKENS * NUM_HEADS,
            "BLOCK": min(_BLOCK, positions),
            "PRECISION": self.precision,
        }
        return {name: sizes[name] for name in names}

    def _half(self, value: Tensor) -> Tensor:
        return value.to(self.kind).contiguous()


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
        cut = values_NRI.view(-1, TOKENS, NUM_HEADS, NUM_HEADS, values_NRI.shape[2] // NUM_HEADS)
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
