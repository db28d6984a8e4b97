"""SAMTok's network on the modules of the sam2 package: image encoder, mask encoder, mask decoder.

Letters: B images, N masks, D hidden channels, S side of the network's image, E = S / 16 side of the image
embedding, P = S / 4 side of mask prompts and logits. Attribute names give the published checkpoint's keys.
Sources: SAM 2 (arXiv 2408.00714) and SAMTok (arXiv 2601.16093), sections 3.
"""

from __future__ import annotations

import importlib.resources
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from omegaconf import OmegaConf
from sam2.modeling.sam.mask_decoder import MaskDecoder
from sam2.modeling.sam.prompt_encoder import PromptEncoder
from sam2.modeling.sam.transformer import TwoWayTransformer
from torch import Tensor, nn

from tokenizer_model.config import NUM_HEADS, SAM2_BACKBONES, Hiera, TokenizerConfig

# Mean and standard deviation of ImageNet's RGB values in 0..1, as SAM 2 was trained with.
IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)
# Labels that sam2's prompt encoder gives to points.
_NOT_A_POINT, _FIRST_CORNER, _LAST_CORNER = -1, 2, 3


def normalised(pixels_BSS3: Tensor, kind: torch.dtype = torch.float32) -> Tensor:
    """Pixels as the backbone reads them.

    Args:
        pixels_BSS3: uint8, RGB.
        kind: floating type of the result.

    Returns:
        (B, 3, S, S), each channel shifted and scaled by ImageNet's mean and standard deviation.
    """
    mean_3 = torch.tensor(IMAGE_MEAN, dtype=kind, device=pixels_BSS3.device)
    std_3 = torch.tensor(IMAGE_STD, dtype=kind, device=pixels_BSS3.device)
    return ((pixels_BSS3.to(kind) / 255 - mean_3) / std_3).permute(0, 3, 1, 2).contiguous()


@dataclass(frozen=True, slots=True)
class ImageFeatures:
    """What the backbone says of images, with the no-memory embedding added.

    Attributes:
        embedding: (B, D, E, E).
        fine: (B, D / 8, 4 E, 4 E), the decoder's finest features.
        middle: (B, D / 4, 2 E, 2 E).
    """

    embedding: Tensor
    fine: Tensor
    middle: Tensor

    def of(self, owners_N: Tensor) -> ImageFeatures:
        """The features of the image of each mask; ``owners_N`` is int64, in ``0 .. B - 1``."""
        return ImageFeatures(self.embedding[owners_N], self.fine[owners_N], self.middle[owners_N])

    def spread(self, owners_N: Tensor) -> ImageFeatures:
        """As ``of``, for training. The product with ones and zeros gives the same values, and its gradient adds up
        the masks of an image in one product, where indexing would add them one after the other, in bf16."""
        chosen_NB = F.one_hot(owners_N, len(self.embedding))
        return ImageFeatures(
            *(
                torch.tensordot(chosen_NB.to(level.dtype), level, 1)
                for level in (self.embedding, self.fine, self.middle)
            )
        )


class MaskEncoder(nn.Module):
    """A two-way transformer that reads a mask, as dense and sparse prompts on its image, into one learned token.

    Args:
        hidden_size: D.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.transformer = _two_way_transformer(hidden_size)
        self.mask_tokens = nn.Embedding(1, hidden_size)

    def forward(self, dense_NDEE: Tensor, position_1DEE: Tensor, sparse_NTD: Tensor) -> Tensor:
        """The mask token's output, (N, D)."""
        num_masks = sparse_NTD.shape[0]
        token_N1D = self.mask_tokens.weight.expand(num_masks, 1, -1)
        tokens_NTD = torch.cat([token_N1D, sparse_NTD], dim=1)
        output_NTD, _ = self.transformer(dense_NDEE, position_1DEE.expand(num_masks, -1, -1, -1), tokens_NTD)
        return output_NTD[:, 0]


class StillSam2(nn.Module):
    """The parts of SAM 2 that a still image needs, and SAMTok's mask encoder. Gradients flow through it.

    Args:
        config: the architecture.
    """

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.image_size = config.image_size
        self.image_encoder: nn.Module = _image_encoder(config)
        self.no_mem_embed = nn.Parameter(torch.zeros(1, 1, size))
        nn.init.trunc_normal_(self.no_mem_embed, std=0.02)
        self.sam_prompt_encoder = PromptEncoder(
            embed_dim=size,
            image_embedding_size=(config.embedding_side, config.embedding_side),
            input_image_size=(config.image_size, config.image_size),
            mask_in_chans=16,
        )
        # The decoder's switches and the factors of the widths are those of SAM 2.1.
        self.sam_mask_decoder = MaskDecoder(
            transformer_dim=size,
            transformer=_two_way_transformer(size),
            num_multimask_outputs=3,
            iou_head_depth=3,
            iou_head_hidden_dim=size,
            use_high_res_features=True,
            iou_prediction_use_sigmoid=True,
            pred_obj_scores=True,
            pred_obj_scores_mlp=True,
            use_multimask_token_for_obj_ptr=True,
        )
        self.sam_mask_encoder = MaskEncoder(size)

    def image_features(self, pixels_B3SS: Tensor) -> ImageFeatures:
        """One backbone pass.

        Args:
            pixels_B3SS: float, RGB, normalised with ImageNet's mean and standard deviation.
        """
        return self.decoder_features(*self.image_encoder(pixels_B3SS)["backbone_fpn"])

    def decoder_features(self, fine: Tensor, middle: Tensor, last: Tensor) -> ImageFeatures:
        """What the mask encoder and decoder make of the three levels of the backbone.

        Args:
            fine: (B, D, 4 E, 4 E).
            middle: (B, D, 2 E, 2 E).
            last: (B, D, E, E).
        """
        return ImageFeatures(
            embedding=last + self.no_mem_embed.reshape(1, -1, 1, 1),
            fine=self.sam_mask_decoder.conv_s0(fine),
            middle=self.sam_mask_decoder.conv_s1(middle),
        )

    def mask_embeddings(self, images_NDEE: Tensor, masks_N1PP: Tensor, boxes_N4: Tensor) -> Tensor:
        """SAMTok's encoder.

        Args:
            images_NDEE: the embedding of each mask's image.
            masks_N1PP: float, 0 to 1.
            boxes_N4: (x0, y0, x1, y1) as fractions of the image, the last corner inclusive.

        Returns:
            z, (N, D), before quantisation.
        """
        corners_N22 = boxes_N4.reshape(-1, 2, 2) * self.image_size
        labels_N2 = torch.tensor([_FIRST_CORNER, _LAST_CORNER], dtype=torch.int32, device=boxes_N4.device)
        # As points and not as a box: the prompt encoder then appends its padding point. Kept so that tokens match.
        sparse_N3D, dense_NDEE = self.sam_prompt_encoder(
            points=(corners_N22, labels_N2.expand(len(boxes_N4), 2)), boxes=None, masks=masks_N1PP
        )
        return self.sam_mask_encoder(images_NDEE + dense_NDEE, self.sam_prompt_encoder.get_dense_pe(), sparse_N3D)

    def mask_logits(self, features: ImageFeatures, embeddings_ND: Tensor) -> Tensor:
        """SAMTok's decoder: SAM's mask decoder with the mask's embedding as one more sparse prompt.

        Args:
            features: of each mask's image, so B = N.
            embeddings_ND: decoded codes.

        Returns:
            (N, P, P): of the three masks the one with the highest predicted IoU.
        """
        num_masks, device = embeddings_ND.shape[0], embeddings_ND.device
        nowhere = torch.zeros(num_masks, 1, 2, device=device)
        label = torch.full((num_masks, 1), _NOT_A_POINT, dtype=torch.int32, device=device)
        sparse_N2D, dense_NDEE = self.sam_prompt_encoder(points=(nowhere, label), boxes=None, masks=None)
        logits_N3PP, ious_N3, _, _ = self.sam_mask_decoder(
            image_embeddings=features.embedding,
            image_pe=self.sam_prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=torch.cat([sparse_N2D, embeddings_ND.unsqueeze(1)], dim=1),
            dense_prompt_embeddings=dense_NDEE,
            multimask_output=True,
            repeat_image=False,
            high_res_features=[features.fine, features.middle],
        )
        return logits_N3PP[torch.arange(num_masks, device=device), ious_N3.argmax(dim=1)]


class SamtokModel(nn.Module):
    """Holds the network under the name that the published checkpoint's keys have.

    Args:
        config: the architecture.
    """

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.sam2_model = StillSam2(config)


def _two_way_transformer(hidden_size: int) -> TwoWayTransformer:
    return TwoWayTransformer(depth=2, embedding_dim=hidden_size, num_heads=NUM_HEADS, mlp_dim=8 * hidden_size)


def _image_encoder(config: TokenizerConfig) -> nn.Module:
    """The image encoder of sam2's own file; for other widths that of its smallest, with these put in."""
    name = "tiny" if isinstance(config.backbone, Hiera) else config.backbone
    file = importlib.resources.files("sam2") / SAM2_BACKBONES[name]
    node: Any = OmegaConf.create(file.read_text(encoding="utf-8"))
    encoder = node.model.image_encoder
    # Else building it on a machine with a GPU would start CUDA, whichever device the tokenizer is for.
    encoder.neck.position_encoding.warmup_cache = False
    if isinstance(config.backbone, Hiera):
        hiera = config.backbone
        encoder.trunk.embed_dim = hiera.embed_dim
        encoder.trunk.num_heads = hiera.num_heads
        encoder.trunk.stages = list(hiera.stages)
        encoder.trunk.global_att_blocks = list(hiera.global_blocks)
        encoder.trunk.window_spec = list(hiera.windows)
        encoder.neck.d_model = config.hidden_size
        encoder.neck.position_encoding.num_pos_feats = config.hidden_size
        encoder.neck.backbone_channel_list = list(reversed(hiera.channels))
    return instantiate(encoder)
