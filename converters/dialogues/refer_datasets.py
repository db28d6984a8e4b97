"""The referring-segmentation datasets: what each is called, where its files lie, how many sentences it has.

Source: the README files of lichengunc/refer (RefCOCO, RefCOCO+, RefCOCOg, RefCLEF) and of henghuiding/gRefCOCO;
sentence counts from the datasets' public tables, per split and, as ``all``, for the whole file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from converters.dialogues.source import DatasetFile, DatasetInfo
from converters.dialogues.templates import TASK
from samtok_data.errors import SetupError

ALL = "all"
"""Stands for every split: in a request, and in the tables of sentences."""

COCO_IMAGES = (
    "images/train2014",
    "images/mscoco/images/train2014",
    "images/coco2014/train2014",
    "coco2014/train2014",
    "train2014",
)
SAIAPR_IMAGES = ("images/saiapr_tc-12",)

_COCO_LICENCE = "COCO annotations: CC BY 4.0; COCO images: the Flickr licence of each image"


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """One author's division of a dataset into splits.

    Attributes:
        output: name of the output folder and first part of every key; ids are unique within it.
        refs: the file names that its refs may have in the dataset's folder, the usual one first.
        sentences: expected number a split, and of all splits together; None where no table gives it.
    """

    output: str
    refs: tuple[str, ...]
    sentences: Mapping[str, int | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferDataset:
    """A dataset in the layout of REFER: a file of refs and an ``instances.json``, joined by annotation id.

    Attributes:
        name: as ``--dataset`` takes it.
        title: as the authors write it.
        licence: terms, in one sentence.
        home: where it is published.
        folder: of its annotation files, under the root.
        partitions: by name; the first is the default.
        images: where its images may lie under the root, the usual place first.
        image_files: what its images are.
        multi_target: whether a ref may have no target or several (gRefCOCO), or has exactly one.
    """

    name: str
    title: str
    licence: str
    home: str
    folder: str
    partitions: Mapping[str, Partition]
    images: tuple[str, ...] = COCO_IMAGES
    image_files: str = "COCO train2014, COCO_train2014_*.jpg"
    multi_target: bool = False

    @property
    def default_partition(self) -> str:
        """The partition that is taken where none is named."""
        return next(iter(self.partitions))

    @property
    def info(self) -> DatasetInfo:
        """What the dataset is, in its default partition."""
        return self.info_of(self.default_partition)

    def checked_partition(self, partition: str | None) -> str:
        """The partition asked for, or the default.

        Raises:
            SetupError: the dataset has no such partition.
        """
        if partition is None:
            return self.default_partition
        if partition not in self.partitions:
            known = ", ".join(self.partitions)
            raise SetupError(f"--partition {partition}: {self.name} has the partitions {known}")
        return partition

    def info_of(self, partition: str) -> DatasetInfo:
        """What the dataset is, in one of its partitions."""
        refs = DatasetFile(path=f"{self.folder}/{self.partitions[partition].refs[0]}", content="refs and sentences")
        instances = DatasetFile(path=f"{self.folder}/instances.json", content="images and masks, COCO format")
        images = DatasetFile(path=self.images[0], content=f"images ({self.image_files})")
        return DatasetInfo(
            name=self.name,
            title=self.title,
            task=TASK,
            files=(refs, instances, images),
            licence=self.licence,
            home=self.home,
            sentences=self.partitions[partition].sentences,
        )

    def places(self, path: str) -> tuple[str, ...]:
        """Where the file or folder of ``info.files`` may lie, under the root; the usual place first."""
        if path == self.images[0]:
            return self.images
        for partition in self.partitions.values():
            places = tuple(f"{self.folder}/{name}" for name in partition.refs)
            if path in places:
                return places
        return (path,)


def _pickled(stem: str, **sentences: Mapping[str, int | None]) -> dict[str, Partition]:
    return {
        name: Partition(output=f"{stem}-{name}", refs=(f"refs({name}).p",), sentences=table)
        for name, table in sentences.items()
    }


GRES = ReferDataset(
    name="gres",
    title="gRefCOCO (GRES)",
    licence=f"Expressions: no licence stated, published for research; {_COCO_LICENCE}.",
    home="https://github.com/henghuiding/gRefCOCO",
    folder="grefcoco",
    partitions={
        "unc": Partition(
            output="gres",
            refs=("grefs(unc).json", "grefs(unc).p"),
            sentences={"train": 209_344, "val": 16_870, "testA": 18_712, "testB": 14_933, ALL: 259_859},
        )
    },
    multi_target=True,
)

REFCOCO = ReferDataset(
    name="refcoco",
    title="RefCOCO",
    licence=f"Expressions: no licence stated, published for research; {_COCO_LICENCE}.",
    home="https://github.com/lichengunc/refer",
    folder="refcoco",
    partitions=_pickled(
        "refcoco",
        unc={"train": 120_624, "val": 10_834, "testA": 5_657, "testB": 5_095, ALL: 142_210},
        google={"train": None, "val": None, "test": None, ALL: 142_210},
    ),
)

REFCOCO_PLUS = ReferDataset(
    name="refcoco+",
    title="RefCOCO+",
    licence=f"Expressions: no licence stated, published for research; {_COCO_LICENCE}.",
    home="https://github.com/lichengunc/refer",
    folder="refcoco+",
    partitions=_pickled(
        "refcocoplus",
        unc={"train": 120_191, "val": 10_758, "testA": 5_726, "testB": 4_889, ALL: 141_564},
        google={"train": None, "val": None, "test": None},
    ),
)

REFCOCOG = ReferDataset(
    name="refcocog",
    title="RefCOCOg",
    licence=f"Expressions: CC BY 4.0 (Google RefExp); {_COCO_LICENCE}.",
    home="https://github.com/lichengunc/refer",
    folder="refcocog",
    partitions=_pickled(
        "refcocog",
        umd={"train": 80_512, "val": 4_896, "test": 9_602, ALL: 95_010},
        google={"train": 85_474, "val": 9_536, ALL: 95_010},
    ),
)

REFCLEF = ReferDataset(
    name="refclef",
    title="RefCLEF (ReferItGame)",
    licence="Expressions: no licence stated, published for research; images: SAIAPR TC-12, for research.",
    home="https://github.com/lichengunc/refer",
    folder="refclef",
    partitions=_pickled(
        "refclef",
        unc={"train": None, "val": None, "testA": None, "testB": None, "testC": None},
        berkeley={"train": None, "val": None, "test": None},
    ),
    images=SAIAPR_IMAGES,
    image_files="SAIAPR TC-12, *.jpg",
)

REFER_DATASETS = (GRES, REFCOCO, REFCOCO_PLUS, REFCOCOG, REFCLEF)
