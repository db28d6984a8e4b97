"""One pass of a training step: images and masks in, losses and mask embeddings out.

Letters: B images, N masks, M most masks of an image, D channels, L levels, P side of the logits, X points that are
drawn of a mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenizer_model.network import normalised
from tokenizer_model.tokenizer import MaskTokenizer
from tokenizer_model.training.examples import Examples, coloured
from tokenizer_model.training.losses import mask_losses
from tokenizer_model.training.recipe import Losses, Part, Recipe

_PARTS: dict[Part, tuple[str, ...]] = {
    "image_encoder": ("image_encoder.", "no_mem_embed"),
    "prompt_encoder": ("sam_prompt_encoder.",),
    "mask_encoder": ("sam_mask_encoder.",),
    "mask_decoder": ("sam_mask_decoder.",),
}
_MASKS_AT_ONCE = 64  # on a GPU, masks come in multiples of this
# No loss reaches them. The IoU head still chooses which of the decoder's three masks counts.
_NEVER_TRAINED = ("sam_mask_decoder.iou_prediction_head.", "sam_mask_decoder.pred_obj_score_head.")


class Terms(NamedTuple):
    """What a pass gives. A tuple, which data-parallel wrappers look through.

    Attributes:
        loss: scalar with a gradient: the sum over masks of the weighted terms. Divide by the step's number of masks.
        bce: scalar: the sum over masks of the cross-entropy, not weighted.
        dice: scalar: likewise.
        commitment: scalar: likewise.
        z_ND: without gradient: mask embeddings before quantisation.
    """

    loss: Tensor
    bce: Tensor
    dice: Tensor
    commitment: Tensor
    z_ND: Tensor


class TrainingPass(nn.Module):
    """The forward pass of training, as one module, so that data-parallel wrappers see every parameter used.

    Args:
        model: its parts are set to learn or not, as the recipe says.
        recipe: the loss, and what learns.
    """

    def __init__(self, model: MaskTokenizer, recipe: Recipe) -> None:
        super().__init__()
        self.tokenizer = model
        self.settings: Losses = recipe.losses
        self.masks_per_image = recipe.masks_per_image
        self.is_half = recipe.precision == "bf16"
        self.encoder_learns = "image_encoder" in recipe.train
        learn(model, recipe.train)

    def forward(self, examples: Examples, seeds: Sequence[int], bypass: float = 0.0) -> Terms:
        """Losses of some images and their masks.

        Args:
            examples: on the model's device; of each image at most the recipe's ``masks_per_image``.
            seeds: of each image: of the points that the loss looks at, and of the masks that pass the quantiser by.
            bypass: share of these.
        """
        network, quantizer = self.tokenizer.network, self.tokenizer.quantizer
        device = examples.pixels.device
        kind = network.no_mem_embed.dtype
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.is_half):
            with torch.set_grad_enabled(self.encoder_learns and torch.is_grad_enabled()):
                levels = network.image_encoder(normalised(coloured(examples.pixels, examples.colours), kind))[
                    "backbone_fpn"
                ]
            num_masks, spare = examples.num_masks, _spare_rows(examples)
            features = network.decoder_features(*levels).spread(_extended(examples.owners, spare))
            z_ND = network.mask_embeddings(
                features.embedding,
                _extended(examples.prompts, spare).to(kind).unsqueeze(1) / 255,
                _extended(examples.boxes, spare).to(kind),
            ).to(kind)[:num_masks]
            quantized = quantizer.quantize(z_ND)
            embedding_ND = quantized.embedding_ND
            numbers_NK = random_numbers(seeds, examples.owners, self.masks_per_image, 1 + 2 * self.settings.drawn, kind)
            if bypass:
                embedding_ND = torch.where(numbers_NK[:, :1] < bypass, z_ND, embedding_ND)
            logits_NPP = network.mask_logits(features, _extended(embedding_ND, spare)).to(kind)[:num_masks]
        with torch.autocast(device.type, enabled=False):
            drawn_NX2 = numbers_NK[:, 1:].unflatten(1, (-1, 2))
            bce_N, dice_N = mask_losses(logits_NPP, examples.targets.to(kind), self.settings, drawn_NX2)
        bce, dice, commitment = bce_N.sum(), dice_N.sum(), quantized.commitment_N.sum()
        loss = self.settings.bce * bce + self.settings.dice * dice + self.settings.commitment * commitment
        return Terms(loss, bce.detach(), dice.detach(), commitment.detach(), z_ND.detach())


def _spare_rows(examples: Examples) -> int:
    """How many masks to add for nothing. On a GPU cuDNN plans a convolution anew for each number of masks that it has
    not met, which takes as long as some steps; so they come in a few numbers only."""
    return -examples.num_masks % _MASKS_AT_ONCE if examples.owners.is_cuda else 0


def _extended(rows_N: Tensor, spare: int) -> Tensor:
    """With the last row repeated."""
    return torch.cat([rows_N, rows_N[-1:].expand(spare, *rows_N.shape[1:])]) if spare else rows_N


def random_numbers(
    seeds: Sequence[int], owners_N: Tensor, masks_per_image: int, count: int, kind: torch.dtype
) -> Tensor:
    """Random numbers for masks. Those of a mask depend on its image's seed and on which of the image's masks it is,
    not on the images beside it: what a step comes to does not depend on how its images are divided.

    Args:
        seeds: of each image.
        owners_N: int64, the image of each mask.
        masks_per_image: no image has more masks.
        count: numbers for each mask.
        kind: their floating type.

    Returns:
        (N, count), 0 to below 1.
    """
    numbers_BMK = torch.empty(len(seeds), masks_per_image, count, dtype=kind, device=owners_N.device)
    generator = torch.Generator(owners_N.device)
    for seed, numbers_MK in zip(seeds, numbers_BMK, strict=True):
        numbers_MK.uniform_(generator=generator.manual_seed(seed))
    masks_so_far_NB = F.one_hot(owners_N, len(seeds)).cumsum(dim=0)
    place_N = masks_so_far_NB.gather(1, owners_N.unsqueeze(1))[:, 0] - 1
    return numbers_BMK[owners_N, place_N]


def learn(model: MaskTokenizer, parts: tuple[Part, ...]) -> None:
    """Sets which parameters of the network get gradients; codebooks never do, they follow moving averages."""
    chosen = tuple(prefix for part in parts for prefix in _PARTS[part])
    for name, parameter in model.network.named_parameters():
        parameter.requires_grad_(name.startswith(chosen) and not name.startswith(_NEVER_TRAINED))
    for name, parameter in model.quantizer.named_parameters():
        parameter.requires_grad_(not name.startswith("codebooks."))
