"""r-IoU on a fixed set of images during training, and a sheet of reconstructions to look at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from PIL import Image

from converters.masks.source import MaskedImage, MaskSource
from pipelines.evaluation.measure import OpenImage, Reconstruction, measure
from pipelines.training.lanes import unit_at
from pipelines.training.sheets import SheetRow, reconstruction_sheet
from samtok_data import masks
from samtok_data.errors import RecordError, SetupError
from tokenizer_model.tokenizer import MaskTokenizer

SHEET_IMAGES = 4  # of each source
SHEET_MASKS = 3  # of each of these images


@dataclass(frozen=True, slots=True)
class Validation:
    """A fixed set of images with their masks, in memory.

    Attributes:
        images: of all sources.
    """

    images: tuple[OpenImage, ...]

    @classmethod
    def of(cls, sources: Sequence[MaskSource], images: int, seed: int) -> Validation:
        """Draws images of each source.

        Args:
            sources: of the set.
            images: of each source; all where it has fewer.
            seed: of the draw.

        Raises:
            SetupError: a source has no image that can be used.
        """
        found: list[OpenImage] = []
        for source in sources:
            mine = list(_drawn(source, images, seed))
            if not mine:
                raise _unusable(source)
            found += mine
        return cls(tuple(found))

    def measure(self, model: MaskTokenizer, *, sheet_title: str | None) -> tuple[dict[str, float], Image.Image | None]:
        """The figures for the log, and a sheet where a title is given. The model keeps its mode."""
        rows: list[SheetRow] = []
        shown: dict[str, int] = {}

        def observe(reconstruction: Reconstruction) -> None:
            source = reconstruction.image.source
            shown[source] = shown.get(source, 0) + 1
            if shown[source] <= SHEET_IMAGES:
                rows.extend(_rows(reconstruction, model))

        was_training = model.training
        model.eval()
        measurement = measure(model, self.images, observe=None if sheet_title is None else observe)
        model.train(was_training)
        names = measurement.sources
        figures = {
            "r_iou": measurement.mean(),
            "r_iou_at_0": measurement.mean("r_iou_at_0"),
            "r_iou_unquantised": measurement.mean("unquantised"),
            **{f"r_iou/{name}": measurement.mean(source=name) for name in names},
        }
        known = {name: value for name, value in figures.items() if value is not None}
        return known, reconstruction_sheet(rows, title=sheet_title) if sheet_title is not None else None


def require_images(sources: Iterable[MaskSource]) -> None:
    """Refuses a source without an image that can be used; reads one of each.

    Raises:
        SetupError: names the source.
    """
    for source in sources:
        if not any(True for _ in _drawn(source, 1, 0)):
            raise _unusable(source)


def _unusable(source: MaskSource) -> SetupError:
    return SetupError(f"source {source.name}: none of its {source.num_units:,} units has an image with a usable mask")


def _drawn(source: MaskSource, images: int, seed: int) -> Iterator[OpenImage]:
    count = 0
    for position in range(source.num_units):
        for item in source.read(unit_at(position, source.num_units, f"validation/{seed}/{source.name}")):
            if count == images:
                return
            if not isinstance(item, MaskedImage):
                continue  # measured and listed by eval-tokenizer; here a fixed set is all that is wanted
            try:
                picture = item.open()
            except RecordError:
                continue
            regions = tuple((region.id, region.rle) for region in item.scene.regions)
            yield OpenImage(source.name, item.scene.id, picture, regions)
            count += 1


def _rows(reconstruction: Reconstruction, model: MaskTokenizer) -> list[SheetRow]:
    """A few masks of an image, evenly chosen among them."""
    image, measured = reconstruction.image, reconstruction.measured
    step = max(1, len(image.regions) // SHEET_MASKS)
    chosen = range(0, len(image.regions), step)[:SHEET_MASKS]
    size = (image.picture.height, image.picture.width)
    decoded_nHW = model.cut(reconstruction.logits_nPP[list(chosen)], size)
    return [
        SheetRow(
            picture=image.picture,
            mask_HW=masks.decode(image.regions[place][1]),
            decoded_HW=decoded_HW,
            source=image.source,
            iou=float(measured.ious["r_iou"][place]),
            word=model.vocabulary.format(measured.codes_nL[place].tolist()),
        )
        for place, decoded_HW in zip(chosen, decoded_nHW, strict=True)
    ]
