"""In which order images are trained on: a pure function of the seed, in state that fits on a postcard.

A step takes one image from each of as many lanes as it has images. A lane walks over units: for each draw it picks a
source by weight, and reads the next image of the unit that it has open there, or opens the source's next unit. All
lanes together visit the units of a source in a seeded permutation, and then in another. Lanes do not know of each
other, so any number of workers and loader processes reads the same sequence, each some of the lanes, and a lane's
state is a few numbers however large the sources are.
"""

from __future__ import annotations

import functools
import random
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from converters.masks.source import MaskedImage, MaskSource
from samtok_data.errors import RecordError, SetupError
from samtok_data.rejects import Reject
from samtok_data.scenes import Scene

Picture = TypeVar("Picture")

# A source is given up when so many units in a row held no image that could be used. A lane meets units of one
# permutation after another, so it may meet some twice before others: one usable unit among n is missed in 40 n draws
# with a chance of 1e-17.
MAX_EMPTY_UNITS = 10_000
_DRAWS_OF_A_UNIT = 40


@dataclass(slots=True)
class LaneState:
    """Where a lane stands.

    Attributes:
        draws: images that it has given.
        places: for each source by name, the units that it has left behind, and the images read of the open one.
    """

    draws: int = 0
    places: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def json(self) -> dict[str, Any]:
        """As JSON values."""
        return {"draws": self.draws, "places": {name: list(place) for name, place in self.places.items()}}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> LaneState:
        """Reads what ``json`` gives."""
        return cls(values["draws"], {name: (place[0], place[1]) for name, place in values["places"].items()})


@dataclass(frozen=True, slots=True)
class Draw(Generic[Picture]):
    """One image that a lane gives.

    Attributes:
        scene: its regions; at least one.
        picture: what opening it gave.
        key: seeds what is random about the example; never repeated in a run.
        rejects: what could not be used since the draw before; each once in a run.
    """

    scene: Scene
    picture: Picture
    key: str
    rejects: tuple[Reject, ...]

    @property
    def rng(self) -> random.Random:
        """Decides everything that is random about the example."""
        return random.Random(f"example/{self.key}")


class Lane(Generic[Picture]):
    """One endless sequence of images.

    Args:
        number: of the lane, in ``0 .. count - 1``.
        count: of all lanes.
        sources: with their weights.
        seed: of the run.
        state: where to go on; it is kept and changed.
        kept: units that stay decoded, shared by the lanes of a process.
        opening: opens an image of the source that is named; raises RecordError where that fails.
    """

    def __init__(
        self,
        number: int,
        count: int,
        sources: Sequence[tuple[MaskSource, float]],
        seed: int,
        state: LaneState,
        kept: UnitCache,
        opening: Callable[[str, MaskedImage], Picture],
    ) -> None:
        self.number, self.count, self.seed, self.state = number, count, seed, state
        self._opening = opening
        self._sources = [source for source, _ in sources]
        self._weights = [weight for _, weight in sources]
        self._kept = kept
        self._open: dict[str, Iterator[MaskedImage | Reject]] = {}

    def next(self) -> Draw[Picture]:
        """The next image.

        Raises:
            SetupError: a source has no image with masks; or the file system fails.
        """
        key = f"{self.seed}/{self.number}/{self.state.draws}"
        source = random.Random(f"source/{key}").choices(self._sources, self._weights)[0]
        rejects: list[Reject] = []
        scene, picture = self._read(source, rejects)
        self.state.draws += 1
        return Draw(scene, picture, key, tuple(rejects))

    def _read(self, source: MaskSource, rejects: list[Reject]) -> tuple[Scene, Picture]:
        empty = 0
        while empty < min(_DRAWS_OF_A_UNIT * source.num_units, MAX_EMPTY_UNITS) + 1:  # the open unit may be at its end
            left, offset = self.state.places.get(source.name, (0, 0))
            position = left * self.count + self.number
            is_first_visit = position < source.num_units
            for item in self._images(source, position, offset):
                offset += 1
                self.state.places[source.name] = (left, offset)
                opened = self._picture_of(item, source.name)
                if not isinstance(opened, Reject):
                    return opened
                if is_first_visit:
                    rejects.append(opened)
            self._open.pop(source.name, None)
            self.state.places[source.name] = (left + 1, 0)
            empty += 1
        raise SetupError(f"source {source.name}: no image with a usable mask in {empty:,} units in a row")

    def _picture_of(self, item: MaskedImage | Reject, source: str) -> tuple[Scene, Picture] | Reject:
        if isinstance(item, Reject):
            return item
        try:
            return item.scene, self._opening(source, item)
        except RecordError as error:
            return Reject.of(error, f"{source}/{item.scene.id}", {"image": item.scene.image})

    def _images(self, source: MaskSource, position: int, offset: int) -> Iterator[MaskedImage | Reject]:
        """The open unit's images from the offset on."""
        if source.name not in self._open:
            unit = unit_at(position, source.num_units, f"{self.seed}/{source.name}")
            images = iter(self._kept.read(source, unit))
            for _ in range(offset):  # a resumed run: these were trained on before
                next(images, None)
            self._open[source.name] = images
        return self._open[source.name]


def picture_of(_source: str, item: MaskedImage) -> Image.Image:
    """Opens an image as its source does; RGB."""
    return item.open()


class UnitCache:
    """Units that are small and come again soon, decoded: for sources of which a process can hold all pictures.

    Args:
        images: pictures that are kept at most; 0: none.
    """

    def __init__(self, images: int) -> None:
        self._room = images
        self._units: OrderedDict[tuple[str, int], list[MaskedImage | Reject]] = OrderedDict()

    def read(self, source: MaskSource, unit: int) -> Iterator[MaskedImage | Reject]:
        """As ``source.read``; from memory where the unit was read before."""
        if source.num_units > self._room:
            yield from source.read(unit)
            return
        key = (source.name, unit)
        if key not in self._units:
            self._units[key] = [_opened(item) for item in source.read(unit)]
            while len(self._units) > self._room:
                self._units.popitem(last=False)
        self._units.move_to_end(key)
        yield from self._units[key]


def unit_at(position: int, num_units: int, seed: str) -> int:
    """Which unit stands at a place of the endless sequence: one permutation of all units after another.

    Args:
        position: from 0 on.
        num_units: of the source.
        seed: of the permutations.
    """
    visit, place = divmod(position, num_units)
    return int(_permutation(num_units, f"{seed}/{visit}")[place])


@functools.lru_cache(maxsize=64)
def _permutation(length: int, seed: str) -> NDArray[np.uint32]:
    """4 bytes a unit: 44 MB for the 11 million images of SA-1B read from folders; its tars are a thousand units."""
    generator = np.random.Generator(np.random.Philox(random.Random(seed).getrandbits(128)))
    return generator.permutation(np.arange(length, dtype=np.uint32))


def _opened(item: MaskedImage | Reject) -> MaskedImage | Reject:
    """The same with its picture decoded, or with its error to come again."""
    if isinstance(item, Reject):
        return item
    try:
        picture = item.open()
    except RecordError:
        return item
    return MaskedImage(item.scene, lambda: picture)
