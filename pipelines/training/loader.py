"""Examples for one worker: its lanes, read by loader processes ahead of the GPU."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from converters.masks.source import MaskSource
from pipelines.training.lanes import Lane, LaneState, UnitCache, picture_of
from samtok_data.errors import SetupError
from samtok_data.rejects import Reject
from tokenizer_model.training.examples import Examples, example_of
from tokenizer_model.training.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Batch:
    """One worker's part of a step, or one loader process's part of that.

    Attributes:
        examples: one image of each lane, in the lanes' order.
        images: what messages call each image.
        lanes: state of each lane after this batch, by number.
        rejects: what could not be used on the way here.
    """

    examples: Examples
    images: tuple[str, ...]
    lanes: Mapping[int, LaneState]
    rejects: tuple[Reject, ...]

    def pin_memory(self) -> Batch:
        """The same with tensors from which a GPU copies while others compute."""
        return Batch(self.examples.pin_memory(), self.images, self.lanes, self.rejects)

    def to(self, device: torch.device) -> Batch:
        """The same with tensors on a device."""
        return Batch(self.examples.to(device), self.images, self.lanes, self.rejects)

    @classmethod
    def joined(cls, parts: Sequence[Batch]) -> Batch:
        """Several as one, in order."""
        return cls(
            Examples.joined([part.examples for part in parts]),
            tuple(name for part in parts for name in part.images),
            {number: state for part in parts for number, state in part.lanes.items()},
            tuple(reject for part in parts for reject in part.rejects),
        )


class LaneDataset(IterableDataset["Batch | SetupError"]):
    """An endless sequence of batches of some lanes; each loader process reads its share of them.

    Args:
        sources: with weights.
        recipe: seed, examples and their number a step.
        lanes: the lanes' numbers, ascending.
        states: where each goes on; those not named begin.
        kept_images: pictures that each process keeps decoded.
    """

    def __init__(
        self,
        sources: Sequence[tuple[MaskSource, float]],
        recipe: Recipe,
        *,
        lanes: Sequence[int],
        states: Mapping[int, LaneState],
        kept_images: int,
    ) -> None:
        super().__init__()
        self._sources, self._recipe, self._lanes, self._kept_images = list(sources), recipe, list(lanes), kept_images
        self._states = {number: states[number].json for number in lanes if number in states}

    def __iter__(self) -> Iterator[Batch | SetupError]:
        """A batch for each step, without end; or the error that ends it, as a value, so that its sentence arrives."""
        worker = get_worker_info()
        mine = self._lanes
        if worker is not None:
            torch.set_num_threads(1)
            end_with_parent()
            mine = [int(lane) for lane in np.array_split(self._lanes, worker.num_workers)[worker.id]]
        kept, recipe = UnitCache(self._kept_images), self._recipe
        lanes = [
            Lane(
                number,
                recipe.images_per_step,
                self._sources,
                recipe.seed,
                LaneState.from_json(self._states.get(number, LaneState().json)),
                kept,
                picture_of,
            )
            for number in mine
        ]
        try:
            while True:
                yield self._batch(lanes)
        except SetupError as error:
            yield error

    def _batch(self, lanes: Sequence[Lane[Image.Image]]) -> Batch:
        examples, names, rejects = [], [], []
        for lane in lanes:
            draw = lane.next()
            examples.append(
                example_of(
                    draw.picture,
                    [region.rle for region in draw.scene.regions],
                    self._recipe.config,
                    masks_per_image=self._recipe.masks_per_image,
                    augmentation=self._recipe.augmentation,
                    rng=draw.rng,
                )
            )
            names.append(draw.scene.image)
            rejects += draw.rejects
        states = {lane.number: LaneState.from_json(lane.state.json) for lane in lanes}
        return Batch(Examples.joined(examples), tuple(names), states, tuple(rejects))


def process_context() -> Any:
    """How loader processes are made: from a server that has loaded all that they need, and holds no GPU."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def end_with_parent() -> None:
    """Ends this loader process when the one that it reads for is gone, however that ended.

    torch watches the parent process, which here is the server that processes are made from; it would outlive a
    trainer that is killed, and the loaders with it.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent,), daemon=True).start()


def _exit_after(parent: Any) -> None:
    parent.join()
    os._exit(1)


def batches(
    dataset: LaneDataset, *, lanes: int, processes: int, device: torch.device, ahead: int = 3
) -> Iterator[Batch]:
    """A worker's batches, one a step, the same on any number of loader processes.

    Args:
        dataset: of the worker's lanes.
        lanes: how many these are.
        processes: that read them; 0: this one reads.
        device: where the tensors go.
        ahead: steps that each process reads before they are asked for.

    Raises:
        SetupError: a source has no usable mask, or cannot be read any more.
    """
    processes = min(processes, lanes, os.cpu_count() or 1)
    loader = DataLoader(
        dataset,
        batch_size=None,
        num_workers=processes,
        pin_memory=device.type == "cuda",
        prefetch_factor=ahead if processes else None,
        multiprocessing_context=process_context() if processes else None,
        persistent_workers=False,
    )
    parts: list[Batch] = []
    for part in loader:  # the processes take turns, so a step is as many parts in a row as there are processes
        if isinstance(part, SetupError):
            raise part
        parts.append(part.to(device))
        if len(parts) == max(1, processes):
            yield Batch.joined(parts)
            parts = []
