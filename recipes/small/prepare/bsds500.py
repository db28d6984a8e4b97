"""BSDS500: photographs as they are; every annotator's segmentation from .mat to an 8-bit label map.

``paths``: ``images`` and ``maps``, folders with one folder a split. Of the test split only the first annotator's map
is kept: it is what ``small`` is measured on.
"""

from __future__ import annotations

import posixpath

from recipes.small.prepare.collection import Collection, open_image
from recipes.small.prepare.matlab import read_mat
from recipes.small.prepare.repositories import Repository
from recipes.small.prepare.table import Part, Source
from samtok_data.errors import SetupError

SPLITS = ("train", "val", "test")
_TEST = "test"


def read_bsds500(source: Source, part: Part, repository: Repository) -> Collection:
    """images/<split>/<id>.jpg and segments/<split>/<id>_a<k>.png, annotators from 1, segments from 1."""
    collection = Collection(source.folder)
    for split in SPLITS:
        for path in repository.below(f"{part.paths['images']}/{split}", ".jpg"):
            data = repository.read(path)
            name = f"images/{split}/{posixpath.basename(path)}"
            collection.add_image(name, data, open_image(data), is_test=split == _TEST)
        for path in repository.below(f"{part.paths['maps']}/{split}", ".mat"):
            _add_maps(collection, repository, path, split)
    return collection


def _add_maps(collection: Collection, repository: Repository, path: str, split: str) -> None:
    stem = posixpath.splitext(posixpath.basename(path))[0]
    annotators = read_mat(repository.read(path))["groundTruth"][0]
    for number, annotator in enumerate(annotators[:1] if split == _TEST else annotators, start=1):
        labels = annotator["Segmentation"][0, 0]
        if labels.min() < 1 or labels.max() > 255:
            raise SetupError(f"{path}: annotator {number}: expected 1..255, got {labels.min()}..{labels.max()}")
        collection.add_labels(f"segments/{split}/{stem}_a{number}.png", labels)
