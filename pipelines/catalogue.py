"""``samtok-data datasets``: what is supported, and what of it is present."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from typing import Any

from converters.dialogues.refer_datasets import ReferDataset
from converters.dialogues.registry import DATASETS, present
from converters.masks.presence import sight
from converters.masks.registry import MASK_SOURCE_INFOS, MASK_SOURCES, Option, options_of
from converters.masks.source import MaskSourceInfo, WantedFile
from samtok_data.errors import SetupError
from samtok_data.storage import Folder

WIDTH = 120
DIALOGUES = "Dialogues: each becomes shards of questions and answers."
MASKS = """Masks: each becomes tables, one row a mask, and can be part of a mix to train on.
Each has a --root of its own; the places are those of its usual split."""
# Kinds that are no published set: what they read.
FORMATS = {
    "index-png": "label maps in PNG files, several an image if need be",
    "binary-png": "a PNG file for each mask",
}
_OWN_FLAGS = ("split", "seed")
_MARKS = {True: "present  ", False: "missing  ", None: "not seen "}


def describe(names: Sequence[str], root: str | None) -> str:
    """A paragraph for each dataset, under a heading for each sort.

    Args:
        names: of datasets; empty: all of them.
        root: where to look for their files; None: nowhere.

    Raises:
        SetupError: a name is not in the table; a folder cannot be read.
    """
    for name in names:
        if name not in DATASETS and name not in MASK_SOURCES:
            raise SetupError(f"{name!r} is not supported; known datasets: {', '.join((*DATASETS, *MASK_SOURCES))}")
    wanted = names or (*DATASETS, *MASK_SOURCE_INFOS, *FORMATS)
    dialogues = [_paragraph(DATASETS[name], root) for name in wanted if name in DATASETS]
    sources = [_source(name, root) for name in wanted if name in MASK_SOURCES]
    return "\n\n".join([*([DIALOGUES] if dialogues else []), *dialogues, *([MASKS] if sources else []), *sources])


def _paragraph(dataset: ReferDataset, root: str | None) -> str:
    usual = dataset.info
    lines = [f"{usual.name}: {usual.title} ({usual.task})"]
    infos = {partition: dataset.info_of(partition) for partition in dataset.partitions}
    files = {file.path: (file, info) for info in infos.values() for file in info.files}
    width = max(len(path) for path in files)
    for path, (file, info) in sorted(files.items(), key=lambda item: item[1][0].content, reverse=True):
        there = {} if root is None else {found.path: is_there for found, is_there in present(info, root)}
        mark = _MARKS[there[path]] if there else ""
        lines.append(f"  {mark}{path.ljust(width)}  {file.content}")
    for partition, info in infos.items():
        counts = [f"{split} {number:,}" for split, number in info.sentences.items() if number is not None]
        usually = " (usual)" if partition == dataset.default_partition and len(infos) > 1 else ""
        lines.append(f"  partition {partition}{usually}: {', '.join(counts) or 'no published counts'}")
    lines += (f"  licence: {usual.licence}", f"  home: {usual.home}")
    return "\n".join(lines)


def _source(kind: str, root: str | None) -> str:
    info = MASK_SOURCE_INFOS.get(kind)
    if info is None:
        return "\n".join([f"{kind}: {FORMATS[kind]}", *_options(kind)])
    folder = None if root is None else Folder(root)
    lines = [f"{kind}: {info.title}"]
    for file in info.files:
        lines += _wanted(file, folder)
    lines += [f"  published: {_published(info)}", *_options(kind)]
    return "\n".join([*lines, f"  licence: {info.licence}", f"  home: {info.home}"])


def _wanted(file: WantedFile, root: Folder | None) -> list[str]:
    """A line for a file or folder, and one for its other places, where it is not found."""
    content = f"{file.content} (optional)" if file.is_optional else file.content
    if root is None:
        return [*_filled(f"{file.place}  {content}"), *_others(file, "  ")]
    found = sight(root, (file.place, *file.elsewhere), packed=True)
    is_there = True if found.place is not None else (False if found.is_sure else None)
    place = file.place if found.place is None else found.place
    mark = _MARKS[is_there]
    lines = _filled(f"{mark}{place}  {content}", " " * len(mark))
    return lines if is_there else [*lines, *_others(file, " " * len(mark))]


def _others(file: WantedFile, indent: str) -> list[str]:
    return _filled(f"{indent}or {', '.join(file.elsewhere)}", indent) if file.elsewhere else []


def _published(info: MaskSourceInfo) -> str:
    kind = "videos" if info.is_video else "images"
    counts = [(info.images, kind), (info.masks, "masks in the published training")]
    return ", ".join(f"{number:,} {what}" for number, what in counts if number is not None) or "no counts"


def _options(kind: str) -> list[str]:
    """The options with what they are where they are left out."""
    known = options_of(kind)
    flags = [f"--{name} {_shown(known[name])}" for name in _OWN_FLAGS if name in known]
    others = [f"{name}={_shown(option)}" for name, option in known.items() if name not in _OWN_FLAGS]
    return _filled(f"options: {', '.join([*flags, '--option ' + ' '.join(others)])}")


def _shown(option: Option) -> str:
    """A value as --option takes it."""
    value: Any = option.default
    if option.is_needed:
        return "(needed)"
    return value if isinstance(value, str) else json.dumps(value)


def _filled(text: str, indent: str = "") -> list[str]:
    """Indented lines of at most ``WIDTH``; those after the first by a further ``indent``."""
    first, rest = "  ", f"    {indent}"
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )
