"""The datasets by name, and how to open one."""

from __future__ import annotations

from typing import get_args

from converters.dialogues.refer_datasets import REFER_DATASETS, ReferDataset
from converters.dialogues.referring import Crowd, ReferringConverter
from converters.dialogues.source import Converter, DatasetFile, DatasetInfo
from converters.dialogues.templates import open_wording
from converters.masks.presence import sight
from samtok_data.errors import SetupError
from samtok_data.storage import Folder

DATASETS: dict[str, ReferDataset] = {dataset.name: dataset for dataset in REFER_DATASETS}
"""Every dataset that can be converted, by the name that ``--dataset`` takes."""


def open_converter(
    dataset: str,
    *,
    root: str,
    images_root: str | None = None,
    partition: str | None = None,
    crowd: str = "keep",
    seed: int = 0,
    wording: str | None = None,
) -> Converter:
    """The converter of a dataset. Its annotation files are not touched yet.

    Args:
        dataset: one of ``DATASETS``.
        root: address of the folder with the annotation files, as ``info.files`` lays them out.
        images_root: address of the folder with the images; None: in the usual places under the root.
        partition: one of the dataset's; None: its default.
        crowd: ``keep`` crowd annotations as targets, or ``skip`` them.
        seed: of the draw of questions.
        wording: address of a TOML file with other texts (``converters.dialogues.templates``); None: the published ones.

    Raises:
        SetupError: no such dataset, partition or treatment of crowds; or the wording cannot be used.
    """
    chosen = _dataset(dataset)
    if crowd not in get_args(Crowd):
        raise SetupError(f"--crowd {crowd}: expected {' or '.join(get_args(Crowd))}")
    return ReferringConverter(
        dataset=chosen,
        partition=chosen.checked_partition(partition),
        root=root,
        images_root=images_root,
        crowd="skip" if crowd == "skip" else "keep",
        seed=seed,
        wording=open_wording(wording),
    )


def present(info: DatasetInfo, root: str) -> list[tuple[DatasetFile, bool]]:
    """Which files and folders of a dataset are there, in any of the places where they may lie.

    Raises:
        SetupError: no such dataset; the root is no address.
    """
    places = _dataset(info.name).places
    folder = Folder(root)
    return [(file, sight(folder, places(file.path)).place is not None) for file in info.files]


def _dataset(name: str) -> ReferDataset:
    if name not in DATASETS:
        raise SetupError(f"--dataset {name}: unknown; known are {', '.join(DATASETS)}")
    return DATASETS[name]
