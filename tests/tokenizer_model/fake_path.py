"""Paths through the network for tests: one that counts, and two that break as a GPU may."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tokenizer_model.inputs import Prepared
from tokenizer_model.network import StillSam2
from tokenizer_model.paths import Pair, PassSizes, PlainPath


def out_of_memory() -> torch.OutOfMemoryError:
    """As torch raises it."""
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")


@dataclass
class FakePath:
    """A path whose embeddings name image and mask, in a memory of its own.

    Attributes:
        images: most images of one backbone pass.
        masks: most masks of one pass of mask encoder or decoder.
        tries: what was computed or tried: "images" or "masks", and how many.
        threads: that are in it.
    """

    images: int
    masks: int
    tries: list[tuple[str, int]] = field(default_factory=list)
    threads: int = 0

    def stage(self, images: Sequence[Prepared]) -> list[Prepared]:
        """The images."""
        return list(images)

    def features(self, staged: Sequence[Prepared]) -> Tensor:
        """Of each image its size."""
        self._take("images", len(staged))
        return torch.tensor([image.size for image in staged])

    def embeddings(self, staged: Sequence[Prepared], features: Tensor, chosen: Sequence[Pair]) -> Tensor:
        """Of each mask the size of its image, its number and its area."""
        self._take("masks", len(chosen))
        rows = [(*features[image].tolist(), mask, int(staged[image].pieces.areas[mask])) for image, mask in chosen]
        return torch.tensor(rows, dtype=torch.float32)

    def logits(self, features: Tensor, owners: Sequence[int], embeddings_ND: Tensor) -> Tensor:
        """Of each mask its image's size once more, and its area."""
        self._take("masks", len(owners))
        return torch.cat([features[list(owners)].float(), embeddings_ND[:, -1:]], dim=1)

    def ious(self, staged: Sequence[Prepared], chosen: Sequence[Pair], logits_NPP: Tensor, threshold: float) -> Tensor:
        """Of each mask its part of the image, by its logits and the image, plus the threshold."""
        pixels = [staged[image].size[0] * staged[image].size[1] for image, _ in chosen]
        return logits_NPP[:, -1].double() / torch.tensor(pixels) + threshold

    def _take(self, what: str, count: int) -> None:
        self.threads += 1
        assert self.threads == 1, "two threads compute at once"
        time.sleep(0.0005)  # others get their turn
        self.tries.append((what, count))
        fits = count <= getattr(self, what)
        self.threads -= 1
        if not fits:
            raise out_of_memory()


class NarrowPath(PlainPath):
    """The plain path in 32 bits on a GPU whose memory holds only so many images and masks."""

    def __init__(self, network: StillSam2, images: int, masks: int) -> None:
        super().__init__(network, "fp32")
        self.fits = (images, masks)

    def features(self, staged: Sequence[Prepared]) -> Any:
        """As the plain path."""
        if len(staged) > self.fits[0]:
            raise out_of_memory()
        return super().features(staged)

    def embeddings(self, staged: Sequence[Prepared], features: Any, chosen: Sequence[Pair]) -> Tensor:
        """As the plain path."""
        if len(chosen) > self.fits[1]:
            raise out_of_memory()
        return super().embeddings(staged, features, chosen)


class OverflowingPath(PlainPath):
    """The plain path in 32 bits, but embeddings of some images leave the range.

    Args:
        network: computes.
        sizes: (H, W) of the images of which one mask's embedding does.
        value: inf or nan.
    """

    def __init__(self, network: StillSam2, sizes: set[tuple[int, int]], value: float) -> None:
        super().__init__(network, "fp32")
        self.wrong, self.value = sizes, value

    def embeddings(self, staged: Sequence[Prepared], features: Any, chosen: Sequence[Pair]) -> Tensor:
        """As the plain path, plus 1, so that what comes from here shows; one number of an image's last mask wrong."""
        z_ND = super().embeddings(staged, features, chosen) + 1
        for place, (image, mask) in enumerate(chosen):
            if staged[image].size in self.wrong and mask == staged[image].num_masks - 1:
                z_ND[place, 5] = self.value
        return z_ND


class GivingLock:
    """A lock that whoever waits for it gets before the one that had it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_error: object) -> None:
        self._lock.release()
        time.sleep(0.05)


class MeetingPath(FakePath):
    """A fake path in which two threads have staged before either computes.

    Args:
        images: as ``FakePath``.
        masks: as ``FakePath``.
        sizes: of the passes; nothing larger may come than they say.
        is_late: one of the threads goes on once the other has found the memory too small, and has staged again.
    """

    def __init__(self, images: int, masks: int, sizes: PassSizes, *, is_late: bool) -> None:
        super().__init__(images, masks)
        self.sizes, self.is_late = sizes, is_late
        self._meeting, self._again = threading.Barrier(2), threading.Event()
        self._met: set[int] = set()

    def stage(self, images: Sequence[Prepared]) -> list[Prepared]:
        """The images, once the other thread is there."""
        if threading.get_ident() not in self._met:
            self._met.add(threading.get_ident())
            if self._meeting.wait(timeout=20) and self.is_late:
                assert self._again.wait(timeout=20)
        elif self.tries:
            self._again.set()
        return super().stage(images)

    def _take(self, what: str, count: int) -> None:
        assert count <= getattr(self.sizes, what), "more than there is room for"
        super()._take(what, count)
