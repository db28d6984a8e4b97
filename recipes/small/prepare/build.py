"""All sources, built in memory, checked for leaks, and only then written."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from recipes.small.prepare.bsds500 import read_bsds500
from recipes.small.prepare.coco import find_coco, read_polygons
from recipes.small.prepare.collection import Collection, Found, Instances
from recipes.small.prepare.label_maps import find_label_maps
from recipes.small.prepare.repositories import Repository, open_repository
from recipes.small.prepare.table import Part, Source
from recipes.small.prepare.via import find_via
from recipes.small.prepare.yolo import read_yolo
from samtok_data.errors import SetupError
from samtok_data.storage import TEMPORARY, Folder

Reader = Callable[[Source, Part, Repository], Collection]
Finder = Callable[[Source, Part, Repository], Iterator[Found]]

# Kinds that keep the files of their one repository, and kinds whose images become COCO instances.
READERS: dict[str, Reader] = {"bsds500": read_bsds500, "yolo": read_yolo, "coco-polygons": read_polygons}
FINDERS: dict[str, Finder] = {"coco": find_coco, "label-maps": find_label_maps, "via": find_via}


def build_source(source: Source, repositories: Path, taken: Iterable[Collection] = ()) -> Collection:
    """One source.

    Args:
        source: of the table.
        repositories: folder of the clones.
        taken: finished sources whose images, by name, are not taken again.

    Raises:
        SetupError: the kind is unknown, or a repository cannot be read.
    """
    reader, finder = READERS.get(source.kind), FINDERS.get(source.kind)
    if reader is not None:
        with open_repository(repositories, source.parts[0]) as repository:
            return reader(source, source.parts[0], repository)
    if finder is None:
        raise SetupError(f"{source.name}: kind: expected one of {', '.join(READERS | FINDERS)}, got {source.kind!r}")
    left_out = {image.stem for collection in taken for image in collection.seen}
    instances = Instances(source)
    for part in source.parts:
        with open_repository(repositories, part) as repository:
            _add_part(instances, finder(source, part, repository), part.most, left_out)
    return instances.finished()


def _add_part(instances: Instances, found: Iterable[Found], most: int | None, left_out: set[str]) -> None:
    num_added = 0
    for each in found:
        if num_added == most:
            return
        if posixpath.splitext(each.name)[0] not in left_out:
            num_added += instances.add(each)


def check_free(out: Folder, sources: Iterable[Source], *, overwrite: bool) -> None:
    """Files of an earlier run would be read as well, so a source's folder must not be there yet.

    Raises:
        SetupError: it is, and is not to be overwritten.
    """
    there = [source.folder for source in sources if out.exists(source.folder)]
    if there and not overwrite:
        raise SetupError(f"{out}: {', '.join(there)}: already there; remove it or add --overwrite")


def write_collections(out: Folder, collections: Iterable[Collection]) -> None:
    """Writes every file whole or not at all, in place of what lay in the sources' folders."""
    for collection in collections:
        out.remove(collection.folder)
        for name, data in collection.files.items():
            out.write(posixpath.join(collection.folder, name), data)
    out.remove(TEMPORARY)
