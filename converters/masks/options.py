"""Options of mask sources, checked: each message names the option and what it takes."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal, TypeVar, get_args

from samtok_data.errors import SetupError
from samtok_data.storage import ARCHIVES, Folder, is_contained, raising_os_errors

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")

Choice = TypeVar("Choice", bound=str)
Treatment = Literal["keep", "skip"]
"""What becomes of masks of one sort."""


def checked_name(name: Any) -> str:
    """A source's name: lower-case ASCII letters, digits and single hyphens.

    Raises:
        SetupError: it is something else.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise SetupError(f"name: expected lower-case letters, digits and hyphens, got {name!r}")
    return name


def checked_count(option: str, value: Any, least: int) -> int:
    """A whole number.

    Raises:
        SetupError: it is something else or below ``least``.
    """
    if type(value) is not int or value < least:
        raise SetupError(f"{option}: expected a whole number from {least} on, got {value!r}")
    return value


def checked_limit(option: str, value: Any) -> int | None:
    """A whole number from 1 on, or None: no limit.

    Raises:
        SetupError: it is something else.
    """
    if value is not None and (type(value) is not int or value < 1):
        raise SetupError(f"{option}: expected a whole number from 1 on, or null for no limit, got {value!r}")
    return value


def checked_treatment(option: str, value: Any) -> Treatment:
    """``keep`` or ``skip``.

    Raises:
        SetupError: it is neither.
    """
    return checked_choice(option, value, get_args(Treatment))


def checked_choice(option: str, value: Any, choices: Sequence[Choice]) -> Choice:
    """One of a few words.

    Raises:
        SetupError: it is none of them.
    """
    for choice in choices:
        if value == choice:
            return choice
    raise SetupError(f"{option}: expected {' or '.join(choices)}, got {value!r}")


def checked_words(option: str, value: Any) -> tuple[str, ...]:
    """A list of texts; it may be empty.

    Raises:
        SetupError: it is something else.
    """
    if not isinstance(value, list | tuple) or not all(isinstance(word, str) for word in value):
        raise SetupError(f"{option}: expected a list of texts, got {value!r}")
    return tuple(value)


def checked_file(option: str, value: Any) -> str:
    """The name of a file or folder under the root.

    Raises:
        SetupError: it is no text, or leads out of the root.
    """
    if not isinstance(value, str) or not is_contained(value):
        raise SetupError(f"{option}: expected a name under the root, got {value!r}")
    return value


def open_root(address: str) -> Folder:
    """The folder of a source, which may be a zip or tar, or lie in one.

    Raises:
        SetupError: it is not there, or the archive is damaged.
    """
    archive, inside = split_archive(address)
    folder = Folder(address)
    if archive:
        above, name = posixpath.split(archive)
        if not is_folder(folder):
            folder = Folder(above or ".").archive(name)
            folder = folder / inside if inside else folder
    require_root(folder)
    return folder


def find_folder(root: Folder, option: str, value: Any) -> Folder:
    """A folder under the root, or the root itself, which is called ``.``.

    Where there is no folder ``images/train``, the zip or tar ``images/train.zip`` or ``images.zip`` takes its place.

    Args:
        root: of the source.
        option: that names it, for messages.
        value: what the option is; ``images.zip`` and ``images.zip/train`` lead into a zip or tar.

    Raises:
        SetupError: the root or the folder is not there, or the archive is damaged.
    """
    require_root(root)
    if value == ".":
        return root
    name = checked_file(option, value)
    archive, inside = split_archive(name)
    if archive:
        opened = root.archive(archive)
        return find_folder(opened, option, inside) if inside else opened
    found = folder_at(root, name)
    if found is None:
        raise SetupError(f"{root}: no folder {name}; name another one with the option {option}")
    return found


def first_folder(root: Folder, option: str, value: Any, places: Sequence[str]) -> Folder:
    """The folder that an option names, or else the first one that is there.

    Args:
        root: of the source.
        option: that names it.
        value: what the option is; None: the places are looked at, packed ones as well.
        places: under the root, in the order in which they are looked at.

    Raises:
        SetupError: there is none, or an archive is damaged.
    """
    if value is not None:
        return find_folder(root, option, value)
    require_root(root)
    for place in places:
        found = root if place == "." else folder_at(root, place)
        if found is not None:
            return found
    raise SetupError(f"{root}: none of the folders {', '.join(places)}; name the folder with the option {option}")


def first_file(root: Folder, option: str, value: Any, places: Sequence[str]) -> str:
    """The file that an option names, or else the first one that is there.

    Args:
        root: of the source.
        option: that names it.
        value: what the option is; None: the places are looked at.
        places: under the root, in the order in which they are looked at.

    Raises:
        SetupError: the option is no name under the root; there is none of the files.
    """
    if value is not None:
        return checked_file(option, value)
    require_root(root)
    for place in places:
        if is_file(root, place):
            return place
    raise SetupError(f"{root}: none of the files {', '.join(places)}; name the file with the option {option}")


def folder_at(root: Folder, name: str) -> Folder | None:
    """A folder under the root, or what stands for it in a zip or tar; None where there is neither.

    Raises:
        SetupError: the archive is damaged.
    """
    if is_folder(root / name):
        return root / name
    for archive, inside in packings(name.rstrip("/").split("/")):
        if not root.is_archive and is_file(root, archive):
            opened = root.archive(archive)
            for place in inside:
                found = opened / place if place else opened
                if is_folder(found):
                    return found
    return None


def packings(parts: Sequence[str]) -> Iterator[tuple[str, tuple[str, str]]]:
    """Archives that can hold a folder, and the places in them: most hold one folder of their own name."""
    for end in range(len(parts), 0, -1):
        for ending in ARCHIVES:
            yield "/".join(parts[:end]) + ending, ("/".join(parts[end - 1 :]), "/".join(parts[end:]))


def split_archive(name: str) -> tuple[str, str]:
    """The archive that a name leads into, and the place in it: ``a/b.zip/c`` gives ``a/b.zip`` and ``c``.

    Returns:
        Both empty where no part ends as an archive does.
    """
    parts = name.rstrip("/").split("/")
    for place, part in enumerate(parts, start=1):
        if part.lower().endswith(ARCHIVES):
            return "/".join(parts[:place]), "/".join(parts[place:])
    return "", ""


def require_root(root: Folder) -> None:
    """Refuses a root that is not there.

    Raises:
        SetupError: it is not there, or cannot be asked.
    """
    if not is_folder(root):
        raise SetupError(f"{root}: no such folder; name the source's folder with root")


def is_folder(folder: Folder) -> bool:
    """Whether a folder is there.

    Raises:
        SetupError: the file system cannot be asked.
    """
    try:
        return raising_os_errors(folder.fs.isdir)(folder.path)
    except OSError as error:
        raise SetupError(f"{folder}: cannot be read: {error}") from error


def is_file(folder: Folder, name: str) -> bool:
    """Whether a file is there.

    Raises:
        SetupError: the file system cannot be asked.
    """
    try:
        return raising_os_errors(folder.fs.isfile)(folder.at(name))
    except OSError as error:
        raise SetupError(f"{folder}/{name}: cannot be read: {error}") from error
