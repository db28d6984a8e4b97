"""Label maps, in PNG or .mat files, one an image: each label is a mask, or each connected region of a label.

``paths``: ``folders``, a list of ``{maps, images, prefix}``: maps are sampled by the source's ``first`` and ``step``
in each folder below ``maps``; the image lies at the same place below ``images``; the written name is the prefix and
the place, with underscores.

``options``: ``map_ending`` and ``image_ending`` (``_GT.mat``, ``.bmp``); ``variable`` of a .mat file; ``void``, labels
that are no mask; ``regions``, the smallest connected region in pixels (without it, a label is one mask); ``whole``:
all that is not void is one mask more; ``min_masks``: images with fewer are left out.
"""

from __future__ import annotations

import io
import posixpath
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from recipes.small.prepare.collection import Found, open_image
from recipes.small.prepare.matlab import components, read_mat
from recipes.small.prepare.repositories import Repository
from recipes.small.prepare.table import Part, Source
from samtok_data.masks import Mask


def find_label_maps(source: Source, part: Part, repository: Repository) -> Iterator[Found]:
    """The sampled maps that have an image."""
    endings = source.options["map_ending"], source.options["image_ending"]
    for folder in part.paths["folders"]:
        groups = defaultdict(list)
        for path in repository.below(folder["maps"], endings[0]):
            groups[posixpath.dirname(path)].append(path)
        for group in groups.values():
            for path in group[source.first :: source.step]:
                place = path[len(folder["maps"]) + 1 :].removesuffix(endings[0])
                image = f"{folder['images']}/{place}{endings[1]}"
                if image in repository.files:
                    name = folder.get("prefix", "") + place.replace("/", "_") + ".jpg"
                    yield Found(name, partial(_read, source.options, repository, image, path))


def _read(
    options: Mapping[str, Any], repository: Repository, image_path: str, map_path: str
) -> tuple[Image.Image, list[Mask]]:
    image = open_image(repository.read(image_path))
    labels = _labels(repository.read(map_path), options.get("variable"))
    if labels.shape != (image.height, image.width):
        return image, []
    drawn = _masks(labels, options)
    return image, drawn if len(drawn) >= options.get("min_masks", 1) else []


def _labels(data: bytes, variable: str | None) -> NDArray[Any]:
    if variable is not None:
        return read_mat(data)[variable]
    labels = np.asarray(Image.open(io.BytesIO(data)))
    return labels if labels.ndim == 2 else labels[..., 0]


def _masks(labels: NDArray[Any], options: Mapping[str, Any]) -> list[Mask]:
    void = tuple(options["void"])
    if "regions" in options:
        found = components(labels, void, options["regions"])
    else:
        found = [labels == value for value in np.unique(labels) if value not in void]
    if options.get("whole"):
        found.append(~np.isin(labels, void))
    return found
