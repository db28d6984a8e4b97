"""Batches from images that lie on the device: read once by the loader processes, then no file is opened any more."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from converters.masks.source import MaskedImage, MaskSource
from pipelines.training.lanes import Lane, LaneState, UnitCache
from pipelines.training.loader import Batch, end_with_parent, process_context
from samtok_data.errors import RecordError, SetupError
from samtok_data.rejects import Reject
from samtok_data.scenes import Scene
from tokenizer_model.training.recipe import Recipe
from tokenizer_model.training.resident import ResidentSet, StoredImage

logger = logging.getLogger(__name__)

GIB = 2**30


@dataclass(frozen=True, slots=True)
class _ReadImage:
    source: str
    scene: Scene
    stored: StoredImage


class _Units(Dataset["list[_ReadImage | Reject]"]):
    """Every unit of every source, decoded."""

    def __init__(self, sources: Sequence[MaskSource]) -> None:
        self._sources = list(sources)
        self._units = [(place, unit) for place, source in enumerate(sources) for unit in range(source.num_units)]

    def __len__(self) -> int:
        return len(self._units)

    def __getitem__(self, index: int) -> list[_ReadImage | Reject]:
        place, unit = self._units[index]
        source = self._sources[place]
        return [_read(source.name, item) for item in source.read(unit)]


class Residence:
    """All images of some sources, on a device.

    Args:
        sources: every image of which is read.
        recipe: of the run.
        device: where they are kept.
        gib: that they may take there.
        processes: that read them.

    Raises:
        SetupError: they take more.
    """

    def __init__(
        self,
        sources: Sequence[tuple[MaskSource, float]],
        recipe: Recipe,
        device: torch.device,
        *,
        gib: float,
        processes: int,
    ) -> None:
        self._recipe = recipe
        loader = DataLoader(
            _Units([source for source, _ in sources]),
            batch_size=None,
            num_workers=processes,
            worker_init_fn=_begin_process,
            multiprocessing_context=process_context() if processes else None,
        )
        read: list[_ReadImage] = []
        self.rejects: list[Reject] = []
        for unit in loader:
            read += [item for item in unit if isinstance(item, _ReadImage)]
            self.rejects += [item for item in unit if isinstance(item, Reject)]
        self._sources = [(_Listed(source.name, read), weight) for source, weight in sources]
        self._places = {(item.source, item.scene.id): place for place, item in enumerate(read)}
        stored = [item.stored for item in read]
        needed = ResidentSet.num_bytes(stored) / GIB
        if needed > gib:
            raise SetupError(
                f"the images take {needed:.1f} GiB on the device, {gib:g} are allowed: raise resident_gib, "
                "or set it to 0 to read them anew for each step"
            )
        self._set = ResidentSet(stored, recipe.config, device)
        logger.info("%d images with %d masks lie on %s: %.1f GiB", len(read), self._set.first_masks[-1], device, needed)

    def batches(self, lanes: Sequence[int], states: Mapping[int, LaneState]) -> Iterator[Batch]:
        """Batches of some lanes without end, as ``loader.batches`` gives them."""
        recipe, kept = self._recipe, UnitCache(0)
        running = [
            Lane(
                number,
                recipe.images_per_step,
                self._sources,
                recipe.seed,
                states.get(number, LaneState()),
                kept,
                lambda source, item: self._places[source, item.scene.id],
            )
            for number in lanes
        ]
        rejects = tuple(self.rejects)  # all at once: what cannot be used is known before the first step
        while True:
            draws = [lane.next() for lane in running]
            examples = self._set.examples(
                [draw.picture for draw in draws],
                [draw.rng for draw in draws],
                masks_per_image=recipe.masks_per_image,
                augmentation=recipe.augmentation,
            )
            after = {lane.number: LaneState.from_json(lane.state.json) for lane in running}
            yield Batch(examples, tuple(draw.scene.image for draw in draws), after, rejects)
            rejects = ()


def _begin_process(_number: int) -> None:
    torch.set_num_threads(1)
    end_with_parent()


class _Listed:
    """A source of which all units are known: those that hold an image, one each, without their masks."""

    def __init__(self, name: str, read: Sequence[_ReadImage]) -> None:
        self.name = name
        self._scenes = [item.scene for item in read if item.source == name]
        self.settings: Mapping[str, Any] = {}
        if not self._scenes:
            raise SetupError(f"source {name}: no image with a usable mask")

    @property
    def num_units(self) -> int:
        """Images."""
        return len(self._scenes)

    def unit_name(self, unit: int) -> str:
        """The image's name."""
        return self._scenes[unit].image

    def read(self, unit: int) -> Iterator[MaskedImage | Reject]:
        """The one image of the unit; it is not opened again."""
        yield MaskedImage(self._scenes[unit], _not_opened)


def _read(source: str, item: MaskedImage | Reject) -> _ReadImage | Reject:
    if isinstance(item, Reject):
        return item
    try:
        stored = StoredImage.of(item.open(), [region.rle for region in item.scene.regions])
    except RecordError as error:
        return Reject.of(error, f"{source}/{item.scene.id}", {"image": item.scene.image})
    scene = Scene(item.scene.id, item.scene.image, item.scene.height, item.scene.width, (), ())
    return _ReadImage(source, scene, stored)


def _not_opened() -> Image.Image:
    raise AssertionError("an image on the device is never opened again")
