"""The training step written down again from its formulae, one mask and one point after the other, in float64.

The network's three functions (image features, z, logits) are the model's own; everything around them is here: how
pixels, prompts and boxes are fed, points, losses, quantisation with its straight-through gradient, the commitment,
weights and means. Slow, and shares no line with the code that is held against it.

Letters: N masks, D channels, S side of the network's square, P side of the logits, X points that are drawn of a mask.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sam2.modeling import position_encoding
from sam2.modeling.backbones import image_encoder
from torch import Tensor

from tokenizer_model import MaskTokenizer
from tokenizer_model.training.examples import Examples
from tokenizer_model.training.recipe import Losses

Floats = NDArray[np.float64]

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's


@dataclass
class PlainStep:
    """What a step comes to.

    Attributes:
        bce: of each mask, as all lists.
        dice: not weighted, as all terms.
        commitment: squared distance to the sums of rows, mean over levels and channels.
        codes: one for each level.
        z: (D,) each.
        gradients: of the mean over the masks of the weighted terms, by the names of the parameters that learn.
    """

    bce: list[float] = field(default_factory=list)
    dice: list[float] = field(default_factory=list)
    commitment: list[float] = field(default_factory=list)
    codes: list[list[int]] = field(default_factory=list)
    z: list[Floats] = field(default_factory=list)
    gradients: dict[str, Floats] = field(default_factory=dict)

    def loss(self, settings: Losses) -> float:
        """The mean over the masks of the weighted terms."""
        terms = zip(self.bce, self.dice, self.commitment, strict=True)
        each = [settings.bce * bce + settings.dice * dice + settings.commitment * far for bce, dice, far in terms]
        return sum(each) / len(each)

    @property
    def norm(self) -> float:
        """The length of all gradients as one vector."""
        return math.sqrt(sum(float((array**2).sum()) for array in self.gradients.values()))


def plain_step(
    model: MaskTokenizer, examples: Examples, settings: Losses, drawn_NX2: Floats, passing: Sequence[bool] = ()
) -> PlainStep:
    """Losses and gradients of one step over all masks.

    Args:
        model: in float64; what learns is what ``requires_grad`` says. Left as it was.
        examples: what the step sees.
        settings: of the loss.
        drawn_NX2: the random points of each mask, the candidates first.
        passing: whether each mask is decoded from z itself; empty: none is.
    """
    network, found = model.network, PlainStep()
    model.zero_grad(set_to_none=True)
    for mask in range(examples.num_masks):
        image = int(examples.owners[mask])
        features = network.image_features(plain_pixels(examples.pixels[image], examples.colours[image]))
        prompt_11PP = float64(examples.prompts[mask])[None, None] / 255
        z_D = network.mask_embeddings(features.embedding, prompt_11PP, float64(examples.boxes[mask])[None])[0]
        z = z_D.detach().numpy()
        codes, sums = plain_codes(model, z)
        decoded = z if passing and passing[mask] else sums[-1]
        embedding_D = torch.from_numpy(decoded.copy()).requires_grad_()
        logits_PP = network.mask_logits(features, embedding_D[None])[0]
        bce, dice = plain_terms(logits_PP, examples.targets[mask].numpy(), settings, drawn_NX2[mask])
        ((settings.bce * bce + settings.dice * dice) / examples.num_masks).backward(retain_graph=True)
        if z_D.requires_grad:
            # What the loss asks of the embedding goes to z as it is; the commitment's own gradient comes on top.
            away = sum((2 * (z - row) / (len(z) * len(sums)) for row in sums), np.zeros(len(z)))
            assert embedding_D.grad is not None
            z_D.backward(embedding_D.grad + settings.commitment * torch.from_numpy(away) / examples.num_masks)
        found.bce.append(float(bce.detach()))
        found.dice.append(float(dice.detach()))
        found.commitment.append(sum(float(((z - row) ** 2).mean()) for row in sums) / len(sums))
        found.codes.append(codes)
        found.z.append(z)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            grad = parameter.grad
            found.gradients[name] = np.zeros(parameter.shape) if grad is None else grad.numpy().copy()
    model.zero_grad(set_to_none=True)
    return found


def plain_pixels(pixels_SS3: Tensor, colours_34: Tensor) -> Tensor:
    """(1, 3, S, S): a colour is a weighted sum of the three and a constant, cut to 0..255, then ImageNet's scale."""
    before, weights = pixels_SS3.numpy().astype(np.float64), colours_34.numpy().astype(np.float64)
    channels = []
    for channel in range(3):
        mixed = sum((weights[channel, other] * before[:, :, other] for other in range(3)), weights[channel, 3])
        channels.append((np.minimum(np.maximum(mixed, 0), 255) / 255 - MEAN[channel]) / STD[channel])
    return torch.from_numpy(np.stack(channels))[None]


def plain_codes(model: MaskTokenizer, z: Floats) -> tuple[list[int], list[Floats]]:
    """The nearest row at each level to what is left, the last row excepted; and the sums of the rows so far."""
    state, codes, sums = model.quantizer.state_dict(), [], []
    for level in range(model.config.depth):
        rows = state[f"codebooks.{0 if model.config.shared else level}.weight"].numpy()[:-1]
        so_far = sums[-1] if sums else np.zeros(len(z))
        codes.append(min(range(len(rows)), key=lambda row: float(((z - so_far - rows[row]) ** 2).sum())))
        sums.append(so_far + rows[codes[-1]])
    return codes, sums


def plain_terms(
    logits_PP: Tensor, target_PP: NDArray[Any], settings: Losses, drawn_X2: Floats
) -> tuple[Tensor, Tensor]:
    """Cross-entropy and Dice of a mask at its points, or of all its logits where points are 0."""
    bce, shared, chances, targets = (torch.zeros((), dtype=torch.float64) for _ in range(4))
    logits_PP, places = logits_PP - settings.cut, range(len(logits_PP))
    points = plain_points(logits_PP.detach().numpy(), settings, drawn_X2)
    pairs = [(read_at(logits_PP, x, y), read_at(target_PP, x, y)) for x, y in points]
    if settings.points == 0:
        pairs = [(logits_PP[row, column], float(target_PP[row, column])) for row in places for column in places]
    for logit, target in pairs:
        chance = 1 / (1 + torch.exp(-logit))
        bce = bce - target * torch.log(chance) - (1 - target) * torch.log(1 - chance)
        shared, chances, targets = shared + chance * target, chances + chance, targets + target
    dice = 1 - (2 * shared + settings.dice_smooth) / (chances + targets + settings.dice_smooth)
    return bce / len(pairs), dice


def plain_points(logits_PP: Floats, settings: Losses, drawn_X2: Floats) -> list[tuple[float, float]]:
    """The candidates with the logits closest to 0, then those that are anywhere."""
    drawn = [(float(x), float(y)) for x, y in drawn_X2]
    candidates = math.floor(settings.oversample * settings.points)
    uncertain = math.floor(settings.importance * settings.points)
    assert len(drawn) == candidates + settings.points - uncertain
    by_certainty = sorted(drawn[:candidates], key=lambda point: abs(float(read_at(logits_PP, *point))))
    return by_certainty[:uncertain] + drawn[candidates:]


def read_at(values_PP: Any, x: float, y: float) -> Any:
    """Between four pixels, each weighted by how near it is; a pixel stands at its centre, outside stands 0."""
    side, total = len(values_PP), 0.0
    column, row = x * side - 0.5, y * side - 0.5
    for near_row in (math.floor(row), math.floor(row) + 1):
        for near_column in (math.floor(column), math.floor(column) + 1):
            if 0 <= near_row < side and 0 <= near_column < side:
                weight = (1 - abs(row - near_row)) * (1 - abs(column - near_column))
                total = total + weight * values_PP[near_row, near_column]
    return total


def float64(tensor: Tensor) -> Tensor:
    return torch.from_numpy(tensor.numpy().astype(np.float64))


class _Double:
    """torch, where float32 is float64."""

    float32 = float = torch.float64

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


def keep_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """sam2 computes positions and its feature pyramid in float32 whatever the weights are; here in float64."""
    for module in (position_encoding, image_encoder):
        monkeypatch.setattr(module, "torch", _Double())
