"""Boundaries of the evaluation, faked: a tokenizer whose logits are a rule, a source that holds what it is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from converters.masks.source import MaskedImage
from pipelines.evaluation.measure import OpenImage
from pipelines.evaluation.resizing import Grid, mask_tensor, shrunk
from samtok_data import masks
from samtok_data.masks import RLE
from samtok_data.rejects import Reject
from samtok_data.scenes import Region, Scene
from samtok_data.words import MaskVocabulary
from tokenizer_model import LOGIT_THRESHOLD, SMALL, TokenizerIdentity

Rule = Callable[[Grid], Grid]


def exact(prompt_PP: Grid) -> Grid:
    """Logits of a decoder that gives back what it was shown: -10 to 10, 0 at a share of a half."""
    return 20 * prompt_PP - 10


@dataclass
class FakePrepared:
    prompts: Grid
    size: tuple[int, int]
    rles: tuple[RLE, ...]


@dataclass
class FakeTokenizer:
    """Logits by a rule from the masks' grids, codes from their areas; counts its calls."""

    side: int = 32
    rule: Rule = exact
    unquantised: Rule = exact
    num_images: int = 0
    identity: TokenizerIdentity = field(
        default_factory=lambda: TokenizerIdentity(name="fake", address="", sha256="0" * 64, config=SMALL, trained=True)
    )
    vocabulary: MaskVocabulary = field(default_factory=MaskVocabulary)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def prepare(self, image: Image.Image, regions: Sequence[RLE]) -> FakePrepared:
        grids = [shrunk(mask_tensor(rle), self.side).numpy() for rle in regions]
        prompts = np.stack(grids) if grids else np.empty((0, self.side, self.side), np.float32)
        return FakePrepared(prompts, (image.height, image.width), tuple(regions))

    def reconstruct_logits(
        self, prepared: Sequence[FakePrepared]
    ) -> tuple[list[NDArray[np.int64]], list[Grid], list[Grid]]:
        self.num_images += len(prepared)
        codes = [
            np.array([divmod(masks.area(rle) % 65536, 256) for rle in one.rles], np.int64).reshape(-1, 2)
            for one in prepared
        ]
        return (
            codes,
            [self._each(self.rule, one.prompts) for one in prepared],
            [self._each(self.unquantised, one.prompts) for one in prepared],
        )

    def cut(self, logits_NPP: Grid, size: tuple[int, int], threshold: float = LOGIT_THRESHOLD) -> NDArray[np.bool_]:
        grids_N1PP = torch.from_numpy(logits_NPP)[:, None]
        full = torch.nn.functional.interpolate(grids_N1PP, size=size, mode="bilinear", align_corners=False)
        return (full[:, 0] > threshold).numpy()

    @staticmethod
    def _each(rule: Rule, prompts: Grid) -> Grid:
        return np.stack([rule(grid) for grid in prompts]).astype(np.float32) if len(prompts) else prompts


@dataclass(frozen=True)
class FakeSource:
    """A MaskSource of units that are lists, or are made when they are read."""

    name: str
    units: Sequence[Callable[[], Iterator[MaskedImage | Reject]]]
    settings: Mapping[str, Any] = field(default_factory=lambda: {"kind": "fake"})

    @property
    def num_units(self) -> int:
        return len(self.units)

    def unit_name(self, unit: int) -> str:
        return f"unit {unit}"

    def read(self, unit: int) -> Iterator[MaskedImage | Reject]:
        return self.units[unit]()


def source_of(name: str, *found: MaskedImage | Reject) -> FakeSource:
    """One unit for each."""
    return FakeSource(name, [lambda one=one: iter([one]) for one in found])


def box(height: int, width: int, x0: int, y0: int, x1: int, y1: int) -> RLE:
    """A filled rectangle; x1 and y1 are one past the last pixel."""
    mask_HW = np.zeros((height, width), np.bool_)
    mask_HW[y0:y1, x0:x1] = True
    return masks.encode(mask_HW)


def grey(height: int, width: int) -> Image.Image:
    return Image.new("RGB", (width, height), (90, 90, 90))


def open_image(*rles: RLE, source: str = "made", name: str = "1") -> OpenImage:
    height, width = rles[0].height, rles[0].width
    regions = tuple((f"r{place}", rle) for place, rle in enumerate(rles))
    return OpenImage(source, name, grey(height, width), regions)


def masked_image(
    *rles: RLE, name: str = "1", file: str = "1.png", opened: Callable[[], Image.Image] | None = None
) -> MaskedImage:
    height, width = rles[0].height, rles[0].width
    regions = tuple(Region(f"r{place}", rle) for place, rle in enumerate(rles))
    return MaskedImage(Scene(name, file, height, width, regions, ()), opened or (lambda: grey(height, width)))
