"""A folder of images whose sub-folders may be packed, each in an archive of its own, as in COCO's train2017.zip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from converters.masks.options import find_folder, folder_at
from samtok_data.errors import SetupError
from samtok_data.pictures import read_picture
from samtok_data.storage import Folder, is_contained


@dataclass(frozen=True, slots=True)
class ImageFolders:
    """Where the images of a source lie. Can be pickled.

    Attributes:
        whole: the folder of all of them.
        parts: sub-folders by name, and where each is.
    """

    whole: Folder
    parts: tuple[tuple[str, Folder], ...]

    def read(self, name: str, height: int, width: int) -> Image.Image:
        """As ``read_picture``.

        Args:
            name: in the folder of all images, ``train2017/000000000009.jpg``.
            height: rows that the masks are drawn on.
            width: columns.

        Raises:
            RecordError: one of ``IMAGE_REASONS``.
            SetupError: the file system itself fails.
        """
        folder, inside = self.at(name)
        return read_picture(folder, inside, height, width)

    def at(self, name: str) -> tuple[Folder, str]:
        """The folder that a file lies in, and its name there.

        Args:
            name: in the folder of all images.
        """
        for part, folder in self.parts:
            inside = name.removeprefix(f"{part}/")
            if inside != name and is_contained(inside):
                return folder, inside
        return self.whole, name


def image_folders(whole: Folder, names: Sequence[str]) -> ImageFolders:
    """Looks for sub-folders, packed or not.

    Args:
        whole: the folder of all images.
        names: of the sub-folders that the source is published with; none of them has to be there.

    Raises:
        SetupError: an archive is damaged.
    """
    found = ((name, folder_at(whole, name)) for name in names)
    return ImageFolders(whole, tuple((name, folder) for name, folder in found if folder is not None))


COCO_PARTS = ("train2017", "val2017")


def coco_folders(root: Folder, images: Any) -> ImageFolders:
    """COCO's images of 2017, under names such as ``train2017/000000000009.jpg``.

    Args:
        root: of the source.
        images: the option of this name, the folder that holds train2017 or val2017; None: the root, images, coco and
            coco/images are looked at.

    Raises:
        SetupError: neither train2017 nor val2017 is there, or an archive is damaged.
    """
    if images is not None:
        wholes = [find_folder(root, "images", images)]
    else:
        wholes = [root, *(folder_at(root, place) for place in ("images", "coco", "coco/images"))]
    for whole in wholes:
        found = None if whole is None else image_folders(whole, COCO_PARTS)
        if found and found.parts:
            return found
    where = "it, images, coco and coco/images hold" if images is None else f"{images} holds"
    raise SetupError(
        f"{root}: {where} neither train2017 nor val2017; name the folder above them with the option images"
    )
