"""The mask tokenizer: masks on images to codes, and codes on images to masks.

Letters: B images of one backbone pass, N masks of one pass, n_i masks of image i, L levels, D channels,
S side of the network's image, P = S / 4 side of mask prompts and logits, H and W of an image as it came.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from samtok_data.errors import SetupError
from samtok_data.masks import RLE
from samtok_data.words import MISSING, MaskVocabulary
from tokenizer_model.config import Precision, TokenizerConfig
from tokenizer_model.identity import TokenizerIdentity, untrained_warning
from tokenizer_model.inputs import Prepared, checked_codes
from tokenizer_model.network import SamtokModel, StillSam2
from tokenizer_model.passes import MaskPass, Step, by_image, run_passes
from tokenizer_model.paths import NetworkPath, PassSizes, PlainPath
from tokenizer_model.quantizers import Quantizer, build_quantizer

logger = logging.getLogger(__name__)

LOGIT_THRESHOLD = 0.5
"""A pixel belongs to a decoded mask where its logit is above this.

The published scripts cut logits at 0.5, which is a probability of 0.62; SAM's own threshold is the logit 0.
Kept so that masks match the published ones.
"""

IMAGE_BATCH = 4
MASK_BATCH = 32
FAST_IMAGE_BATCH = 8
FAST_MASK_BATCH = 256

Codes = NDArray[np.int64]
Logits = NDArray[np.float32]
IoUs = NDArray[np.float64]


class MaskTokenizer(nn.Module):
    """SAMTok: mask encoder, quantiser and mask decoder around one image backbone.

    What a call returns depends on its arguments and the two batch sizes, never on timing. Methods may be called in
    several threads at once.

    Args:
        config: the architecture. Weights are torch's initial ones until some are loaded.
        identity: what was loaded; None: nothing was.
        image_batch: most images of one backbone pass.
        mask_batch: most masks of one pass of mask encoder or decoder; those of several images go together.
        precision: ``fp32``; ``bf16`` for autocast as the published runs had it; ``fp16``, whose codes are closer to
            those of ``fp32``. Quantisation is always fp32.

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
        if precision not in get_args(Precision):
            raise ValueError(f"precision must be one of {', '.join(get_args(Precision))}, got {precision!r}")
        self.config = config
        self.identity = identity or TokenizerIdentity(
            name="unnamed", address="", sha256="", config=config, trained=False, warning=untrained_warning("unnamed")
        )
        self.sizes = PassSizes(image_batch, mask_batch)
        self._fast: NetworkPath | None = None
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

    @property
    def path(self) -> NetworkPath:
        """The way in which the network is computed."""
        return self._fast or PlainPath(self.network, self.precision)

    @property
    def resizes(self) -> bool:
        """Whether the network's device resizes images, so that ``prepare`` leaves them as they are."""
        return self._fast is not None

    def use_fast_path(self) -> None:
        """Computes in 16 bits by ``tokenizer_model.fast`` from now on. The weights and the device must be settled.

        Without a GPU, in fp32, or with an architecture that it does not support, nothing changes.

        Raises:
            SetupError: triton is missing.
        """
        if self.precision == "fp32" or self.device.type != "cuda":
            return
        try:
            from tokenizer_model.fast.path import FastPath, unsupported
        except ImportError as error:
            raise SetupError(
                f"precision {self.precision} needs triton, which torch brings for GPUs on Linux ({error}): "
                "install it, or take fp32"
            ) from error
        reason = unsupported(self.network)
        kind = torch.float16 if self.precision == "fp16" else torch.bfloat16
        path = None if reason else FastPath(self.network, kind, self.sizes)
        reason = reason or (path and path.compile_kernels())
        if reason:
            logger.warning("This tokenizer runs by torch's own modules, which is slower: %s.", reason)
        else:
            self._fast = path

    def prepare(self, image: Image.Image, regions: Sequence[RLE] = ()) -> Prepared:
        """The part of the work that needs no network; can run in other threads, ahead of it.

        Args:
            image: of any size and mode; read as RGB.
            regions: masks of the image's size with at least one foreground pixel.

        Raises:
            ValueError: a mask of another size than the image, or without foreground.
        """
        return Prepared.of(image, regions, self.config, is_whole=self.resizes)

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

        def step(masks: MaskPass) -> tuple[Tensor, ...]:
            z_ND = masks.embeddings()
            return z_ND, self._codes(z_ND)

        z, codes = self._of_masks(prepared, step, (self._no_embeddings, self._no_codes))
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
        checked = checked_codes(codes, len(prepared), self.config)

        def step(masks: MaskPass) -> tuple[Tensor, ...]:
            codes_NL = np.concatenate([checked[image][found.start : found.stop] for image, found, _ in masks.spans()])
            return (masks.logits(self.quantizer.decode(torch.from_numpy(codes_NL).to(self.device))),)

        return self._run(prepared, [len(one) for one in checked], step, (self._no_logits,))[0]

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

        def step(masks: MaskPass) -> tuple[Tensor, ...]:
            codes_NL = self._codes(masks.embeddings())
            return codes_NL, masks.logits(self._vectors(codes_NL))

        codes, logits = self._of_masks(prepared, step, (self._no_codes, self._no_logits))
        return codes, [self.cut(one, image.size, threshold) for one, image in zip(logits, prepared, strict=True)]

    def measure_prepared(
        self, prepared: Sequence[Prepared], threshold: float = LOGIT_THRESHOLD
    ) -> tuple[list[Codes], list[IoUs]]:
        """The codes of masks, and how well they give the masks back. No decoded mask leaves the device.

        Args:
            prepared: as for ``encode_prepared``.
            threshold: as ``decode``.

        Returns:
            For each image the codes, int64, (n_i, L), and the IoU of each mask with what its codes decode to at the
            image's size, float64, (n_i,), 0 to 1.
        """

        def step(masks: MaskPass) -> tuple[Tensor, ...]:
            codes_NL = self._codes(masks.embeddings())
            return codes_NL, masks.ious(masks.logits(self._vectors(codes_NL)), threshold)

        codes, ious = self._of_masks(prepared, step, (self._no_codes, np.empty(0)))
        return codes, ious

    def reconstruct_logits(self, prepared: Sequence[Prepared]) -> tuple[list[Codes], list[Logits], list[Logits]]:
        """What ``reconstruct_prepared`` cuts, and what would be decoded if nothing were quantised; for measuring.

        Returns:
            For each image the codes, int64, (n_i, L); the logits that they decode to, float32, (n_i, P, P); and
            the logits of the embeddings themselves, of the same shape. All on one backbone pass.
        """

        def step(masks: MaskPass) -> tuple[Tensor, ...]:
            z_ND = masks.embeddings()
            codes_NL = self._codes(z_ND)
            return codes_NL, masks.logits(self._vectors(codes_NL)), masks.logits(z_ND)

        codes, logits, unquantised = self._of_masks(prepared, step, (self._no_codes, self._no_logits, self._no_logits))
        return codes, logits, unquantised

    @property
    def _no_embeddings(self) -> Logits:
        """Embeddings of an image without masks; the following likewise."""
        return np.empty((0, self.config.hidden_size), np.float32)

    @property
    def _no_codes(self) -> Codes:
        return np.empty((0, self.config.depth), np.int64)

    @property
    def _no_logits(self) -> Logits:
        return np.empty((0, self.config.logit_side, self.config.logit_side), np.float32)

    def _prepare_all(self, images: Sequence[Image.Image], regions: Sequence[Sequence[RLE]]) -> list[Prepared]:
        if len(images) != len(regions):
            raise ValueError(f"expected a list of regions for each of {len(images)} images, got {len(regions)}")
        return [self.prepare(image, of_image) for image, of_image in zip(images, regions, strict=True)]

    def _of_masks(self, prepared: Sequence[Prepared], step: Step, empty: tuple[NDArray[Any], ...]) -> list[list[Any]]:
        """What a step gives of all masks, codes among it. Images that 16-bit numbers do not hold are computed in fp32.

        Raises:
            SetupError: the weights give embeddings that are no numbers in fp32, either.
        """
        found = self._run(prepared, [one.num_masks for one in prepared], step, empty)
        codes = next(output for output, nothing in zip(found, empty, strict=True) if nothing.dtype == np.int64)
        wrong = [index for index, codes_nL in enumerate(codes) if (codes_nL == MISSING).any()]
        if wrong and self.precision != "fp32":
            logger.warning("%d images exceed the range of %s and were computed in fp32.", len(wrong), self.precision)
            some = [prepared[index] for index in wrong]
            again = self._run(some, [one.num_masks for one in some], step, empty, in_fp32=True)
            for output, better in zip(found, again, strict=True):
                for index, array in zip(wrong, better, strict=True):
                    output[index] = array
            wrong = [index for index in wrong if (codes[index] == MISSING).any()]
        if wrong:
            raise SetupError(f"tokenizer {self.identity.name}: its weights give embeddings that are no numbers")
        return found

    @torch.inference_mode()
    def _run(
        self,
        prepared: Sequence[Prepared],
        counts: Sequence[int],
        step: Step,
        empty: tuple[NDArray[Any], ...],
        *,
        in_fp32: bool = False,
    ) -> list[list[Any]]:
        """What a step gives, by image.

        Args:
            prepared: the images.
            counts: masks of each.
            step: gives tensors with one row for each mask of a pass.
            empty: these as arrays, for an image without masks.
            in_fp32: by torch's own modules, whatever the precision.
        """
        if not any(counts):
            return [[nothing.copy() for _ in prepared] for nothing in empty]
        path, sizes = self.path, self.sizes
        if in_fp32:
            path, sizes = PlainPath(self.network, "fp32"), PassSizes(IMAGE_BATCH, MASK_BATCH)
        # Triton launches on the thread's own GPU.
        with torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext():
            return [by_image(array, counts) for array in run_passes(path, sizes, prepared, counts, step)]

    def _codes(self, z_ND: Tensor) -> Tensor:
        codes_NL = self.quantizer.encode(z_ND)
        return codes_NL.masked_fill(~z_ND.isfinite().all(dim=1, keepdim=True), MISSING)

    def _vectors(self, codes_NL: Tensor) -> Tensor:
        return self.quantizer.decode(codes_NL)

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
