"""SAMTok's mask encoder for many masks of a few images.

A mask adds to what its image gives a product of its own M = 16 channels, since the last convolution of its prompt and
the transformer's projections (``two_way``) are linear.

Letters: N masks of a pass, B images, D channels, T = 4 tokens, P side of a prompt, E = P / 4.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from tokenizer_model.fast.kernels import shrink_prompts
from tokenizer_model.fast.two_way import ImageTables, Passes, Steps, TwoWay
from tokenizer_model.network import StillSam2

TOKENS = 4  # the mask's own, two corners, and the padding point
_PASSES = Passes(tokens=TOKENS, twice=-1, keeps=False, parts=2, steps=(Steps(128, 4), Steps(128, 8), Steps(32, 4)))
# For GPUs whose multiprocessors have less memory.
_SMALLER = (Steps(32, 4), Steps(32, 4), Steps(32, 4))


class FastMaskEncoder:
    """The mask encoder's weights, put together for the passes.

    Args:
        network: the weights, on the device that is to compute.
        kind: of what stands at the positions: a 16-bit type, or float32 to compare with the modules.
    """

    def __init__(self, network: StillSam2, kind: torch.dtype) -> None:
        self.network, self.kind = network, kind
        self.side = network.image_size
        prompts = network.sam_prompt_encoder
        positions_QD = prompts.get_dense_pe()[0].flatten(1).T.float().contiguous()
        shrink = cast("Any", prompts.mask_downscaling)
        self._first = (shrink[0].weight, shrink[0].bias, shrink[1].weight, shrink[1].bias)
        self._second = (shrink[3].weight, shrink[3].bias, shrink[4].weight, shrink[4].bias)
        self._norm_eps = float(shrink[1].eps)
        small_DM, self._small_bias_D = shrink[6].weight.flatten(1), shrink[6].bias
        self._small_shape = len(positions_QD), small_DM.shape[1]
        self._transformer = TwoWay(network.sam_mask_encoder.transformer, positions_QD, small_DM, kind, _PASSES)

    def fit(self, call: Callable[[], object]) -> bool:
        """Takes steps whose programs fit this GPU; ``call`` launches them. False: there are none."""
        return self._transformer.fit((_PASSES.steps, _SMALLER), call)

    def tables(self, embedding_BQD: Tensor) -> ImageTables:
        """Of the embeddings of images, row by row; once for all their masks."""
        return self._transformer.tables(embedding_BQD.float() + self._small_bias_D)

    def __call__(self, tables: ImageTables, owners_N: Tensor, prompts_nPP: Tensor, boxes_N4: Tensor) -> Tensor:
        """Mask embeddings.

        Args:
            tables: of the images.
            owners_N: int32, number of the image of each mask; only the first n count, as of the boxes.
            prompts_nPP: float32, transposed: column by column.
            boxes_N4: float32, as ``StillSam2.mask_embeddings`` takes them.

        Returns:
            float32, (N, D); the first n rows are those of the masks.
        """
        masks = len(prompts_nPP)
        small_nQM = torch.empty(masks, *self._small_shape, dtype=self.kind, device=prompts_nPP.device)
        shrink_prompts(prompts_nPP, self._first, self._second, self._norm_eps, small_nQM)
        tokens_NTD, _ = self._transformer(tables, owners_N[:masks], small_nQM, self._tokens(boxes_N4))
        return tokens_NTD[:, 0]

    def _tokens(self, boxes_N4: Tensor) -> Tensor:
        encoder = self.network.sam_prompt_encoder
        corners_N22 = boxes_N4.reshape(-1, 2, 2) * self.side
        labels_N2 = torch.arange(2, 4, dtype=torch.int32, device=boxes_N4.device).expand(len(boxes_N4), 2)
        sparse_N3D, _ = encoder(points=(corners_N22, labels_N2), boxes=None, masks=None)
        own_N1D = self.network.sam_mask_encoder.mask_tokens.weight.expand(len(boxes_N4), 1, -1)
        return torch.cat([own_N1D, sparse_N3D], dim=1)
