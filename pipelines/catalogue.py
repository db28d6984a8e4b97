"""``samtok-data datasets``: what is supported, and what of it is present."""

from __future__ import annotations

from collections.abc import Sequence

from converters.refer_datasets import ReferDataset
from converters.registry import DATASETS, present
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
    return "\n\n".join(_paragraph(DATASETS[name], root) for name in names or DATASETS)


def _paragraph(dataset: ReferDataset, root: str | None) -> str:
    usual = dataset.info
    lines = [f"{usual.name}: {usual.title} ({usual.task})"]
    infos = {partition: dataset.info_of(partition) for partition in dataset.partitions}
    files = {file.path: (file, info) for info in infos.values() for file in info.files}
    width = max(len(path) for path in files)
    for path, (file, info) in sorted(files.items(), key=lambda item: item[1][0].content, reverse=True):
        there = {} if root is None else {found.path: is_there for found, is_there in present(info, root)}
        mark = {True: "present  ", False: "missing  "}[there[path]] if there else ""
        lines.append(f"  {mark}{path.ljust(width)}  {file.content}")
    for partition, info in infos.items():
        counts = [f"{split} {number:,}" for split, number in info.sentences.items() if number is not None]
        usually = " (usual)" if partition == dataset.default_partition and len(infos) > 1 else ""
        lines.append(f"  partition {partition}{usually}: {', '.join(counts) or 'no published counts'}")
    lines += (f"  licence: {usual.licence}", f"  home: {usual.home}")
    return "\n".join(lines)
