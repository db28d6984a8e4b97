"""The fast way through the network: shapes that never change, memory that the GPU fetches, nothing computed twice.

A backbone pass always holds as many images as it may, the tokens of a mask pass as many masks; missing ones are zeros.
So each product has one shape and one kernel, and what an image or mask gives does not depend on its neighbours.

Letters: B images of a pass, N masks of a pass, n masks of an image, S side of the network's image, P side of a prompt,
E = S / 16, D channels.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from tokenizer_model.fast import trunk
from tokenizer_model.fast.kernels import AxisTables, draw_prompts, normalised_rows
from tokenizer_model.fast.mask_encoder import FastMaskEncoder, ImageTables
from tokenizer_model.fast.trunk import FastTrunk, Tokens
from tokenizer_model.inputs import Prepared
from tokenizer_model.network import ImageFeatures, StillSam2
from tokenizer_model.paths import Pair, PassSizes
from tokenizer_model.prompts import Axis


@dataclass(frozen=True, slots=True)
class StagedPieces:
    """The masks of an image, as ``MaskPieces`` has them, in one buffer.

    Attributes:
        buffer: int32: tops, afters, column starts, mask starts, lefts.
        lengths: of each of them.
        size: (H, W) of the image.
    """

    buffer: Tensor
    lengths: tuple[int, ...]
    size: tuple[int, int]

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """Tops, afters, column starts, mask starts, lefts."""
        return self.buffer.split(self.lengths)


@dataclass(frozen=True, slots=True)
class Staged:
    """Images in memory from which the GPU fetches.

    Attributes:
        pixels: uint8, (B, S, S, 3), RGB; zeros behind the last image.
        masks: of each image that there is.
        boxes: float32, (n, 4) for each.
    """

    pixels: Tensor
    masks: tuple[StagedPieces, ...]
    boxes: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class FastFeatures:
    """What one backbone pass gives.

    Attributes:
        stages: what comes out of the trunk's stages.
        embedding: float32, (B, E^2, D), with the no-memory embedding added.
        tables: what the mask encoder makes of it.
        masks: of each image, on the device.
    """

    stages: list[Tokens]
    embedding: Tensor
    tables: ImageTables
    masks: tuple[StagedPieces, ...]


class FastPath:
    """A ``NetworkPath`` for one GPU.

    Args:
        network: the weights, on the GPU, in float32. They are copied where they are needed in ``kind``.
        kind: float16 or bfloat16; float32 to compare with the modules.
        sizes: of the passes.
    """

    def __init__(self, network: StillSam2, kind: torch.dtype, sizes: PassSizes) -> None:
        self.network, self.kind, self.sizes = network, kind, sizes
        self.device = network.no_mem_embed.device
        self._trunk, self._encoder = FastTrunk(network, kind), FastMaskEncoder(network, kind)
        self._side = network.image_size // 4
        # 4 MB each for 2,250 pixels; images of one source are of few sizes
        self._axis = functools.lru_cache(maxsize=64)(self._make_axis)

    def stage(self, images: Sequence[Prepared]) -> Staged:
        """Copies images and masks to pinned memory."""
        pixels = torch.zeros(
            (max(self.sizes.images, len(images)), *images[0].pixels.shape), dtype=torch.uint8, pin_memory=self._is_cuda
        )
        for place, image in enumerate(images):
            pixels.numpy()[place] = image.pixels
        return Staged(
            pixels,
            tuple(self._staged(image) for image in images),
            tuple(torch.tensor(image.pieces.boxes) for image in images),
        )

    def features(self, staged: Staged) -> FastFeatures:
        """One backbone pass."""
        pixels_BSS3 = staged.pixels.to(self.device, non_blocking=True)
        masks = tuple(
            StagedPieces(one.buffer.to(self.device, non_blocking=True), one.lengths, one.size) for one in staged.masks
        )
        with self._arithmetic():
            stages = self._trunk(normalised_rows(pixels_BSS3, self.kind).permute(0, 3, 1, 2))
            embedding = self._trunk.embedding(stages)
            return FastFeatures(stages, embedding, self._encoder.tables(embedding), masks)

    def embeddings(self, staged: Staged, features: FastFeatures, chosen: Sequence[Pair]) -> Tensor:
        """As ``NetworkPath.embeddings``."""
        room = max(self.sizes.masks, len(chosen))
        prompts_nPP = torch.empty(len(chosen), self._side, self._side, device=self.device)
        boxes_N4, owners_N = torch.zeros(room, 4), torch.zeros(room, dtype=torch.int32)
        for image, masks, place in _spans(chosen):
            boxes_N4[place], owners_N[place] = staged.boxes[image][masks], image
            self._draw(features.masks[image], masks, prompts_nPP[place])
        with self._arithmetic():
            z_ND = self._encoder(features.tables, self._moved(owners_N), prompts_nPP, self._moved(boxes_N4))
        return z_ND[: len(chosen)].float()

    def logits(self, features: FastFeatures, owners: Sequence[int], embeddings_ND: Tensor) -> Tensor:
        """As ``NetworkPath.logits``; the decoder's own modules under autocast."""
        owners_N = self._moved(torch.tensor(list(owners)))
        side = self._side // 4
        with self._arithmetic(), torch.autocast(self.device.type, dtype=self.kind, enabled=self._is_half):
            decoder = self.network.sam_mask_decoder
            levels = ImageFeatures(
                embedding=features.embedding.transpose(1, 2).unflatten(2, (side, side)),
                fine=decoder.conv_s0(self._trunk.fine(features.stages)),
                middle=decoder.conv_s1(self._trunk.middle(features.stages)),
            )
            return self.network.mask_logits(levels.of(owners_N), embeddings_ND).float()

    def _draw(self, masks: StagedPieces, wanted: slice, prompts_nPP: Tensor) -> None:
        tops_r, afters_r, column_starts, mask_starts, lefts_n = masks.parts
        rows, columns = self._axis(masks.size[0]), self._axis(masks.size[1])
        starts = mask_starts[wanted.start : wanted.stop + 1]
        draw_prompts(tops_r, afters_r, column_starts, starts, lefts_n[wanted], rows.suffix_LP, columns, prompts_nPP)

    def _make_axis(self, length: int) -> AxisTables:
        axis = Axis.of(length, self._side)
        suffix_LP, weights_PL = (torch.from_numpy(one).to(self.device) for one in (axis.suffix_LP, axis.weights_PL))
        return AxisTables(suffix_LP, weights_PL, axis.reach)

    def _staged(self, image: Prepared) -> StagedPieces:
        pieces = image.pieces
        parts = (pieces.tops, pieces.afters, pieces.column_starts, pieces.mask_starts, pieces.lefts)
        buffer = torch.from_numpy(np.concatenate(parts))
        return StagedPieces(self._pinned(buffer), tuple(len(part) for part in parts), image.size)

    def _moved(self, tensor: Tensor) -> Tensor:
        return self._pinned(tensor).to(self.device, non_blocking=True)

    def _pinned(self, tensor: Tensor) -> Tensor:
        return tensor.pin_memory() if self._is_cuda else tensor

    @property
    def _is_cuda(self) -> bool:
        return self.device.type == "cuda"

    @property
    def _is_half(self) -> bool:
        return self.kind != torch.float32

    @staticmethod
    def _arithmetic() -> AbstractContextManager[None]:
        cudnn = torch.backends.cudnn
        return cudnn.flags(enabled=cudnn.enabled, benchmark=False, deterministic=True, allow_tf32=False)


def _spans(chosen: Sequence[Pair]) -> Iterator[tuple[int, slice, slice]]:
    """Neighbours of one image: its number, its masks, their places."""
    place = 0
    for image, found in groupby(chosen, key=lambda pair: pair[0]):
        masks = [mask for _, mask in found]
        yield image, slice(masks[0], masks[-1] + 1), slice(place, place + len(masks))
        place += len(masks)


def unsupported(network: StillSam2) -> str | None:
    """Why a network cannot be computed here, in some words; None where it can."""
    side = network.image_size
    if side & (side - 1):
        return f"its image of {side} pixels is no power of two"
    width = network.no_mem_embed.shape[-1]
    if width & (width - 1) or width < 128:
        return f"its {width} channels are no power of two from 128 on"
    return next(trunk.unsupported(network), None)
