"""The loss of a step: cross-entropy and Dice on sampled points of the logits.

Letters: N masks, P side of the logits, T points of a mask, C candidates among which the uncertain points are chosen,
R points that are anywhere, X = C + R points that are drawn. Points are (x, y) as fractions of the logits' square.
Sources: PointRend (arXiv 1912.08193) for the points, Mask2Former (arXiv 2112.01527) for the use, and the published
training loss for the weights and for how the two are averaged.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tokenizer_model.training.recipe import Losses


def mask_losses(logits_NPP: Tensor, targets_NPP: Tensor, settings: Losses, drawn_NX2: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy and Dice of each mask, not weighted.

    Args:
        logits_NPP: float.
        targets_NPP: 0 and 1, of the logits' type.
        settings: how many points, and how they are chosen.
        drawn_NX2: as ``uncertain_points``.

    Returns:
        Two of (N,): the mean over the mask's points of the binary cross-entropy, and one minus its Dice coefficient.
    """
    logits_NPP = logits_NPP - settings.cut
    if settings.points:
        points_NT2 = uncertain_points(logits_NPP, settings, drawn_NX2)
        logits_NT, targets_NT = at_points(logits_NPP, points_NT2), at_points(targets_NPP, points_NT2)
    else:
        logits_NT, targets_NT = logits_NPP.flatten(1), targets_NPP.flatten(1)
    bce_N = F.binary_cross_entropy_with_logits(logits_NT, targets_NT, reduction="none").mean(dim=1)
    chances_NT = logits_NT.sigmoid()
    shared_N = (chances_NT * targets_NT).sum(dim=1)
    both_N = chances_NT.sum(dim=1) + targets_NT.sum(dim=1)
    dice_N = 1 - (2 * shared_N + settings.dice_smooth) / (both_N + settings.dice_smooth)
    return bce_N, dice_N


@torch.no_grad()
def uncertain_points(logits_NPP: Tensor, settings: Losses, drawn_NX2: Tensor) -> Tensor:
    """Where a mask is looked at: mostly where its logits are closest to 0, for the rest anywhere.

    Args:
        logits_NPP: float.
        settings: points, oversample, importance.
        drawn_NX2: ``settings.drawn`` random points of each mask, of the logits' type, 0 to 1: the candidates, then
            those that are anywhere.

    Returns:
        (N, points, 2), some of the points that were drawn.
    """
    candidates_NC2, anywhere_NR2 = drawn_NX2.tensor_split([settings.candidates], dim=1)
    certainty_NC = at_points(logits_NPP, candidates_NC2).abs()
    chosen_NU = certainty_NC.topk(settings.uncertain, dim=1, largest=False, sorted=False).indices
    uncertain_NU2 = candidates_NC2.gather(1, chosen_NU.unsqueeze(-1).expand(-1, -1, 2))
    return torch.cat([uncertain_NU2, anywhere_NR2], dim=1)


def at_points(values_NPP: Tensor, points_NT2: Tensor) -> Tensor:
    """Values between pixels, bilinear; a pixel's value stands at its centre and beyond the edge stands 0.

    Returns:
        (N, T).
    """
    grid_N1T2 = 2 * points_NT2.unsqueeze(1) - 1
    return F.grid_sample(values_NPP.unsqueeze(1), grid_N1T2, mode="bilinear", align_corners=False)[:, 0, 0]
