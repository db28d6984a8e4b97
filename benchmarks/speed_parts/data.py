"""Made datasets for runs from files to files: SA-1B's tars, and a folder of gRefCOCO.

Some distinct pictures are made, in parallel, and repeated under other ids: their bytes in the tars, links to them in
the folder. So 20,000 images of SA-1B, 21 GB, are as quick to make as a disk writes them. What was just written is read
from memory, not from the disk: what is measured is this project, not the disk.
"""

from __future__ import annotations

import functools
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pycocotools import mask as coco

from benchmarks.speed_parts.shapes import areas, outline, photograph, runs

Kind = Literal["sa1b", "gres"]
DESCRIPTION = "made.json"
_DISTINCT = "distinct"
_PICTURES = "images/train2014"

# Of each image of gRefCOCO's kind: six refs with two sentences each. Targets of each ref, by number of the mask: of
# the twelve sentences two name none, six one, two two and two three, so 16 masks are named; 9 %, 58 %, 25 % and 8 % of
# gRefCOCO's sentences do.
_TARGETS: tuple[tuple[int, ...], ...] = ((), (0,), (1,), (2,), (0, 3), (1, 2, 3))
_SENTENCES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """A made dataset.

    Attributes:
        kind: ``sa1b`` or ``gres``.
        images: in all.
        distinct: of them; the others repeat these.
        height: of each, pixels.
        width: of each, pixels.
        masks: of each image.
        images_per_tar: of ``sa1b``.
        tars_written: the others are links to these, with the same ids in them; 0: all are written.
    """

    kind: Kind
    images: int
    distinct: int = 64
    height: int = 1500
    width: int = 2250
    masks: int = 100
    images_per_tar: int = 200
    tars_written: int = 0

    @property
    def mask_passes(self) -> int:
        """Masks of an image that the published way runs through the network: once for each sentence that names it."""
        return self.masks if self.kind == "sa1b" else _SENTENCES * sum(len(targets) for targets in _TARGETS)


def of_kind(kind: Kind, images: int, **fields: Any) -> Data:
    """The density of SA-1B (1500x2250, 100 masks) or of gRefCOCO (480x640, 4 masks, 12 sentences)."""
    usual: dict[str, Any] = {"height": 480, "width": 640, "masks": 4} if kind == "gres" else {}
    return Data(kind=kind, images=images, **{**usual, **fields})


def make(data: Data, root: Path, *, processes: int | None = None) -> None:
    """Writes a dataset; ``read`` finds it again.

    Args:
        data: what to make.
        root: a folder that is empty or not there.
        processes: that write; None: as many as there are cores.

    Raises:
        FileExistsError: something lies in the folder.
    """
    (root / _DISTINCT).mkdir(parents=True)
    workers = processes or len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        distinct = min(data.distinct, data.images)
        _run(pool, functools.partial(_make_pair, data, root), range(distinct))
        if data.kind == "sa1b":
            tars = -(-data.images // data.images_per_tar)
            written = min(data.tars_written or tars, tars)
            _run(pool, functools.partial(_write_tar, data, root), range(written))
            for tar in range(written, tars):
                os.link(_tar(root, tar % written), _tar(root, tar))
        else:
            _write_gres(data, root)
    (root / DESCRIPTION).write_text(json.dumps(asdict(data), indent=1) + "\n")


def read(root: Path) -> Data:
    """The dataset that ``make`` wrote into a folder."""
    return Data(**json.loads((root / DESCRIPTION).read_text()))


def _run(pool: ProcessPoolExecutor, function: Callable[[int], None], numbers: Iterable[int]) -> None:
    for _ in pool.map(function, numbers):
        pass


def _tar(root: Path, number: int) -> Path:
    return root / f"sa_{number:06d}.tar"


def _make_pair(data: Data, root: Path, number: int) -> None:
    """One picture with its masks: for SA-1B the JSON file as it is published, else polygons."""
    folder, generator = root / _DISTINCT, np.random.default_rng((number, 1))
    (folder / f"{number}.jpg").write_bytes(photograph(data.height, data.width, number))
    pixels = data.height * data.width
    if data.kind == "sa1b":
        encoded = [
            runs(generator, area, data.height, data.width) for area in areas(generator, data.masks, pixels, 0.0005, 0.2)
        ]
        value: Any = _sa1b_json(encoded, number, data)
    else:
        outlines = (
            outline(generator, area, data.height, data.width)
            for area in areas(generator, data.masks, pixels, 0.005, 0.2)
        )
        value = [np.round(corners_K2, 2).ravel().tolist() for corners_K2 in outlines]
    (folder / f"{number}.json").write_text(json.dumps(value))


def _sa1b_json(encoded: list[Any], number: int, data: Data) -> dict[str, Any]:
    """With all fields of the published files, for their bytes are parsed as well."""
    annotations = [
        {
            "bbox": [float(side) for side in coco.toBbox(one)],
            "area": int(coco.area(one)),
            "segmentation": {"size": one["size"], "counts": one["counts"].decode()},
            "predicted_iou": 0.9382662773132324,
            "point_coords": [[1082.8125, 703.125]],
            "crop_box": [0.0, 0.0, float(data.width), float(data.height)],
            "id": 535000000 + 1000 * number + place,
            "stability_score": 0.9624279141426086,
        }
        for place, one in enumerate(encoded)
    ]
    image = {"image_id": number, "width": data.width, "height": data.height, "file_name": f"sa_{number}.jpg"}
    return {"image": image, "annotations": annotations}


@functools.lru_cache(maxsize=256)
def _pair(root: Path, number: int) -> tuple[bytes, bytes]:
    folder = root / _DISTINCT
    return (folder / f"{number}.jpg").read_bytes(), (folder / f"{number}.json").read_bytes()


def _write_tar(data: Data, root: Path, number: int) -> None:
    distinct = min(data.distinct, data.images)
    first = number * data.images_per_tar
    with tarfile.open(_tar(root, number), "w") as tar:
        for image in range(first, min(first + data.images_per_tar, data.images)):
            for suffix, content in zip(("jpg", "json"), _pair(root, image % distinct), strict=True):
                member = tarfile.TarInfo(f"sa_{image}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def _write_gres(data: Data, root: Path) -> None:
    distinct = min(data.distinct, data.images)
    polygons = [json.loads(_pair(root, number)[1]) for number in range(distinct)]
    (root / _PICTURES).mkdir(parents=True)
    (root / "grefcoco").mkdir()
    images, annotations, refs = [], [], []
    for image in range(1, data.images + 1):
        source = image % distinct
        name = f"COCO_train2014_{image:012d}.jpg"
        os.link(root / _DISTINCT / f"{source}.jpg", root / _PICTURES / name)
        images.append({"id": image, "file_name": name, "height": data.height, "width": data.width, "license": 1})
        first = image * data.masks
        annotations += [
            {"id": first + place, "image_id": image, "category_id": 1, "segmentation": [polygon], "area": 1.0,
             "iscrowd": 0, "bbox": [0.0, 0.0, 1.0, 1.0]}
            for place, polygon in enumerate(polygons[source])
        ]  # fmt: skip
        refs += [_ref(len(refs) + place, image, name, first, targets) for place, targets in enumerate(_TARGETS)]
    categories = [{"supercategory": "thing", "id": 1, "name": "thing"}]
    instances = {"info": {}, "images": images, "licenses": [], "annotations": annotations, "categories": categories}
    (root / "grefcoco" / "instances.json").write_text(json.dumps(instances))
    (root / "grefcoco" / "grefs(unc).json").write_text(json.dumps(refs))


def _ref(number: int, image: int, name: str, first_mask: int, targets: tuple[int, ...]) -> dict[str, Any]:
    sentences = [
        {"tokens": sent.split(), "raw": sent, "sent_id": _SENTENCES * number + place, "sent": sent}
        for place in range(_SENTENCES)
        for sent in (f"number {number} that stands on the left in row {place}",)
    ]
    return {
        "sent_ids": [sentence["sent_id"] for sentence in sentences],
        "file_name": name,
        "ann_id": [first_mask + target for target in targets] or [-1],
        "ref_id": number,
        "image_id": image,
        "split": "train",
        "sentences": sentences,
        "category_id": [1] * len(targets) or [-1],
        "no_target": not targets,
    }
