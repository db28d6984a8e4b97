"""The fast way through the network: shapes that never change, memory that the GPU fetches, nothing computed twice.

A backbone pass always computes as many images as it may hold, the tokens of a mask pass as many masks; what stands at
missing places does not count. So each product has one shape and one kernel, what an image or mask gives does not depend
on its neighbours, and all launches are recorded once (``replays``).

Letters: B images of a pass, N masks of a pass, n masks of an image, S side of the network's image, P side of a prompt,
E = S / 16, D channels.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tokenizer_model.config import PATCH_STRIDE
from tokenizer_model.fast import trunk
from tokenizer_model.fast.kernels import AxisTables, DevicePieces, draw_prompts
from tokenizer_model.fast.mask_decoder import FastMaskDecoder, Levels
from tokenizer_model.fast.mask_encoder import FastMaskEncoder
from tokenizer_model.fast.overlaps import count_overlaps
from tokenizer_model.fast.replays import Replays
from tokenizer_model.fast.resizer import Resizer
from tokenizer_model.fast.trunk import FastTrunk, Tokens
from tokenizer_model.fast.two_way import ImageTables
from tokenizer_model.inputs import Prepared
from tokenizer_model.network import ImageFeatures, StillSam2
from tokenizer_model.paths import Pair, PassSizes, spans
from tokenizer_model.prompts import Axis

logger = logging.getLogger(__name__)

# Passes over positions are recorded for so many masks; a pass of fewer takes the next.
_RECORDED_MASKS = (32, 64, 128, 256)


@dataclass(frozen=True, slots=True)
class StagedImage:
    """An image and its masks on the device, or on their way there.

    Attributes:
        pixels: uint8, (H, W, 3) or (S, S, 3).
        resized: uint8, (S, S, 3): what Pillow makes of them, where its way with this size is not known yet.
        pieces: int32, one after the other: tops, afters, column starts, mask starts, lefts and areas of ``MaskPieces``.
        lengths: of each of them.
        boxes: float32, (n, 4), on the CPU.
        size: (H, W).
    """

    pixels: Tensor
    resized: Tensor | None
    pieces: Tensor
    lengths: tuple[int, ...]
    boxes: NDArray[np.float32]
    size: tuple[int, int]

    def of(self, wanted: slice) -> tuple[DevicePieces, Tensor]:
        """The pieces of some of its masks, and their areas."""
        tops_r, afters_r, column_starts, mask_starts, lefts_n, areas_n = self.pieces.split(self.lengths)
        starts = mask_starts[wanted.start : wanted.stop + 1]
        return DevicePieces(tops_r, afters_r, column_starts, starts, lefts_n[wanted]), areas_n[wanted]


@dataclass(frozen=True, slots=True)
class Staged:
    """Images of a backbone pass.

    Attributes:
        images: of the pass.
        arrived: when the device has them; None: it has them.
    """

    images: tuple[StagedImage, ...]
    arrived: torch.cuda.Event | None


@dataclass(frozen=True, slots=True)
class FastFeatures:
    """What one backbone pass gives. Valid until the next one.

    Attributes:
        stages: what comes out of the trunk's stages.
        embedding: float32, (B, E^2, D), with the no-memory embedding added.
        tables: what the mask encoder makes of it.
    """

    stages: list[Tokens]
    embedding: Tensor
    tables: ImageTables


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
        self._is_cuda = self.device.type == "cuda"
        self._trunk = FastTrunk(network, kind)
        self._encoder, self._decoder = FastMaskEncoder(network, kind), FastMaskDecoder(network, kind)
        self._decodes = True  # as long as the decoder's kernels are not known not to fit this GPU
        self._prompt_side = network.image_size // PATCH_STRIDE
        self._replays = Replays(self.device)
        self._room = _Room(network, PassSizes(0, 0))
        self._copying = torch.cuda.Stream(self.device) if self._is_cuda else None
        # Some MB each for 2,250 pixels; images of one source are of few sizes.
        self._prompt_axis = functools.lru_cache(maxsize=64)(self._make_prompt_axis)
        self._resizer = Resizer(network.image_size, self.device)

    @torch.inference_mode()
    def compile_kernels(self) -> str | None:
        """Compiles what passes launch but the decoder's, all at the same time; the first passes would do it one by one.

        Returns:
            Why this GPU cannot run it; None: it can.
        """
        if not self._is_cuda:
            return None
        room = _Room(self.network, PassSizes(1, 1))

        def launch_all() -> None:
            features = self._features(room.pixels)
            self._encoder(features.tables, room.owners, room.prompts, room.boxes)
            self._resizer.compile_kernels(room.pixels[0])
            no_pieces, no_boxes = torch.zeros(7, dtype=torch.int32, device=self.device), np.zeros((1, 4), np.float32)
            image = StagedImage(room.pixels[0], None, no_pieces, (1, 1, 1, 2, 1, 1), no_boxes, (16, 16))
            self.draw(image, slice(0, 1), room.prompts)
            self.ious(Staged((image,), None), [(0, 0)], room.prompts, 0.0)

        with torch.cuda.device(self.device), self._arithmetic():
            return None if self._encoder.fit(launch_all) else "this GPU's multiprocessors have too little memory"

    def stage(self, images: Sequence[Prepared]) -> Staged:
        """Sends images and masks to the device, beside what it computes."""
        with torch.cuda.stream(self._copying):  # of None: nothing
            staged = tuple(self._staged(image) for image in images)
            arrived = torch.cuda.Event() if self._is_cuda else None
            if arrived is not None:
                arrived.record()
        return Staged(staged, arrived)

    def features(self, staged: Staged) -> FastFeatures:
        """One backbone pass."""
        if self._room.sizes != self.sizes:
            self._replays.clear()
            self._room = _Room(self.network, PassSizes(self.sizes.images, self.sizes.masks))
        if staged.arrived is not None:
            staged.arrived.wait()
            for image in staged.images:
                for sent in (image.pixels, image.resized, image.pieces):
                    if sent is not None:
                        sent.record_stream(torch.cuda.current_stream())
        for place, image in enumerate(staged.images):
            self._resizer.place(image.pixels, image.resized, self._room.pixels[place])
        self._room.are_levels_current = False
        with self._arithmetic():
            return self._replays("features", lambda: self._features(self._room.pixels))

    def embeddings(self, staged: Staged, features: FastFeatures, chosen: Sequence[Pair]) -> Tensor:
        """As ``NetworkPath.embeddings``."""
        room = self._room
        boxes_n4, owners_n = np.empty((len(chosen), 4), np.float32), np.empty(len(chosen), np.int32)
        for image, masks, place in spans(chosen):
            wanted = slice(masks.start, masks.stop)
            boxes_n4[place], owners_n[place] = staged.images[image].boxes[wanted], image
            self.draw(staged.images[image], wanted, room.prompts[place])
        self._send(boxes_n4, room.boxes)
        self._send(owners_n, room.owners)
        some = self._recorded(len(chosen))

        def encode() -> Tensor:
            return self._encoder(features.tables, room.owners, room.prompts[:some], room.boxes)

        with self._arithmetic():
            return self._replays(("masks", some), encode)[: len(chosen)].float().clone()

    def logits(self, features: FastFeatures, owners: Sequence[int], embeddings_ND: Tensor) -> Tensor:
        """As ``NetworkPath.logits``."""
        room, count = self._room, len(embeddings_ND)
        with self._arithmetic():
            levels = self._levels(features) if self._decodes else None
            if levels is None:
                return self._logits_by_modules(features, owners, embeddings_ND)
            self._send(np.array(owners, np.int32), room.owners)
            room.embeddings[:count] = embeddings_ND
            some = self._recorded(count)

            def decode() -> Tensor:
                return self._decoder(levels, room.owners[:some], room.embeddings)

            return self._replays(("logits", some), decode)[:count].clone()

    def ious(self, staged: Staged, chosen: Sequence[Pair], logits_NPP: Tensor, threshold: float) -> Tensor:
        """As ``NetworkPath.ious``."""
        columns_NPP, areas = logits_NPP.transpose(1, 2).contiguous(), []
        counts_N2 = torch.zeros(len(chosen), 2, dtype=torch.int64, device=self.device)
        for number, masks, place in spans(chosen):
            image = staged.images[number]
            pieces, areas_n = image.of(slice(masks.start, masks.stop))
            count_overlaps(pieces, columns_NPP[place], image.size, threshold, counts_N2[place])
            areas.append(areas_n)
        decoded_N, common_N = counts_N2.unbind(1)
        return common_N.double() / (torch.cat(areas) + decoded_N - common_N).double()

    def _levels(self, features: FastFeatures) -> Levels | None:
        """What the decoder makes of a backbone pass, once for it, at the same place each time; None: its kernels do not
        fit this GPU. It is not recorded, as what a recording leaves is written over by those that came before it."""
        room = self._room
        if room.levels is None:
            levels = self._decoder.levels(features.stages, features.embedding)
            if self._is_cuda and not self._decoder.fit(levels, room.owners[:1], room.embeddings):
                logger.warning(
                    "This GPU's multiprocessors have little memory: masks are decoded by torch's own modules."
                )
                self._decodes = False
                return None
            room.levels = levels
        elif not room.are_levels_current:
            room.levels.take(self._decoder.levels(features.stages, features.embedding))
        room.are_levels_current = True
        return room.levels

    def _logits_by_modules(self, features: FastFeatures, owners: Sequence[int], embeddings_ND: Tensor) -> Tensor:
        owners_N = torch.tensor(list(owners), device=self.device)
        side, decoder = self._prompt_side // 4, self.network.sam_mask_decoder
        half = self.kind != torch.float32
        with torch.autocast(self.device.type, dtype=self.kind, enabled=half):
            levels = ImageFeatures(
                embedding=features.embedding.transpose(1, 2).unflatten(2, (side, side)),
                fine=decoder.conv_s0(self._trunk.fine(features.stages)),
                middle=decoder.conv_s1(self._trunk.middle(features.stages)),
            )
            return self.network.mask_logits(levels.of(owners_N), embeddings_ND).float()

    def _recorded(self, count: int) -> int:
        """For how many masks the launches are recorded that so many take."""
        some = next((number for number in _RECORDED_MASKS if number >= count), count)
        return min(some, self._room.sizes.masks)

    def _features(self, pixels_BSS3: Tensor) -> FastFeatures:
        stages = self._trunk(pixels_BSS3)
        embedding = self._trunk.embedding(stages)
        return FastFeatures(stages, embedding, self._encoder.tables(embedding))

    def draw(self, image: StagedImage, wanted: slice, prompts_nPP: Tensor) -> None:
        """Draws the prompts of some masks of an image: float32, (n, P, P), transposed."""
        rows, columns = self._prompt_axis(image.size[0]), self._prompt_axis(image.size[1])
        draw_prompts(image.of(wanted)[0], rows.suffix_LP, columns, prompts_nPP)

    def _staged(self, image: Prepared) -> StagedImage:
        pieces = image.pieces
        parts = (pieces.tops, pieces.afters, pieces.column_starts, pieces.mask_starts, pieces.lefts, pieces.areas)
        lengths = tuple(len(part) for part in parts)
        pixels, resized = self._resizer.wanted(image)
        return StagedImage(
            self._sent(pixels),
            None if resized is None else self._sent(resized),
            self._sent(np.concatenate(parts)),
            lengths,
            pieces.boxes,
            image.size,
        )

    def _sent(self, array: NDArray[np.generic]) -> Tensor:
        """An array on its way to the device, from memory that it fetches from by itself."""
        kind = torch.uint8 if array.dtype == np.uint8 else torch.int32
        pinned = torch.empty(array.shape, dtype=kind, pin_memory=self._is_cuda)
        np.copyto(pinned.numpy(), array)
        return pinned.to(self.device, non_blocking=True)

    def _send(self, array: NDArray[np.generic], target: Tensor) -> None:
        """Copies a small array to the first places of a tensor."""
        pinned = torch.empty(array.shape, dtype=target.dtype, pin_memory=self._is_cuda)
        np.copyto(pinned.numpy(), array)
        target[: len(array)].copy_(pinned, non_blocking=True)

    def _make_prompt_axis(self, length: int) -> AxisTables:
        axis = Axis.of(length, self._prompt_side)
        suffix_LP, weights_PL = (torch.from_numpy(one).to(self.device) for one in (axis.suffix_LP, axis.weights_PL))
        return AxisTables(suffix_LP, weights_PL, axis.reach)

    @staticmethod
    def _arithmetic() -> AbstractContextManager[None]:
        cudnn = torch.backends.cudnn
        return cudnn.flags(enabled=cudnn.enabled, benchmark=False, deterministic=True, allow_tf32=False)


class _Room:
    """Where what is computed lies: at fixed places in memory, as recorded launches want it.

    Attributes:
        sizes: of the passes.
        pixels: uint8, (B, S, S, 3).
        prompts: float32, (N, P, P), transposed.
        boxes: float32, (N, 4).
        owners: int32, (N,), in 0 .. B - 1.
        embeddings: float32, (N, D), of the decoder.
        levels: of the decoder; None: it was not asked for yet.
        are_levels_current: whether they are the last backbone pass's.
    """

    def __init__(self, network: StillSam2, sizes: PassSizes) -> None:
        image_side, width, device = network.image_size, network.no_mem_embed.shape[-1], network.no_mem_embed.device
        prompt_side = image_side // PATCH_STRIDE
        self.sizes = sizes
        self.pixels = torch.zeros(sizes.images, image_side, image_side, 3, dtype=torch.uint8, device=device)
        self.prompts = torch.zeros(sizes.masks, prompt_side, prompt_side, device=device)
        self.boxes = torch.zeros(sizes.masks, 4, device=device)
        self.owners = torch.zeros(sizes.masks, dtype=torch.int32, device=device)
        self.embeddings = torch.zeros(sizes.masks, width, device=device)
        self.levels: Levels | None = None
        self.are_levels_current = False


def unsupported(network: StillSam2) -> str | None:
    """Why a network cannot be computed here, in some words; None where it can."""
    side = network.image_size
    if side & (side - 1):
        return f"its image of {side} pixels is no power of two"
    width = network.no_mem_embed.shape[-1]
    if width & (width - 1) or width < 128:
        return f"its {width} channels are no power of two from 128 on"
    return next(trunk.unsupported(network), None)
