"""The published way, from its description: every mask and every sentence by itself, from the image file on.

For a mask that a sentence names: open the image, resize it to the network's square (PIL, bicubic), decode the mask at
full size and take its box, resize it to the prompt's square on the device (bilinear, antialiased), run the backbone on
this one image, then mask encoder and quantiser, eager, under autocast to bf16 on a GPU. The weights and the network are
the ones that the run uses, on its plain path. One process; torch chooses its threads. Batches of more are the same work
with images and masks stacked, an image repeated for each of its masks, as the published scripts repeat it.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

from benchmarks.speed_parts.data import Data
from converters.masks.registry import open_mask_source
from converters.masks.source import MaskedImage
from pipelines.config import RunConfig
from pipelines.dialogue_work import converter_of, plan_of
from samtok_data import masks
from samtok_data.masks import RLE, prompt_box_of
from samtok_data.rejects import Reject
from tokenizer_model import MaskTokenizer, open_tokenizer

BATCHES = (1, 4, 16)
_WARM_UP = 2
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class Named:
    """A mask that a sentence names.

    Attributes:
        open: gives its picture, from the file's bytes on.
        rle: the mask.
        image: number of its image.
    """

    open: Callable[[], Image.Image]
    rle: RLE
    image: int


def named_masks(data: Data, root: Path) -> Iterator[Named]:
    """Every mask of a made dataset, as often as sentences name it, in the order of the files."""
    yield from of_sa1b(root) if data.kind == "sa1b" else of_gres(root)


def of_sa1b(root: Path) -> Iterator[Named]:
    """Each mask of SA-1B's tars, once. The files' bytes lie in memory, so reading the tar costs nothing here."""
    source = open_mask_source("sa1b", root=str(root), index=str(root / "index"), masks_per_image=None)
    numbers = itertools.count()
    for unit in range(source.num_units):
        for found in source.read(unit):
            if not isinstance(found, MaskedImage):
                raise ValueError(f"expected no reject, got {found}")
            image = next(numbers)
            for region in found.scene.regions:
                yield Named(found.open, region.rle, image)


def of_gres(root: Path, split: tuple[str, ...] = ("all",)) -> Iterator[Named]:
    """Each mask of a folder of gRefCOCO, once for each sentence that names it."""
    config = RunConfig(dataset="gres", root=str(root), out=str(root / "out"), split=split)
    converter = converter_of(config)
    plan = plan_of(config, converter)
    for image, scene in enumerate(
        scene for unit in plan.units for scene in converter.scenes(plan.payload(unit)) if not isinstance(scene, Reject)
    ):
        regions = {region.id: region.rle for region in scene.regions}
        path = Path(plan.images_root) / scene.image
        for dialogue in scene.dialogues:
            for ref in dialogue.refs:
                yield Named(lambda path=path: _opened(path), regions[ref.region], image)


def _opened(path: Path) -> Image.Image:
    with Image.open(path) as opened:
        return opened.convert("RGB")


class PublishedWay:
    """Masks to codes, a backbone pass for each.

    Args:
        tokenizer: its network and quantiser are used, none of its own ways.
        half: type that autocast computes in; None: no autocast.
    """

    def __init__(self, tokenizer: MaskTokenizer, half: torch.dtype | None) -> None:
        self._tokenizer, self._half = tokenizer, half

    @torch.inference_mode()
    def encode(self, named: Sequence[Named]) -> NDArray[np.int64]:
        """Codes of some masks, (n, L), in one batch."""
        tokenizer, device = self._tokenizer, self._tokenizer.device
        side = tokenizer.config.image_size
        pixels, prompts, boxes = [], [], []
        for one in named:
            picture = one.open().convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
            pixels.append(torch.from_numpy(np.array(picture)))
            mask_HW = masks.decode(one.rle)
            boxes.append(prompt_box_of(mask_HW))
            prompts.append(self._prompt(torch.from_numpy(mask_HW)))
        pixels_N3SS = _normalised(torch.stack(pixels).to(device))
        boxes_N4 = torch.tensor(np.asarray(boxes, np.float32), device=device)
        network = tokenizer.network
        with torch.autocast(device.type, dtype=self._half or torch.bfloat16, enabled=self._half is not None):
            features = network.image_features(pixels_N3SS)
            z_ND = network.mask_embeddings(features.embedding, torch.cat(prompts), boxes_N4)
        return tokenizer.quantizer.encode(z_ND.float()).cpu().numpy()

    def _prompt(self, mask_HW: torch.Tensor) -> torch.Tensor:
        side = self._tokenizer.config.logit_side
        full_11HW = mask_HW.to(self._tokenizer.device)[None, None].float()
        return F.interpolate(full_11HW, size=(side, side), mode="bilinear", align_corners=False, antialias=True)


def _normalised(pixels_NSS3: torch.Tensor) -> torch.Tensor:
    mean_3 = torch.tensor(_MEAN, device=pixels_NSS3.device)
    std_3 = torch.tensor(_STD, device=pixels_NSS3.device)
    return ((pixels_NSS3.float() / 255 - mean_3) / std_3).permute(0, 3, 1, 2)


def open_published(tokenizer: str, device: str) -> PublishedWay:
    """With the weights that a run uses, and the autocast that the published scripts have on a GPU."""
    opened = open_tokenizer(tokenizer, device=device)
    return PublishedWay(opened, torch.bfloat16 if opened.device.type == "cuda" else None)


def measure(
    way: PublishedWay, named: Callable[[], Iterator[Named]], seconds: float, batches: Sequence[int] = BATCHES
) -> list[dict[str, Any]]:
    """Masks a second of the published way, for each size of a batch.

    Args:
        way: as opened.
        named: gives the masks, from the first on; they are gone through again where there are too few.
        seconds: for each batch size.
        batches: sizes.
    """
    rows = []
    for batch in batches:
        every = itertools.chain.from_iterable(named() for _ in itertools.count())
        for _ in range(_WARM_UP):
            way.encode([next(every) for _ in range(batch)])
        spent, done = 0.0, 0
        while spent < seconds:
            some = [next(every) for _ in range(batch)]  # reading the annotations is not the published way's cost
            start = time.perf_counter()
            way.encode(some)
            spent += time.perf_counter() - start
            done += batch
        rows.append({"batch": batch, "masks": done, "seconds": round(spent, 2), "masks_per_second": done / spent})
    return rows
