"""``samtok-data datasets``: what is supported, and what of it is present."""

from __future__ import annotations

from collections.abc import Sequence

from converters.registry import DATASETS, present
from converters.source import DatasetInfo
from samtok_data.errors import SetupError


def describe(names: Sequence[str], root: str | None) -> str:
    """A paragraph for each dataset.

    Args:
        names: of datasets; empty: all of them.
        root: where to look for their files; None: nowhere.

    Raises:
        SetupError: a name is not in the table.
    """
    for name in names:
        if name not in DATASETS:
            raise SetupError(f"{name!r} is not supported; known datasets: {', '.join(DATASETS)}")
    return "\n\n".join(_paragraph(DATASETS[name].info, root) for name in names or DATASETS)


def _paragraph(info: DatasetInfo, root: str | None) -> str:
    lines = [f"{info.name}: {info.title} ({info.task})"]
    there = dict(present(info, root)) if root is not None else {}
    width = max(len(file.path) for file in info.files)
    for file in info.files:
        mark = {True: "present  ", False: "missing  "}[there[file]] if there else ""
        lines.append(f"  {mark}{file.path.ljust(width)}  {file.content}")
    counts = [f"{split} {number:,}" for split, number in info.sentences.items() if number is not None]
    if counts:
        lines.append(f"  sentences: {', '.join(counts)}")
    lines += (f"  licence: {info.licence}", f"  home: {info.home}")
    return "\n".join(lines)
