"""Images and masks in passes that fit the GPU: batches, the lock around it, and what happens when memory runs out.

Letters: N masks of one pass, D channels, P side of the logits.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from samtok_data.errors import SetupError
from tokenizer_model.inputs import Prepared
from tokenizer_model.paths import NetworkPath, Pair, PassSizes, spans

logger = logging.getLogger(__name__)

TOO_LITTLE_MEMORY = (
    "The GPU's memory does not hold one image with one mask: other programs may fill it; else take a smaller tokenizer "
    "or a GPU with more memory"
)

Item = TypeVar("Item")
_Which = Literal["images", "masks"]

# The GPU works in the order of the calls; and the switches of torch that a path sets are the process's.
_LAUNCHING = threading.Lock()


@dataclass(frozen=True, slots=True)
class MaskPass:
    """Some masks of some images, in one pass of mask encoder or decoder.

    Attributes:
        path: computes.
        staged: the images of one backbone pass.
        features: of these.
        images: the numbers, in the whole call, of the images of this pass.
        chosen: the masks of the pass: number of the image among these, number of the mask in it.
    """

    path: NetworkPath
    staged: Any
    features: Any
    images: Sequence[int]
    chosen: Sequence[Pair]

    def embeddings(self) -> Tensor:
        """Mask embeddings before quantisation, float32, (N, D)."""
        return self.path.embeddings(self.staged, self.features, self.chosen)

    def logits(self, embeddings_ND: Tensor) -> Tensor:
        """The decoder's logits of embeddings, float32, (N, P, P)."""
        return self.path.logits(self.features, [image for image, _ in self.chosen], embeddings_ND)

    def ious(self, logits_NPP: Tensor, threshold: float) -> Tensor:
        """The IoU of each mask with its logits, resized to the image and cut: float64, (N,)."""
        return self.path.ious(self.staged, self.chosen, logits_NPP, threshold)

    def spans(self) -> Iterator[tuple[int, range, slice]]:
        """The masks of the pass by image: number of the image in the call, its masks, their places in the pass."""
        for image, masks, place in spans(self.chosen):
            yield self.images[image], masks, place


# What is wanted of a pass: tensors with one row for each of its masks.
Step = Callable[[MaskPass], tuple[Tensor, ...]]


def run_passes(
    path: NetworkPath, sizes: PassSizes, prepared: Sequence[Prepared], counts: Sequence[int], step: Step
) -> tuple[NDArray[Any], ...]:
    """Runs backbone and step over all masks of some images.

    Where the GPU's memory is too small, the batch is halved for good, which is said once, and the call begins again.

    Args:
        path: computes.
        sizes: of the passes; may become smaller.
        prepared: the images; one without masks costs nothing.
        counts: masks of each, one at least in all.
        step: what is wanted of each pass.

    Returns:
        The step's arrays, with a row for each mask, in the order of images and masks.

    Raises:
        SetupError: the memory does not even hold one image and one mask.
    """
    while True:
        place, tried = _Place(), replace(sizes)
        try:
            found = _run(path, sizes, tried, prepared, counts, step, place)
            if found is not None:
                return found
            continue
        except torch.OutOfMemoryError:
            pass  # the error's frames hold tensors until the block is left
        with _LAUNCHING:
            if sizes == tried:  # else another thread has halved them
                _halve(sizes, place.which)


@dataclass
class _Place:
    """What was being computed."""

    which: _Which = "images"


def _run(
    path: NetworkPath,
    sizes: PassSizes,
    tried: PassSizes,
    prepared: Sequence[Prepared],
    counts: Sequence[int],
    step: Step,
    place: _Place,
) -> tuple[NDArray[Any], ...] | None:
    """One try; None where another thread has made the sizes smaller since they were read."""
    chunks = list(batches([index for index, count in enumerate(counts) if count], tried.images))
    staged = [path.stage([prepared[index] for index in chunk]) for chunk in chunks]
    found: list[tuple[Tensor, ...]] = []
    with _LAUNCHING:
        if sizes != tried:
            return None
        for chunk, images in zip(chunks, staged, strict=True):
            place.which = "images"
            features = path.features(images)
            place.which = "masks"
            pairs = [(number, mask) for number, index in enumerate(chunk) for mask in range(counts[index])]
            found += [step(MaskPass(path, images, features, chunk, chosen)) for chosen in batches(pairs, sizes.masks)]
        fetched = [_Fetched(torch.cat(parts)) for parts in zip(*found, strict=True)]
    return tuple(one.array() for one in fetched)


class _Fetched:
    """A tensor on its way from the GPU, which others may use meanwhile."""

    def __init__(self, tensor: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        self._tensor = tensor
        if tensor.is_cuda:
            self._tensor = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._tensor.copy_(tensor, non_blocking=True)
            self._event = torch.cuda.Event(blocking=True)
            self._event.record()

    def array(self) -> NDArray[Any]:
        """Its values, once they are there."""
        if self._event is not None:
            self._event.synchronize()
        return self._tensor.numpy()


def _halve(sizes: PassSizes, which: _Which) -> None:
    if getattr(sizes, which) == 1:
        which = "masks" if which == "images" else "images"
    size = getattr(sizes, which)
    if size == 1:
        raise SetupError(TOO_LITTLE_MEMORY)
    setattr(sizes, which, size // 2)
    torch.cuda.empty_cache()
    logger.warning(
        "The GPU's memory is too small for %d %s at once: going on with %d. Nothing is lost; a few words in a thousand "
        "may differ from those of a larger GPU.",
        size,
        which,
        size // 2,
    )


def batches(items: Sequence[Item], size: int) -> Iterator[list[Item]]:
    """Items in lists of so many; the last may have fewer."""
    for start in range(0, len(items), size):
        yield list(items[start : start + size])


def by_image(array: NDArray[Any], counts: Sequence[int]) -> list[NDArray[Any]]:
    """Rows of all masks as an array for each image."""
    return [part.copy() for part in np.split(array, np.cumsum(counts)[:-1])] if counts else []
