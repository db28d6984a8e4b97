"""Whether what a dataset wants is there. Folders may hold millions of files: nothing is listed to its end for it."""

from __future__ import annotations

import itertools
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from converters.files.listings import Listed, list_folder
from converters.masks.options import is_folder, packings
from samtok_data.storage import Folder

# Of one place: names that are looked at, and folders that are listed. Wanted files lie together, so that one is soon
# met where there are some.
MAX_NAMES = 10_000
MAX_FOLDERS = 100
_ANY_DEPTH = "**"


@dataclass(frozen=True, slots=True)
class Sighting:
    """What a look at the places of a file or folder gave.

    Attributes:
        place: where it was found: one of the places, or an archive that packs it; None: it was not.
        is_sure: False where it was not found and a folder holds more names than are looked at.
    """

    place: str | None
    is_sure: bool = True


def sight(root: Folder, places: Sequence[str], *, packed: bool = False) -> Sighting:
    """The first of some places at which there is something.

    On a local disk listings end at the first match; an object store gives the listing of a folder whole.

    Args:
        root: that the places are relative to.
        places: names or shell patterns; ``**`` stands for any number of folders.
        packed: whether a zip or tar may stand for a folder, as ``mask_options.folder_at`` says. It is not opened.

    Raises:
        SetupError: a folder cannot be read.
    """
    is_sure = True
    for place in places:
        look = _Look()
        if look.finds(root, place.split("/")):
            return Sighting(place)
        is_sure &= not look.is_over
        archive = _archive_of(root, place) if packed else None
        if archive is not None:
            return Sighting(archive)
    return Sighting(None, is_sure)


class _Look:
    """A search for one pattern, which gives up when it has seen enough."""

    def __init__(self) -> None:
        self.num_names = self.num_folders = 0
        self.is_over = False

    def finds(self, folder: Folder, parts: list[str]) -> bool:
        """Whether something below a folder has such a name."""
        first, rest = parts[0], parts[1:]
        if not _is_pattern(first):
            fixed = _before_patterns(parts)
            rest = parts[len(fixed) :]
            name = "/".join(fixed)
            return folder.exists(name) and (not rest or self.finds(folder / name, rest))
        if first == _ANY_DEPTH and self.finds(folder, rest):
            return True
        below = parts if first == _ANY_DEPTH else rest
        pattern = "*" if first == _ANY_DEPTH else first
        for listed in self._names(folder):
            if fnmatchcase(listed.name, pattern) and self._fits(folder, listed, below):
                return True
        return False

    def _fits(self, folder: Folder, listed: Listed, below: list[str]) -> bool:
        return not below or (listed.is_folder and self.finds(folder / listed.name, below))

    def _names(self, folder: Folder) -> Iterator[Listed]:
        self.num_folders += 1
        if self.num_folders > MAX_FOLDERS:
            self.is_over = True
        if self.is_over or not is_folder(folder):
            return
        for listed in list_folder(folder):
            self.num_names += 1
            if self.is_over or self.num_names > MAX_NAMES:
                self.is_over = True
                return
            yield listed


def _before_patterns(parts: list[str]) -> list[str]:
    return list(itertools.takewhile(lambda part: not _is_pattern(part), parts))


def _is_pattern(part: str) -> bool:
    return any(sign in part for sign in "*?[")


def _archive_of(root: Folder, place: str) -> str | None:
    """The archive that may pack the folder of a place."""
    parts = place.split("/")
    if not any(map(_is_pattern, parts)) and posixpath.splitext(place)[1]:
        return None  # a file, and no folder
    folder = _before_patterns(parts)
    if root.is_archive or not folder:
        return None
    return next((archive for archive, _ in packings(folder) if root.exists(archive)), None)
