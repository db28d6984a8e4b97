"""The mask tokenizer: masks on images to codes, and codes on images to masks.

Letters: B images of one backbone pass, N masks of one pass, n_i masks of image i, L levels, D channels,
S side of the network's image, P = S / 4 side of mask prompts and logits, H and W of an image as it came.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from samtok_data.masks import RLE
from samtok_data.words import MISSING, MaskVocabulary
from tokenizer_model.config import TokenizerConfig
from tokenizer_model.identity import TokenizerIdentity, untrained_warning
from tokenizer_model.inputs import Prepared, normalised
from tokenizer_model.network import ImageFeatures, SamtokModel, StillSam2
from tokenizer_model.quantizers import Quantizer, build_quantizer

LOGIT_THRESHOLD = 0.5
"""A pixel belongs to a decoded mask where its logit is above this.

The published scripts cut logits at 0.5, which is a probability of 0.62; SAM's own threshold is the logit 0.
Kept so that masks match the published ones.
"""

IMAGE_BATCH = 4
MASK_BATCH = 32

Precision = Literal["fp32", "bf16"]
Codes = NDArray[np.int64]
Logits = NDArray[np.float32]


# One mask of a call: (number of the image, number of the mask in that image).
_Pair = tuple[int, int]
# One pass over some masks: features of a few images, for each mask which of these is its own (N,), and the masks.
_Step = Callable[[ImageFeatures, Tensor, Sequence[_Pair]], tuple[NDArray[Any], ...]]


class MaskTokenizer(nn.Module):
    """SAMTok: mask encoder, quantiser and mask decoder around one image backbone.

    What a call returns depends on its arguments and the two batch sizes, never on timing.

    Args:
        config: the architecture. Weights are torch's initial ones until some are loaded.
        identity: what was loaded; None: nothing was.
        image_batch: most images of one backbone pass.
        mask_batch: most masks of one pass of mask encoder or decoder; those of several images go together.
        precision: ``fp32``, or ``bf16`` for autocast as the published runs had it (codes of close rows may
            differ from those of ``fp32``). Quantisation is always fp32.

    Raises:
        ValueError: a batch size below 1, or an unknown precision.
        SetupError: the configuration asks for ``fsq``, and its library is not installed.
    """

    def __init__(
        self,
        config: TokenizerConfig,
        *,
        identity: TokenizerIdentity | None = None,
        image_batch: int = IMAGE_BATCH,
        mask_batch: int = MASK_BATCH,
        precision: Precision = "fp32",
    ) -> None:
        super().__init__()
        if image_batch < 1 or mask_batch < 1:
            raise ValueError(f"image_batch and mask_batch must be at least 1, got {image_batch}, {mask_batch}")
        if precision not in ("fp32", "bf16"):
            raise ValueError(f"precision must be fp32 or bf16, got {precision!r}")
        self.config = config
        self.identity = identity or TokenizerIdentity(
            name="unnamed", address="", sha256="", config=config, trained=False, warning=untrained_warning("unnamed")
        )
        self.image_batch = image_batch
        self.mask_batch = mask_batch
        self.precision: Precision = precision
        self.model = SamtokModel(config)
        self.quantizer: Quantizer = build_quantizer(config)

    @property
    def vocabulary(self) -> MaskVocabulary:
        """How the codes are spelt."""
        return self.config.vocabulary

    @property
    def network(self) -> StillSam2:
        """The network without the quantiser."""
        return self.model.sam2_model

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.network.no_mem_embed.device

    def prepare(self, image: Image.Image, regions: Sequence[RLE] = ()) -> Prepared:
        """The part of the work that needs no network; can run in other threads, ahead of it.

        Args:
            image: of any size and mode; read as RGB.
            regions: masks of the image's size with at least one foreground pixel.

        Raises:
            ValueError: a mask of another size than the image, or without foreground.
        """
        return Prepared.of(image, regions, self.config)

    def encode(self, images: Sequence[Image.Image], regions: Sequence[Sequence[RLE]]) -> list[Codes]:
        """The codes of masks. One backbone pass for each image that has any.

        Args:
            images: of any size and mode.
            regions: of each image its masks, each of the image's size and not empty.

        Returns:
            For each image int64, (n_i, L), each code in ``0 .. codebook_size - 1``.

        Raises:
            ValueError: numbers of images and region lists differ, a mask has another size than its image, or a
                mask is empty.
        """
        return self.encode_prepared(self._prepare_all(images, regions))

    def encode_prepared(self, prepared: Sequence[Prepared]) -> list[Codes]:
        """``encode`` for images that ``prepare`` has read, in other threads perhaps."""
        return self.embed_prepared(prepared)[1]

    def embed(
        self, images: Sequence[Image.Image], regions: Sequence[Sequence[RLE]]
    ) -> tuple[list[Logits], list[Codes]]:
        """The mask embeddings before quantisation, and the codes. Arguments and errors as ``encode``.

        Returns:
            For each image float32, (n_i, D), and int64, (n_i, L).
        """
        return self.embed_prepared(self._prepare_all(images, regions))

    def embed_prepared(self, prepared: Sequence[Prepared]) -> tuple[list[Logits], list[Codes]]:
        """``embed`` for images that ``prepare`` has read."""

        def step(features: ImageFeatures, owners_N: Tensor, chosen: Sequence[_Pair]) -> tuple[NDArray[Any], ...]:
            return self._embed_masks(features.embedding[owners_N], prepared, chosen)

        empty = (
            np.empty((0, self.config.hidden_size), np.float32),
            np.empty((0, self.config.depth), np.int64),
        )
        z, codes = self._run(prepared, [len(one.prompts) for one in prepared], step, empty)
        return z, codes

    def decode_logits(self, images: Sequence[Image.Image], codes: Sequence[NDArray[np.integer]]) -> list[Logits]:
        """The decoder's logits of codes. One backbone pass for each image that has any.

        Args:
            images: of any size and mode.
            codes: of each image integers, (n_i, L), each in ``0 .. codebook_size - 1``, or ``MISSING``, which
                contributes nothing. Not changed.

        Returns:
            For each image float32, (n_i, P, P): the network's square, not the image's aspect.

        Raises:
            ValueError: numbers of images and code arrays differ, or codes of another shape or range.
        """
        prepared = [self.prepare(image) for image in images]
        checked = self._checked_codes(prepared, codes)

        def step(features: ImageFeatures, owners_N: Tensor, chosen: Sequence[_Pair]) -> tuple[NDArray[Any], ...]:
            return (
                self._decode_masks(features.of(owners_N), np.stack([checked[image][mask] for image, mask in chosen])),
            )

        empty = (np.empty((0, self.config.logit_side, self.config.logit_side), np.float32),)
        return self._run(prepared, [len(one) for one in checked], step, empty)[0]

    def decode(
        self,
        images: Sequence[Image.Image],
        codes: Sequence[NDArray[np.integer]],
        threshold: float = LOGIT_THRESHOLD,
    ) -> list[NDArray[np.bool_]]:
        """The masks of codes: the logits resized to the image (bilinear, corners not aligned), then cut.

        Args:
            images: as ``decode_logits``.
            codes: as ``decode_logits``.
            threshold: a pixel is foreground where its logit is above this.

        Returns:
            For each image bool, (n_i, H, W).

        Raises:
            ValueError: as ``decode_logits``.
        """
        logits = self.decode_logits(images, codes)
        return [
            self.cut(one, (image.height, image.width), threshold) for one, image in zip(logits, images, strict=True)
        ]

    def reconstruct(
        self,
        images: Sequence[Image.Image],
        regions: Sequence[Sequence[RLE]],
        threshold: float = LOGIT_THRESHOLD,
    ) -> tuple[list[Codes], list[NDArray[np.bool_]]]:
        """``encode``, and ``decode`` of what it gives, on one backbone pass for each image.

        Args:
            images: as ``encode``.
            regions: as ``encode``.
            threshold: as ``decode``.

        Returns:
            For each image the codes, int64, (n_i, L), and the masks that they decode to, bool, (n_i, H, W).

        Raises:
            ValueError: as ``encode``.
        """
        return self.reconstruct_prepared(self._prepare_all(images, regions), threshold)

    def reconstruct_prepared(
        self, prepared: Sequence[Prepared], threshold: float = LOGIT_THRESHOLD
    ) -> tuple[list[Codes], list[NDArray[np.bool_]]]:
        """``reconstruct`` for images that ``prepare`` has read."""

        def step(features: ImageFeatures, owners_N: Tensor, chosen: Sequence[_Pair]) -> tuple[NDArray[Any], ...]:
            _, codes = self._embed_masks(features.embedding[owners_N], prepared, chosen)
            return codes, self._decode_masks(features.of(owners_N), codes)

        codes, logits = self._run(prepared, [len(one.prompts) for one in prepared], step, self._nothing()[:2])
        return codes, [self.cut(one, image.size, threshold) for one, image in zip(logits, prepared, strict=True)]

    def reconstruct_logits(self, prepared: Sequence[Prepared]) -> tuple[list[Codes], list[Logits], list[Logits]]:
        """What ``reconstruct_prepared`` cuts, and what would be decoded if nothing were quantised; for measuring.

        Returns:
            For each image the codes, int64, (n_i, L); the logits that they decode to, float32, (n_i, P, P); and
            the logits of the embeddings themselves, of the same shape. All on one backbone pass.
        """

        def step(features: ImageFeatures, owners_N: Tensor, chosen: Sequence[_Pair]) -> tuple[NDArray[Any], ...]:
            z_ND, codes = self._embed_masks(features.embedding[owners_N], prepared, chosen)
            own = features.of(owners_N)
            unquantised = self._decode_embeddings(own, torch.from_numpy(z_ND).to(self.device))
            return codes, self._decode_masks(own, codes), unquantised

        codes, logits, unquantised = self._run(prepared, [len(one.prompts) for one in prepared], step, self._nothing())
        return codes, logits, unquantised

    def _nothing(self) -> tuple[Codes, Logits, Logits]:
        """Codes, logits and logits of an image without masks."""
        logits = np.empty((0, self.config.logit_side, self.config.logit_side), np.float32)
        return np.empty((0, self.config.depth), np.int64), logits, logits

    def _prepare_all(self, images: Sequence[Image.Image], regions: Sequence[Sequence[RLE]]) -> list[Prepared]:
        if len(images) != len(regions):
            raise ValueError(f"expected a list of regions for each of {len(images)} images, got {len(regions)}")
        return [self.prepare(image, of_image) for image, of_image in zip(images, regions, strict=True)]

    def _checked_codes(self, prepared: Sequence[Prepared], codes: Sequence[NDArray[np.integer]]) -> list[Codes]:
        if len(prepared) != len(codes):
            raise ValueError(f"expected codes for each of {len(prepared)} images, got {len(codes)}")
        checked = []
        for index, array in enumerate(codes):
            numbers = np.asarray(array)
            if numbers.ndim != 2 or numbers.shape[1] != self.config.depth or numbers.dtype.kind not in "iu":
                raise ValueError(
                    f"codes of image {index}: expected whole numbers of shape (n, {self.config.depth}), "
                    f"got {numbers.dtype} of shape {numbers.shape}"
                )
            wrong = numbers[(numbers < MISSING) | (numbers >= self.config.codebook_size)]
            if wrong.size:
                raise ValueError(
                    f"codes of image {index}: expected 0..{self.config.codebook_size - 1} or {MISSING}, got {wrong[0]}"
                )
            checked.append(numbers.astype(np.int64))  # a copy: the caller's array is never written to
        return checked

    @torch.inference_mode()
    def _run(
        self,
        prepared: Sequence[Prepared],
        counts: Sequence[int],
        step: _Step,
        empty: tuple[NDArray[Any], ...],
    ) -> tuple[list[Any], ...]:
        """Runs backbone and step over all masks, and sorts what comes out by image.

        Args:
            prepared: the images.
            counts: masks of each.
            step: gives arrays with one row for each mask that it is asked for.
            empty: these arrays for an image without masks.
        """
        rows: list[list[list[NDArray[Any]]]] = [[[] for _ in prepared] for _ in empty]
        for chunk in _batches([index for index, count in enumerate(counts) if count], self.image_batch):
            features = self._image_features([prepared[index] for index in chunk])
            pairs = [(index, mask) for index in chunk for mask in range(counts[index])]
            for chosen in _batches(pairs, self.mask_batch):
                owners_N = torch.tensor([chunk.index(image) for image, _ in chosen], device=self.device)
                for output, array in zip(rows, step(features, owners_N, chosen), strict=True):
                    for (image, _), row in zip(chosen, array, strict=True):
                        output[image].append(row)
        return tuple(
            [np.stack(of_image) if of_image else nothing.copy() for of_image in output]
            for output, nothing in zip(rows, empty, strict=True)
        )

    def _image_features(self, images: Sequence[Prepared]) -> ImageFeatures:
        pixels_BSS3 = torch.from_numpy(np.stack([image.pixels for image in images])).to(self.device)
        with self._arithmetic():
            return self.network.image_features(normalised(pixels_BSS3))

    def _embed_masks(
        self, images_NDEE: Tensor, prepared: Sequence[Prepared], chosen: Sequence[_Pair]
    ) -> tuple[Logits, Codes]:
        prompts_NPP = np.stack([prepared[image].prompts[mask] for image, mask in chosen])
        boxes_N4 = np.stack([prepared[image].boxes[mask] for image, mask in chosen])
        with self._arithmetic():
            z_ND = self.network.mask_embeddings(
                images_NDEE,
                torch.from_numpy(prompts_NPP).to(self.device).unsqueeze(1),
                torch.from_numpy(boxes_N4).to(self.device),
            )
        z_ND = z_ND.float()
        return z_ND.cpu().numpy(), self.quantizer.encode(z_ND).cpu().numpy()

    def _decode_masks(self, features: ImageFeatures, codes_NL: Codes) -> Logits:
        return self._decode_embeddings(features, self.quantizer.decode(torch.from_numpy(codes_NL).to(self.device)))

    def _decode_embeddings(self, features: ImageFeatures, embeddings_ND: Tensor) -> Logits:
        with self._arithmetic():
            logits_NPP = self.network.mask_logits(features, embeddings_ND)
        return logits_NPP.float().cpu().numpy()

    @torch.inference_mode()
    def cut(self, logits_NPP: Logits, size: tuple[int, int], threshold: float = LOGIT_THRESHOLD) -> NDArray[np.bool_]:
        """Logits resized to an image of (height, width), bilinear, corners not aligned, and cut: bool, (N, H, W)."""
        masks_NHW = np.empty((len(logits_NPP), *size), np.bool_)
        for index, logits_PP in enumerate(logits_NPP):  # one at a time: at full size they are large
            full_11HW = F.interpolate(
                torch.from_numpy(logits_PP).to(self.device)[None, None], size=size, mode="bilinear", align_corners=False
            )
            masks_NHW[index] = (full_11HW[0, 0] > threshold).cpu().numpy()
        return masks_NHW

    @contextmanager
    def _arithmetic(self) -> Iterator[None]:
        """The precision that was asked for, and the same numbers each time.

        torch lets cuDNN round the inputs of fp32 convolutions to TF32 and choose among algorithms; here neither.
        """
        half = self.precision == "bf16"
        cudnn = torch.backends.cudnn
        with (
            cudnn.flags(enabled=cudnn.enabled, benchmark=False, deterministic=True, allow_tf32=half),
            torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=half),
        ):
            yield


def _batches(items: Sequence[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])
