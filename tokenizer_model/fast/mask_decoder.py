"""SAM's mask decoder for many embeddings of a few images, of its three masks the one with the highest predicted IoU.

The padding point goes in as the prompt's point does, "not a point", and what is equal going in stays equal: so one
token is computed for both (``two_way``), and counts twice. Which mask it will be is known from the tokens, so only that
one is made of the positions, after three passes over them in a fourth (``decoding``).

Letters: N embeddings of a pass, n of them that are there, B images, E side of the positions, D channels, Q = D / 4,
O = D / 8, T = 8 tokens, P = 4 * E.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from tokenizer_model.fast import decoding
from tokenizer_model.fast.launches import launch
from tokenizer_model.fast.trunk import Tokens
from tokenizer_model.fast.two_way import ImageTables, Passes, Steps, TwoWay
from tokenizer_model.network import StillSam2

# Object score, IoU, four masks, "not a point", the embedding.
_IOU, _FIRST_MASK, _NOT_A_POINT, TOKENS = 1, 3, 6, 8
_NUM_MASKS = 3
_PASSES = Passes(
    tokens=TOKENS, twice=_NOT_A_POINT, keeps=True, parts=2, steps=(Steps(64, 4), Steps(128, 8), Steps(128, 8))
)
# For GPUs whose multiprocessors have less memory.
_SMALLER = (Steps(32, 4), Steps(32, 8), Steps(32, 8))
_UPSCALING, _UPSCALING_PARTS = Steps(64, 4), 4  # two such programs share a multiprocessor


@dataclass(frozen=True, slots=True)
class Levels:
    """What the decoder makes of images, for all their masks.

    Attributes:
        tables: for the transformer.
        middle: (B, 4, E^2, Q): of the neck's middle level, what is added to the first upscaling, with its bias; by
            corner of a position, as (row, column) = (0, 0), (0, 1), (1, 0), (1, 1).
        fine: (B, 4, E^2, 4 * O): the same of the finest level and the second upscaling; the four pixels of a corner
            follow each other.
    """

    tables: ImageTables
    middle: Tensor
    fine: Tensor

    def take(self, other: Levels) -> None:
        """Copies another's values to where these lie."""
        tables, others = self.tables, other.tables
        for mine, theirs in (
            (tables.image, others.image), (tables.keys, others.keys), (tables.values, others.values),
            (tables.queries, others.queries), (self.middle, other.middle), (self.fine, other.fine),
        ):  # fmt: skip
            mine.copy_(theirs)


class FastMaskDecoder:
    """The mask decoder's weights, put together for the passes.

    Args:
        network: the weights, on the device that is to compute.
        kind: of what stands at the positions: a 16-bit type, or float32 to compare with the modules.
    """

    def __init__(self, network: StillSam2, kind: torch.dtype) -> None:
        decoder, prompts = cast("Any", network.sam_mask_decoder), network.sam_prompt_encoder
        self.kind, self._decoder = kind, decoder
        self._side = prompts.image_embedding_size[0]
        positions_QD = prompts.get_dense_pe()[0].flatten(1).T.float().contiguous()
        self._transformer = TwoWay(decoder.transformer, positions_QD, None, kind, _PASSES)
        self._no_mask_D = prompts.no_mask_embed.weight[0]
        own = (decoder.obj_score_token, decoder.iou_token, decoder.mask_tokens, prompts.not_a_point_embed)
        self._own_SD = torch.cat([embedding.weight for embedding in own])
        first, self._norm, _, second, _ = decoder.output_upscaling
        # Of a transposed convolution, (in, out, row, column).
        self._corner_weights = first.weight.permute(2, 3, 0, 1).flatten(0, 1).to(kind).contiguous()
        self._pixel_weights = second.weight.permute(0, 2, 3, 1).flatten(1).to(kind).contiguous()
        laterals = [each.conv for each in reversed(list(cast("Any", network.image_encoder).neck.convs))]
        self._fine = _folded(laterals[0], decoder.conv_s0, second.bias, kind)
        self._middle = _folded(laterals[1], decoder.conv_s1, first.bias, kind)

    def levels(self, stages: list[Tokens], embedding_BQD: Tensor) -> Levels:
        """Of images, once for all their masks.

        Args:
            stages: what comes out of the trunk's stages.
            embedding_BQD: float32, row by row, with the no-memory embedding added.
        """
        tables = self._transformer.tables(embedding_BQD.float() + self._no_mask_D)
        fine, middle = self._narrow(stages[0], self._fine), self._narrow(stages[1], self._middle)
        side = self._side
        middle = middle.unflatten(2, (side, 2)).unflatten(1, (side, 2)).permute(0, 2, 4, 1, 3, 5)
        fine = fine.unflatten(2, (side, 2, 2)).unflatten(1, (side, 2, 2)).permute(0, 2, 5, 1, 4, 3, 6, 7)
        shape = len(embedding_BQD), 4, side * side, -1
        return Levels(tables, middle.reshape(shape), fine.reshape(shape))

    def __call__(self, levels: Levels, owners_n: Tensor, embeddings_ND: Tensor) -> Tensor:
        """The logits of embeddings.

        The tokens are computed for all N rows, whatever they hold.

        Args:
            levels: of the images.
            owners_n: int32, number of the image of each embedding.
            embeddings_ND: float32, decoded codes; only the first n rows count.

        Returns:
            float32, (n, P, P).
        """
        own_NSD = self._own_SD.expand(len(embeddings_ND), -1, -1)
        prompt_NTD = torch.cat([own_NSD, embeddings_ND.unsqueeze(1)], dim=1)
        tokens_NTD, positions_nQD = self._transformer(levels.tables, owners_n, None, prompt_NTD)
        vectors_NO, side, norm = self._vectors(tokens_NTD), self._side, self._norm
        logits_nPP = torch.empty(len(owners_n), 4 * side, 4 * side, device=embeddings_ND.device)
        block = min(_UPSCALING.block, side * side)
        parts = min(_UPSCALING_PARTS, side * side // block)
        launch(
            decoding.upscale, (4, parts, len(owners_n)), owners_n, positions_nQD, levels.middle, levels.fine,
            self._corner_weights, norm.weight, norm.bias, norm.eps, self._pixel_weights, vectors_NO, logits_nPP,
            POSITIONS=side * side, PART=side * side // parts, SIDE=side, D=positions_nQD.shape[2], BLOCK=block,
            PRECISION="ieee" if self.kind == torch.float32 else "tf32",
            num_warps=_UPSCALING.warps, num_stages=1,
        )  # fmt: skip
        return logits_nPP

    def fit(self, levels: Levels, owners_n: Tensor, embeddings_ND: Tensor) -> bool:
        """Compiles the kernels, with steps that fit this GPU; False: none do. Arguments as of a call."""
        return self._transformer.fit((_PASSES.steps, _SMALLER), lambda: self(levels, owners_n, embeddings_ND))

    def _vectors(self, tokens_NTD: Tensor) -> Tensor:
        """What the pixels of the best mask are multiplied with: float32, (N, O)."""
        decoder = self._decoder
        ious_NM = decoder.iou_prediction_head(tokens_NTD[:, _IOU])[:, -_NUM_MASKS:]
        networks = decoder.output_hypernetworks_mlps[-_NUM_MASKS:]
        vectors_NMO = torch.stack(
            [network(tokens_NTD[:, _FIRST_MASK + mask]) for mask, network in enumerate(networks)], dim=1
        )
        best_N11 = ious_NM.argmax(dim=1)[:, None, None]
        return vectors_NMO.gather(1, best_N11.expand(-1, 1, vectors_NMO.shape[2])).squeeze(1)

    def _narrow(self, tokens: Tokens, layer: tuple[Tensor, Tensor]) -> Tensor:
        weight, bias = layer
        return Tokens(torch.addmm(bias, tokens.rows.to(self.kind), weight), tokens.side, tokens.window).in_rows()


def _folded(lateral: nn.Conv2d, narrow: nn.Conv2d, added: Tensor, kind: torch.dtype) -> tuple[Tensor, Tensor]:
    """Weight, (in, out), and bias of two convolutions of one pixel after each other, and of what is added to them."""
    narrow_OD = narrow.weight.flatten(1)
    bias = narrow_OD @ cast("Tensor", lateral.bias) + cast("Tensor", narrow.bias) + added
    return (narrow_OD @ lateral.weight.flatten(1)).to(kind).contiguous().T, bias.to(kind)
