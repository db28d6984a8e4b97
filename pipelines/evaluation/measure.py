"""Measures a tokenizer on opened images, as a stream: reconstructs their masks and holds them against the true ones.

Letters: n masks of an image, L levels, P side of logits, H and W of an image, V measured variants.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pipelines.evaluation.measurement import MeasuredImage, Measurement
from pipelines.evaluation.resizing import HALF, Grid, mask_tensor, overlaps, shrunk
from pipelines.images import ahead
from samtok_data.masks import RLE
from samtok_data.words import MaskVocabulary

LOGIT_THRESHOLDS = (0.5, 0.0)
"""The published cut, which is a probability of 0.62, and SAM's own."""
CEILING_SIDE = 256

THREADS = 4
IMAGES_AHEAD = 8
# Constant, as in units.py: with the batch the last bits change.
IMAGES_PER_BATCH = 4


class Reconstructing(Protocol):
    """What measuring needs of ``tokenizer_model.MaskTokenizer``."""

    @property
    def vocabulary(self) -> MaskVocabulary:
        """The spelling of its words."""
        ...

    @property
    def device(self) -> torch.device:
        """Where it computes; the masks are compared there too."""
        ...

    def prepare(self, image: Image.Image, regions: Sequence[RLE]) -> Any:
        """The part of the work that needs no network; called in threads. Has the masks' grids as ``prompts``."""
        ...

    def reconstruct_logits(
        self, prepared: Sequence[Any]
    ) -> tuple[Sequence[NDArray[np.int64]], Sequence[Grid], Sequence[Grid]]:
        """Of each image codes (n, L), logits (n, P, P) of the codes, and logits before quantisation."""
        ...


class Shapes(Protocol):
    """What measuring needs of an image-blind codebook."""

    def reconstruct(self, grid_PP: Grid) -> tuple[NDArray[np.int64], Grid]:
        """Codes (L,) and decoded grid of a mask on its own grid."""
        ...

    @property
    def side(self) -> int:
        """P of its grids."""
        ...


@dataclass(frozen=True, slots=True)
class OpenImage:
    """An image in memory with its masks.

    Attributes:
        source: name of the source that it is of.
        id: of the image in its source.
        picture: RGB, of the masks' size.
        regions: id and mask of each; not empty, of the picture's size.
    """

    source: str
    id: str
    picture: Image.Image
    regions: tuple[tuple[str, RLE], ...]


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """What became of the masks of one image.

    Attributes:
        image: that was measured.
        measured: its figures.
        logits_nPP: float32, decoded from the codes.
        shape_codes_nL: the image-blind codebook's codes; None: none was measured.
    """

    image: OpenImage
    measured: MeasuredImage
    logits_nPP: Grid
    shape_codes_nL: NDArray[np.int64] | None


@dataclass(frozen=True, slots=True)
class _Ready:
    """An image up to the network."""

    image: OpenImage
    prepared: Any


@dataclass(frozen=True, slots=True)
class _Row:
    """One mask: its IoUs by variant, and its word in the image-blind codebook."""

    ious: dict[str, float]
    shape_codes_L: NDArray[np.int64] | None


def measure(
    tokenizer: Reconstructing,
    images: Iterable[OpenImage],
    *,
    shapes: Shapes | None = None,
    observe: Callable[[Reconstruction], None] | None = None,
) -> Measurement:
    """All figures of a tokenizer on images. Only a few of these are in memory at a time.

    A trainer calls it on a fixed set of images; ``measure(...).mean()`` is the published r-IoU.

    Args:
        tokenizer: in evaluation mode.
        images: taken one after the other; those without masks cost nothing.
        shapes: also measure this image-blind codebook on the same masks.
        observe: is shown every image, in order.

    Raises:
        ValueError: a mask is empty or of another size than its image.
    """
    measurement = Measurement(tokenizer.vocabulary.codebook_size, tokenizer.vocabulary.depth)
    for reconstruction in reconstructions(tokenizer, images, shapes=shapes):
        measurement.add(reconstruction.measured)
        if observe is not None:
            observe(reconstruction)
    return measurement


def reconstructions(
    tokenizer: Reconstructing, images: Iterable[OpenImage], *, shapes: Shapes | None = None
) -> Iterator[Reconstruction]:
    """``measure``, image by image; arguments and errors as there."""
    prepare = partial(_prepare, tokenizer=tokenizer)
    batch: list[_Ready] = []
    for ready in ahead(prepare, images, threads=THREADS, limit=IMAGES_AHEAD):
        batch.append(ready)
        if len(batch) == IMAGES_PER_BATCH:
            yield from _reconstruct(tokenizer, batch, shapes)
            batch = []
    yield from _reconstruct(tokenizer, batch, shapes)


def _prepare(image: OpenImage, tokenizer: Reconstructing) -> _Ready:
    return _Ready(image, tokenizer.prepare(image.picture, [rle for _, rle in image.regions]))


def _reconstruct(tokenizer: Reconstructing, batch: Sequence[_Ready], shapes: Shapes | None) -> Iterator[Reconstruction]:
    if not batch:
        return
    found = tokenizer.reconstruct_logits([ready.prepared for ready in batch])
    for ready, codes_nL, logits_nPP, unquantised_nPP in zip(batch, *found, strict=True):
        rles = tuple(rle for _, rle in ready.image.regions)
        grids = zip(rles, logits_nPP, unquantised_nPP, ready.prepared.prompts, strict=True)
        rows = [_measured(*of_mask, shapes, tokenizer.device) for of_mask in grids]
        ious = {variant: np.array([row.ious[variant] for row in rows]) for variant in (rows[0].ious if rows else ())}
        measured = MeasuredImage(ready.image.source, rles, codes_nL, ious)
        words = [row.shape_codes_L for row in rows if row.shape_codes_L is not None]
        yield Reconstruction(ready.image, measured, logits_nPP, np.stack(words) if words else None)


@torch.inference_mode()
def _measured(
    rle: RLE, logits_PP: Grid, unquantised_PP: Grid, prompt_PP: Grid, shapes: Shapes | None, device: torch.device
) -> _Row:
    """One mask at full size, where masks are large: never all those of an image together."""
    true_HW = mask_tensor(rle, device)
    ceiling_PP = torch.from_numpy(prompt_PP).to(device)
    cuts: list[tuple[tuple[str, ...], Tensor, tuple[float, ...]]] = [
        (("r_iou", "r_iou_at_0"), torch.from_numpy(logits_PP).to(device), LOGIT_THRESHOLDS),
        (("unquantised", "unquantised_at_0"), torch.from_numpy(unquantised_PP).to(device), LOGIT_THRESHOLDS),
        (("ceiling_256",), ceiling_PP if len(ceiling_PP) == CEILING_SIDE else shrunk(true_HW, CEILING_SIDE), (HALF,)),
        (("ceiling_own",), ceiling_PP, (HALF,)),
    ]
    shape_codes_L = None
    if shapes is not None:
        shape_codes_L, decoded_PP = shapes.reconstruct(shrunk(true_HW, shapes.side).cpu().numpy())
        cuts.append((("baseline",), torch.from_numpy(decoded_PP).to(device), (HALF,)))
    counts_V2 = torch.cat([overlaps(true_HW, grid_PP, thresholds) for _, grid_PP, thresholds in cuts]).tolist()
    names = [name for variants, _, _ in cuts for name in variants]
    # Whole numbers; no union is empty, as no true mask is.
    return _Row({name: common / united for name, (common, united) in zip(names, counts_V2, strict=True)}, shape_codes_L)
