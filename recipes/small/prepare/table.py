"""The table of sources, ``sources.toml``: read and checked."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from samtok_data.errors import SetupError

SOURCES = Path(__file__).with_name("sources.toml")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_REPOSITORY = re.compile(r"[A-Za-z0-9-]+/[A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What a source takes from one repository.

    Attributes:
        repository: ``owner/name`` on GitHub.
        commit: 40 hexadecimal digits.
        licence: as the repository states it.
        paths: where its files lie; which keys, the reader of the source's kind says.
        most: images at most, or None.
    """

    repository: str
    commit: str
    licence: str
    paths: Mapping[str, Any]
    most: int | None = None

    def __post_init__(self) -> None:
        if not _REPOSITORY.fullmatch(self.repository):
            raise SetupError(f"sources: repository: expected owner/name, got {self.repository!r}")
        if not _COMMIT.fullmatch(self.commit):
            raise SetupError(f"sources: {self.repository}: commit: expected 40 hex digits, got {self.commit!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One source.

    Attributes:
        name: of the source.
        folder: under the output folder.
        kind: which reader, see ``build.READERS``.
        images: how many there were in the training of ``small``.
        masks: as images; of label maps the maps are counted.
        sha256: of the masks that ``small`` saw, see ``Collection.digest``.
        parts: the repositories, in the order in which they are read.
        longest_side: images are made smaller to it; None: taken as they are.
        jpeg_quality: of images that are written anew.
        first: sampling: the first file that is taken, from 0.
        step: every ``step``-th file after it.
        leave_out: sources whose images, by name, are not taken again.
        options: of the kind.
    """

    name: str
    folder: str
    kind: str
    images: int
    masks: int
    sha256: str
    parts: tuple[Part, ...]
    longest_side: int | None = None
    jpeg_quality: int = 88
    first: int = 0
    step: int = 1
    leave_out: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.parts:
            raise SetupError(f"sources: {self.name}: no repository")


def read_sources(path: Path = SOURCES) -> tuple[Source, ...]:
    """The sources, in the table's order.

    Raises:
        SetupError: a field is unknown or missing, a name occurs twice, or a source leaves out a later one.
    """
    sources: dict[str, Source] = {}
    for row in tomllib.loads(path.read_text("utf-8"))["source"]:
        parts = tuple(_row(Part, part, path) for part in row.pop("part", ()))
        source = _row(Source, {**row, "parts": parts, "leave_out": tuple(row.get("leave_out", ()))}, path)
        unknown = [name for name in source.leave_out if name not in sources]
        if source.name in sources or unknown:
            raise SetupError(f"{path.name}: {source.name}: listed twice, or leaves out what stands below: {unknown}")
        sources[source.name] = source
    return tuple(sources.values())


def _row(kind: type[Any], row: Mapping[str, Any], path: Path) -> Any:
    known = {each.name for each in fields(kind)}
    try:
        return kind(**row)
    except TypeError as error:
        raise SetupError(f"{path.name}: {error}; expected fields {', '.join(sorted(known))}") from error
