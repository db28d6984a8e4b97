"""The ways through the network: what ``MaskTokenizer`` asks of them, and the plain one.

Letters: N masks of one pass, D channels, P side of mask prompts and logits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from tokenizer_model.config import Precision
from tokenizer_model.inputs import Prepared
from tokenizer_model.network import ImageFeatures, StillSam2, normalised
from tokenizer_model.overlaps import intersections_over_unions

# One mask of some images: (number of the image, number of the mask in that image).
Pair = tuple[int, int]


@dataclass(slots=True)
class PassSizes:
    """How much goes through the network at once; becomes smaller where a GPU's memory does not hold it.

    Attributes:
        images: most images of one backbone pass.
        masks: most masks of one pass of mask encoder or decoder.
    """

    images: int
    masks: int


def spans(chosen: Sequence[Pair]) -> Iterator[tuple[int, range, slice]]:
    """The masks of a pass in parts that follow each other in an image: its number, the masks, their places."""
    start = 0
    while start < len(chosen):
        image, first = chosen[start]
        end = start + 1
        while end < len(chosen) and chosen[end] == (image, first + end - start):
            end += 1
        yield image, range(first, first + end - start), slice(start, end)
        start = end


class NetworkPath(Protocol):
    """One way of computing the network. ``stage`` may be called in any thread, the rest in one at a time."""

    def stage(self, images: Sequence[Prepared]) -> Any:
        """What ``features``, ``embeddings`` and ``ious`` read of the images of a backbone pass. Needs no GPU time."""
        ...

    def features(self, staged: Any) -> Any:
        """One backbone pass."""
        ...

    def embeddings(self, staged: Any, features: Any, chosen: Sequence[Pair]) -> Tensor:
        """Mask embeddings before quantisation, float32, (N, D), of masks of the staged images."""
        ...

    def logits(self, features: Any, owners: Sequence[int], embeddings_ND: Tensor) -> Tensor:
        """The decoder's logits, float32, (N, P, P), of embeddings on the images of some numbers."""
        ...

    def ious(self, staged: Any, chosen: Sequence[Pair], logits_NPP: Tensor, threshold: float) -> Tensor:
        """The IoU of masks with their logits, which are resized to the image (bilinear, corners not aligned) and cut.

        Args:
            staged: the images.
            chosen: masks of them.
            logits_NPP: float32, one for each of these.
            threshold: a pixel is foreground where its logit is above this.

        Returns:
            float64, (N,), 0 to 1, on the logits' device.
        """
        ...


class PlainPath:
    """The network as its modules are written. On a GPU in ``bf16`` it computes as the published runs did.

    Args:
        network: its weights, on the device that is to compute.
        precision: ``fp32``, or a half type for autocast.
    """

    def __init__(self, network: StillSam2, precision: Precision) -> None:
        self.network, self.precision = network, precision

    def stage(self, images: Sequence[Prepared]) -> Sequence[Prepared]:
        """Nothing to be done ahead."""
        return images

    def features(self, staged: Sequence[Prepared]) -> ImageFeatures:
        """One backbone pass."""
        pixels_BSS3 = torch.from_numpy(np.stack([image.square for image in staged])).to(self._device)
        with self._arithmetic():
            return self.network.image_features(normalised(pixels_BSS3))

    def embeddings(self, staged: Sequence[Prepared], features: ImageFeatures, chosen: Sequence[Pair]) -> Tensor:
        """As ``NetworkPath.embeddings``."""
        prompts_NPP = np.stack([staged[image].prompt(mask) for image, mask in chosen])
        boxes_N4 = np.stack([staged[image].pieces.boxes[mask] for image, mask in chosen])
        owners_N = torch.tensor([image for image, _ in chosen], device=self._device)
        with self._arithmetic():
            z_ND = self.network.mask_embeddings(
                features.embedding[owners_N],
                torch.from_numpy(prompts_NPP).to(self._device).unsqueeze(1),
                torch.from_numpy(boxes_N4).to(self._device),
            )
        return z_ND.float()

    def logits(self, features: ImageFeatures, owners: Sequence[int], embeddings_ND: Tensor) -> Tensor:
        """As ``NetworkPath.logits``."""
        owners_N = torch.tensor(list(owners), device=self._device)
        with self._arithmetic():
            return self.network.mask_logits(features.of(owners_N), embeddings_ND).float()

    def ious(self, staged: Sequence[Prepared], chosen: Sequence[Pair], logits_NPP: Tensor, threshold: float) -> Tensor:
        """As ``NetworkPath.ious``."""
        return torch.cat([
            intersections_over_unions(logits_NPP[place], staged[image], masks, threshold)
            for image, masks, place in spans(chosen)
        ])

    @property
    def _device(self) -> torch.device:
        return self.network.no_mem_embed.device

    @contextmanager
    def _arithmetic(self) -> Iterator[None]:
        """The precision that was asked for, and the same numbers each time.

        torch lets cuDNN round the inputs of fp32 convolutions to TF32 and choose among algorithms; here neither.
        """
        half = self.precision != "fp32"
        kind = torch.float16 if self.precision == "fp16" else torch.bfloat16
        cudnn = torch.backends.cudnn
        with (
            cudnn.flags(enabled=cudnn.enabled, benchmark=False, deterministic=True, allow_tf32=half),
            torch.autocast(self._device.type, dtype=kind, enabled=half),
        ):
            yield
