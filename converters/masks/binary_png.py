"""One PNG file a mask, in one of two layouts, and images in a folder.

    images/<image>.jpg     any format that PIL reads
    masks/<image>/<any name>.png       a folder for each image (Data Science Bowl 2018), or
    masks/<image>_<name>.png           names that begin as the image's, up to the last underscore

Every pixel that is not 0 belongs to the mask.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from converters.files.listings import index_listing, list_folder, named_entry, picture_entries, read_listed, stem_of
from converters.files.unit_index import Entry, UnitRecord
from converters.masks.indexed_source import Found, IndexedSource, RegionList
from converters.masks.options import checked_count, find_folder
from samtok_data.errors import RecordError, SetupError
from samtok_data.label_maps import decode_binary_map
from samtok_data.masks import RLE, encode
from samtok_data.pictures import decode_picture, picture_size, read_file
from samtok_data.rejects import Reject
from samtok_data.storage import Folder

KIND = "binary-png"
_SUFFIX = (".png",)


def open_binary_png(
    root: Folder, index: str, *, name: str = KIND, images: str, masks: str, min_area: int = 1
) -> IndexedSource:
    """A source of binary PNG files; one unit is one image that has some.

    Args:
        root: folder of the source.
        index: local folder of the indexes.
        name: of the source.
        images: the folder of images under the root.
        masks: the folder of masks under the root.
        min_area: smaller masks, in pixels, are left out.

    Raises:
        SetupError: an option is wrong, a folder is not there, or the masks lie in neither layout.
    """
    area = checked_count("min_area", min_area, 1)
    pictures, pngs = find_folder(root, "images", images), find_folder(root, "masks", masks)
    digest, units = index_listing(KIND, index, partial(_entries, pictures, pngs))
    if not units.num_paired:
        raise SetupError(
            f"{root}: no mask under {masks} belongs to an image under {images}; expected {masks}/<image>/<name>.png or "
            f"{masks}/<image>_<name>.png"
        )
    settings = {"kind": KIND, "min_area": area, "names": digest}
    reader = BinaryPngReader(images=pictures, masks=pngs, min_area=area)
    return IndexedSource(name=name, settings=settings, index=units, reader=reader)


def _entries(images: Folder, pngs: Folder) -> Iterator[Entry]:
    yield from picture_entries(images)
    for listed in list_folder(pngs):
        if listed.is_folder:
            for inner in list_folder(pngs / listed.name):
                if not inner.is_folder and stem_of(inner.name, _SUFFIX) is not None:
                    yield named_entry("annotations", listed.name, f"{listed.name}/{inner.name}")
        elif (stem := stem_of(listed.name, _SUFFIX)) is not None:
            yield named_entry("annotations", stem.rpartition("_")[0], listed.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class BinaryPngReader:
    """Reads one image with its PNG files.

    Attributes:
        images: folder of the images.
        masks: folder of the masks.
        min_area: in pixels.
    """

    images: Folder
    masks: Folder
    min_area: int

    def name_of(self, record: UnitRecord) -> str:
        """The image's file name, or what its masks call it where it is missing."""
        return record.images[0] if record.images else str(record.key)

    def read(self, record: UnitRecord) -> Found:
        """The image with its masks, by the files' names; a broken file is one reject."""
        scene = str(record.key)
        files = sorted(record.annotations)
        try:
            name, data = read_listed(self.images, record)
            height, width = picture_size(data, name)
        except RecordError as error:
            yield Reject.of(error, scene, {"image": record.images, "masks": files})
            return
        found = RegionList(scene, self.min_area)
        for file in files:
            found.add(_region(file), {"mask": file}, partial(self._mask, file, height, width))
        yield from found.image(name, height, width, partial(decode_picture, data, name, height, width))

    def _mask(self, file: str, height: int, width: int) -> RLE:
        data = read_file(self.masks, file, missing="annotation-missing", kind="mask")
        return encode(decode_binary_map(data, file, height, width))


def _region(file: str) -> str:
    """What tells a mask from the others of its image: all of its name in a folder, the last part of it outside."""
    stem = posixpath.splitext(posixpath.basename(file))[0]
    return stem if "/" in file else stem.rpartition("_")[2]
