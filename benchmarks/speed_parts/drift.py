"""How many masks get other words on other paths: against fp32 on the plain path, with the same weights.

A mask's margin at a level is how much farther the second nearest row is than the nearest, relative to the nearest:
where it is small, a little rounding of z changes the code. Levels after the first depend on the first one's code.
"""

from __future__ import annotations

import functools
import itertools
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.speed_parts.data import Data
from converters.masks.registry import open_mask_source
from converters.masks.source import MaskedImage
from tests.pipelines.coco128 import write_coco128
from tokenizer_model import MaskTokenizer, Prepared, open_tokenizer
from tokenizer_model.config import Precision
from tokenizer_model.paths import PlainPath
from tokenizer_model.quantizers.residual import Codebook

_IMAGES_AT_ONCE = 8
_LISTED = 200
_PERCENTILES = (1, 5, 25, 50, 75)


@dataclass(frozen=True, slots=True)
class Embedded:
    """All masks of all images: z (M, D), codes (M, L), and of each mask its image and place in it."""

    z_MD: NDArray[np.float32]
    codes_ML: NDArray[np.int64]
    names: list[str]


def images_of(options: dict[str, Any], kind: str, root: Path, limit: int | None) -> Iterator[MaskedImage]:
    """Images with masks of a source, as ``tokenize`` reads them."""
    with tempfile.TemporaryDirectory() as index:
        source = open_mask_source(kind, root=str(root), index=index, **options)
        found = (one for unit in range(source.num_units) for one in source.read(unit) if isinstance(one, MaskedImage))
        yield from itertools.islice(found, limit)


def made_images(data: Data, root: Path, limit: int | None) -> Iterator[MaskedImage]:
    """The distinct images of made data of SA-1B's kind."""
    most = data.distinct if limit is None else min(limit, data.distinct)
    return images_of({"masks_per_image": None}, "sa1b", root, min(most, data.images))


def coco128_images(folder: Path, limit: int | None) -> Iterator[MaskedImage]:
    """The photographs of COCO128 with the polygons of its YOLO labels; ``folder`` holds ``images/train2017``."""
    with tempfile.TemporaryDirectory() as name:
        write_coco128(folder, Path(name))
        options = {"json": "grefcoco/instances.json", "images": "images/train2014"}
        yield from images_of(options, "coco-instances", Path(name), limit)


def measure(
    tokenizer: str, images: Iterable[MaskedImage], precisions: Sequence[Precision], device: str
) -> dict[str, Any]:
    """Shares of masks whose words differ, by path, and the masks themselves with their margins.

    Args:
        tokenizer: with a residual quantiser.
        images: go through every path.
        precisions: paths of the run's own beside the plain ones in half precision.
        device: where.
    """
    plain = open_tokenizer(tokenizer, device=device, precision="fp32")
    prepared = [
        (one.scene.image, plain.prepare(one.open(), [region.rle for region in one.scene.regions])) for one in images
    ]
    exact = _embedded(plain, prepared)
    margins_ML = _margins(plain, exact)
    rows, listed = [], {}
    for name, other in _paths(plain, tokenizer, precisions, device):
        found = other(prepared)
        row, differing = _compared(name, exact, found, margins_ML)
        rows.append(row)
        listed[name] = differing
        print({key: value for key, value in row.items() if not isinstance(value, dict | list)}, flush=True)
    return {
        "images": len(prepared),
        "masks": len(exact.names),
        "margin_percentiles": {
            f"level_{level}": dict(
                zip(map(str, _PERCENTILES), np.percentile(margins_ML[:, level], _PERCENTILES).tolist(), strict=True)
            )
            for level in range(margins_ML.shape[1])
        },
        "paths": rows,
        "differing": listed,
    }


_Images = Sequence[tuple[str, Prepared]]


def _paths(plain: MaskTokenizer, tokenizer: str, precisions: Sequence[Precision], device: str) -> Iterator[Any]:
    """Name and a function from images to ``Embedded`` of each path."""
    halves: tuple[Precision, ...] = ("bf16", "fp16") if device == "cuda" else ("bf16",)
    for half in halves:
        yield f"plain {half}, autocast", functools.partial(_autocast, plain, half)
    for precision in precisions:
        opened = open_tokenizer(tokenizer, device=device, precision=precision)
        yield f"run's {precision}", functools.partial(_embedded, opened)
        del opened


def _embedded(tokenizer: MaskTokenizer, images: _Images) -> Embedded:
    z, codes = [], []
    for start in range(0, len(images), _IMAGES_AT_ONCE):
        some = tokenizer.embed_prepared([one for _, one in images[start : start + _IMAGES_AT_ONCE]])
        z += some[0]
        codes += some[1]
    names = [f"{name} {mask}" for name, one in images for mask in range(one.num_masks)]
    return Embedded(np.concatenate(z), np.concatenate(codes), names)


@torch.inference_mode()
def _autocast(plain: MaskTokenizer, half: Precision, images: _Images) -> Embedded:
    """Eager, each image by itself, all its masks together."""
    path = PlainPath(plain.network, half)
    z = []
    for _, one in images:
        features = path.features([one])
        for start in range(0, one.num_masks, plain.sizes.masks):
            chosen = [(0, mask) for mask in range(start, min(start + plain.sizes.masks, one.num_masks))]
            z.append(path.embeddings([one], features, chosen))
    z_MD = torch.cat(z)
    names = [f"{name} {mask}" for name, one in images for mask in range(one.num_masks)]
    return Embedded(z_MD.cpu().numpy(), plain.quantizer.encode(z_MD).cpu().numpy(), names)


def _margins(tokenizer: MaskTokenizer, exact: Embedded) -> NDArray[np.float64]:
    """Of every mask and level, (M, L)."""
    codebooks = [module for module in tokenizer.quantizer.modules() if isinstance(module, Codebook)]
    if not codebooks:
        raise ValueError("margins are of a residual quantiser's rows, and this tokenizer has none")
    residual_MD, columns = torch.from_numpy(exact.z_MD).double(), []
    for level in range(exact.codes_ML.shape[1]):
        rows_KD = codebooks[min(level, len(codebooks) - 1)].rows_KD.cpu().double()
        nearest_M2 = torch.cdist(residual_MD, rows_KD).topk(2, dim=1, largest=False).values
        columns.append((nearest_M2[:, 1] / nearest_M2[:, 0].clamp(min=1e-12) - 1).numpy())
        residual_MD = residual_MD - rows_KD[torch.from_numpy(exact.codes_ML[:, level])]
    return np.stack(columns, axis=1)


def _compared(
    name: str, exact: Embedded, found: Embedded, margins_ML: NDArray[np.float64]
) -> tuple[dict[str, Any], list[list[Any]]]:
    """A row of shares, and the masks whose words differ: name, first level that does, its margin, codes of both."""
    differs_ML = exact.codes_ML != found.codes_ML
    first_M = differs_ML.argmax(axis=1)
    places = np.flatnonzero(differs_ML.any(axis=1))
    margins = margins_ML[places, first_M[places]]
    error_M = np.linalg.norm(found.z_MD - exact.z_MD, axis=1)
    spread_MD = exact.z_MD - exact.z_MD.mean(axis=0)
    row = {
        "path": name,
        "masks": len(differs_ML),
        "equal_percent": round(100 * (1 - len(places) / len(differs_ML)), 3),
        "differing": len(places),
        "first_at_level": np.bincount(first_M[places], minlength=differs_ML.shape[1]).tolist(),
        "z_error_over_length": float((error_M / np.linalg.norm(exact.z_MD, axis=1)).mean()),
        "z_error_over_spread": float(error_M.mean() / np.linalg.norm(spread_MD, axis=1).mean()),
        "largest_margin_that_differs": float(margins.max(initial=0)),
    }
    order = places[np.argsort(-margins)][:_LISTED]
    listed = [
        [
            exact.names[place],
            int(first_M[place]),
            round(float(margins_ML[place, first_M[place]]), 6),
            exact.codes_ML[place].tolist(),
            found.codes_ML[place].tolist(),
        ]
        for place in order
    ]
    return row, listed
