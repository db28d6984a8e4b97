"""Weights of a network that begins from nothing: torch's own initial ones, changed where they keep it from beginning.

With torch's own, attention is spread evenly over the image and the learned tokens are louder than what they read, so
z is nearly the same for every mask. A decoder that is told nothing answers with the empty mask, and from there the
gradient that reaches z is too small to tell masks apart: the loss stays where it is. (Seen with 64 px and with 512 px
networks; each of the three changes shortened the plateau, all of them together the most.) Weights of SAM 2.1 need
none of this.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from tokenizer_model.tokenizer import MaskTokenizer

_SHARPER = 2.0  # factor of the projections of queries and keys: attention tells places apart
_LOUDER = 4.0  # factor of the last layer that embeds a mask prompt: the mask is heard beside the image under it
_QUIETER = 0.02  # factor of the mask encoder's learned token: z depends on what the token reads


@torch.no_grad()
def prepare_fresh(model: MaskTokenizer) -> None:
    """Changes the initial weights of a network for training from nothing."""
    network = model.network
    for module in (network.sam_mask_encoder, network.sam_mask_decoder.transformer):
        for layer in _projections(module):
            layer.weight.mul_(_SHARPER)
    prompts: Any = network.sam_prompt_encoder.mask_downscaling
    prompts[-1].weight.mul_(_LOUDER)
    network.sam_mask_encoder.mask_tokens.weight.mul_(_QUIETER)
    _choose_first_mask(network.sam_mask_decoder)


def _projections(module: nn.Module) -> Iterator[nn.Linear]:
    """The layers that make queries and keys of attention."""
    for name, layer in module.named_modules():
        if name.endswith(("q_proj", "k_proj")) and isinstance(layer, nn.Linear):
            yield layer


def _choose_first_mask(decoder: Any) -> None:
    """Makes the IoU head name the first of the three masks, always.

    The head is never trained. A random one would send each mask to another of three decoders as it drifts.
    """
    last = decoder.iou_prediction_head.layers[-1]
    last.weight.zero_()
    last.bias.zero_()
    last.bias[1] = 1.0  # number 0 is the mask of SAM's single-mask mode, which is left out
