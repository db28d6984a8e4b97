"""A mask source whose units are single images, found through an index on disk; and what such readers share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from PIL import Image

from converters.files.unit_index import UnitIndex, UnitRecord, is_key
from converters.masks.sampling import drawn
from converters.masks.source import MaskedImage
from samtok_data import masks
from samtok_data.errors import RecordError
from samtok_data.masks import RLE
from samtok_data.rejects import Reject
from samtok_data.scenes import Region, Scene

Found = Iterator[MaskedImage | Reject]


class UnitReader(Protocol):
    """Reads one row of an index. A small value that can be pickled."""

    def name_of(self, record: UnitRecord) -> str:
        """What messages call the row: the image's name."""
        ...

    def read(self, record: UnitRecord) -> Found:
        """The row's image with its masks, and what could not be read of it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexedSource:
    """A MaskSource of single images.

    Attributes:
        name: as ``MaskSource`` says.
        settings: as ``MaskSource`` says.
        index: one row a unit.
        reader: of a row.
    """

    name: str
    settings: Mapping[str, Any]
    index: UnitIndex
    reader: UnitReader

    @property
    def num_units(self) -> int:
        """Rows of the index."""
        return self.index.num_units

    def unit_name(self, unit: int) -> str:
        """The image's name."""
        return self.reader.name_of(self.index.read(unit))

    @property
    def listing(self) -> None:
        """The rows are fixed."""
        return None

    def records(self, units: range) -> list[Any]:
        """The rows, not parsed: a driver that reads them for many actors would do little else."""
        return [list(row) for row in self.index.read_rows(units)]

    def read_record(self, record: Any) -> Found:
        """The image of a row, unless it has no mask, and what could not be read."""
        yield from self.reader.read(UnitRecord.of_row(record))

    def read(self, unit: int) -> Found:
        """The image of a unit, unless it has no mask, and what could not be read."""
        yield from self.reader.read(self.index.read(unit))


@dataclass(slots=True)
class RegionList:
    """Gathers the masks of one image.

    Attributes:
        scene: id of the image's scene; the rejects' keys begin with it.
        min_area: smaller masks, in pixels, are left out.
        masks_per_image: at most so many are taken of it, drawn at random; None: all.
        seed: of the draw.
        regions: the masks so far.
        rejects: what was none.
    """

    scene: str
    min_area: int
    masks_per_image: int | None = None
    seed: int = 0
    regions: list[Region] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    _ids: set[str] = field(default_factory=set)

    def add(self, region: str, record: Any, read: Callable[[], RLE]) -> None:
        """Adds a mask, or a reject where it cannot be read, is empty, or has the id of an earlier one.

        Args:
            region: its id.
            record: what finds it in the source.
            read: gives the mask; may raise RecordError.
        """
        try:
            self._require_new(region)
            rle = read()
            self._take(region, rle, masks.area(rle))
        except RecordError as error:
            self.reject(region, record, error)

    def add_annotations(
        self, annotations: Sequence[Any], where: Mapping[str, Any], height: int, width: int, *, crowds: bool = True
    ) -> None:
        """Adds the masks of COCO's annotations, all at once; one that is broken is a reject.

        Args:
            annotations: as a JSON parser returned them: objects with ``id`` and ``segmentation``.
            where: what finds them in the source, for rejects.
            height: rows of the image.
            width: columns.
            crowds: whether those with ``iscrowd`` are masks.
        """
        chosen = [(place, one) for place, one in enumerate(annotations) if crowds or not _is_crowd(one)]
        fields = [one.get("segmentation") if isinstance(one, Mapping) else None for _, one in chosen]
        read = masks.read_segmentations(fields, height, width)
        for (place, annotation), mask in zip(chosen, read, strict=True):
            record = {**where, "annotation": annotation}
            if not isinstance(annotation, Mapping) or not is_key(annotation.get("id")):
                message = f"annotation: expected an object with an id, got {annotation!r:.100}"
                self.reject(f"annotation-{place}", record, RecordError("record-invalid", message))
                continue
            region = str(annotation["id"])
            try:
                self._require_new(region)
                if "segmentation" not in annotation:
                    raise RecordError("record-invalid", "annotation: expected a segmentation, got none")
                if isinstance(mask, RecordError):
                    raise mask
                self._take(region, *mask)
            except RecordError as error:
                self.reject(region, record, error)

    def _require_new(self, region: str) -> None:
        if region in self._ids:
            raise RecordError("record-duplicate", f"{region}: a second mask of this id")
        self._ids.add(region)

    def _take(self, region: str, rle: RLE, area: int) -> None:
        if not area:
            raise RecordError("mask-empty", f"{region}: no foreground pixel")
        if area >= self.min_area:
            self.regions.append(Region(region, rle))

    def reject(self, region: str, record: Any, error: RecordError) -> None:
        """Adds a reject for one mask."""
        self.rejects.append(Reject.of(error, f"{self.scene}/{region}", record))

    def image(
        self, name: str, height: int, width: int, opened: Callable[[], Image.Image], *, archive: str | None = None
    ) -> Found:
        """The rejects, and the image with the masks that were drawn, unless it has none.

        Args:
            name: of the image.
            height: rows that the masks are drawn on.
            width: columns.
            opened: see ``MaskedImage.open``.
            archive: see ``MaskedImage.archive``.
        """
        yield from self.rejects
        chosen = drawn(self.regions, self.masks_per_image, seed=self.seed, key=self.scene)
        if chosen:
            yield MaskedImage(Scene(self.scene, name, height, width, tuple(chosen), ()), opened, archive)


def _is_crowd(annotation: Any) -> bool:
    """Whether it is a sound annotation of a crowd; one that is not is to be rejected."""
    if not isinstance(annotation, Mapping) or not is_key(annotation.get("id")):
        return False
    return bool(annotation.get("iscrowd"))
