"""Made-up mask sources: units of so many images, each image known by its colour and its name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from converters.masks.source import MaskedImage
from samtok_data import masks
from samtok_data.errors import RecordError
from samtok_data.rejects import Reject
from samtok_data.scenes import Region, Scene

SIDE = 32


@dataclass(frozen=True)
class MadeUpSource:
    """A source in memory; it can be pickled.

    Attributes:
        name: of the source.
        units: images of each unit.
        broken: names of images whose masks cannot be read: they come as rejects.
        missing: names of images that cannot be opened.
    """

    name: str
    units: Sequence[int]
    broken: frozenset[str] = frozenset()
    missing: frozenset[str] = frozenset()
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def num_units(self) -> int:
        return len(self.units)

    def unit_name(self, unit: int) -> str:
        return f"{self.name}-{unit}"

    def names(self) -> list[str]:
        """Every image that can be used."""
        every = [f"{self.name}-{unit}-{place}" for unit, count in enumerate(self.units) for place in range(count)]
        return [name for name in every if name not in self.broken | self.missing]

    def read(self, unit: int) -> Iterator[MaskedImage | Reject]:
        for place in range(self.units[unit]):
            name = f"{self.name}-{unit}-{place}"
            if name in self.broken:
                yield Reject.of(RecordError("mask-invalid", "a made-up fault"), f"{self.name}/{name}", {"image": name})
                continue
            mask_HW = np.zeros((SIDE, SIDE), np.bool_)
            mask_HW[2 + place % 8 : 20, 3 + unit % 8 : 25] = True
            scene = Scene(name, name, SIDE, SIDE, (Region("0", masks.encode(mask_HW)),), ())
            yield MaskedImage(scene, partial(_picture, name, (unit, place), is_missing=name in self.missing))


def _picture(name: str, place: tuple[int, int], *, is_missing: bool) -> Image.Image:
    if is_missing:
        raise RecordError("image-missing", f"{name}: no such file")
    return Image.new("RGB", (SIDE, SIDE), (place[0] * 7 % 256, place[1] * 11 % 256, 99))
