"""Tars as SA-1B is published in, of small pictures with two masks each."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from converters.masks.registry import open_mask_source
from converters.masks.source import MaskedImage, MaskSource
from samtok_data import masks
from samtok_data.rejects import Reject
from tests.converters.mask_sources import HEIGHT, WIDTH, columns, jpeg, read_all

BLOCK = 512


def annotation(number: int, *, share: int = 2, **fields: Any) -> dict[str, Any]:
    """The first ``1 / share`` of the image's columns."""
    rle = masks.encode(columns(1, *[0] * (share - 1)) == 1).json
    # Box and area are wrong on purpose: nobody may read them.
    return {
        "bbox": [0.0, 0.0, 1.0, 1.0],
        "area": 3,
        "segmentation": rle,
        "id": number,
        "stability_score": 0.9,
        **fields,
    }


def description(number: int, *annotations: Any, **image: Any) -> bytes:
    fields = {"image_id": number, "width": WIDTH, "height": HEIGHT, "file_name": f"sa_{number}.jpg", **image}
    return json.dumps({"image": fields, "annotations": list(annotations)}).encode()


def pair(number: int) -> list[tuple[str, bytes]]:
    """Picture and description of an image with two masks."""
    text = description(number, annotation(10 * number), annotation(10 * number + 1, share=4))
    return [(f"sa_{number}.jpg", jpeg()), (f"sa_{number}.json", text)]


def tar_of(members: Iterable[tuple[str, bytes]], kind: int = tarfile.USTAR_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=kind) as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def open_sa1b(root: Path | str, index: Path, **options: Any) -> MaskSource:
    return open_mask_source("sa1b", root=str(root), index=str(index), **options)


def read_tar(root: Path, data: bytes, **options: Any) -> tuple[list[MaskedImage], list[Reject]]:
    root.mkdir(exist_ok=True)
    (root / "sa_000000.tar").write_bytes(data)
    return read_all(open_sa1b(root, root / "index", **options))
