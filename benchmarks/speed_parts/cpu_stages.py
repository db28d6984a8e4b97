"""The stages on one processor core, milliseconds an image: from tar and JSON to what the network reads, and from codes
to the file. Processor time of this process, so that other work on the machine counts little; the best of some."""

from __future__ import annotations

import io
import itertools
import pickle
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.speed_parts.data import Data, Kind, make, of_kind
from benchmarks.speed_parts.shapes import areas, photograph, runs
from converters.masks.registry import open_mask_source
from converters.masks.source import MaskedImage
from pipelines.config import RunConfig
from pipelines.datasets import plan_work
from pipelines.dialogue_work import converter_of, plan_of
from pipelines.images import load_image
from pipelines.work import Job
from samtok_data.mask_table import MaskRow, MaskTableWriter
from samtok_data.masks import RLE
from samtok_data.scenes import Scene
from samtok_data.storage import Folder
from samtok_data.words import MaskVocabulary
from tokenizer_model import Prepared, TokenizerConfig, TokenizerIdentity
from tokenizer_model.pieces import MaskPieces

_REPEATS = 3
_THREADS = 8


def prepared_images(config: TokenizerConfig, images: int, masks: int) -> list[Prepared]:
    """Made images of SA-1B's size with masks, ready for the network."""

    def one(number: int) -> Prepared:
        generator = np.random.default_rng((number, 3))
        height, width = 1500, 2250
        picture = Image.open(io.BytesIO(photograph(height, width, number)))
        found = [runs(generator, area, height, width) for area in areas(generator, masks, height * width, 0.0005, 0.2)]
        return Prepared.of(picture, [RLE(height, width, rle["counts"].decode()) for rle in found], config)

    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(one, range(images)))


def cpu_stages(kind: Kind, config: TokenizerConfig, *, images: int) -> list[dict[str, Any]]:
    """Rows of stage, ms an image, and images a second that a core does.

    Args:
        kind: the density.
        config: says the network's square.
        images: to measure with; each is another.
    """
    data = of_kind(kind, images, distinct=images, images_per_tar=images)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "data"
        make(data, root)
        stages = _sa1b(data, root, config) if kind == "sa1b" else _gres(data, root, config)
        stages["a unit without the network, all of it"] = _unit_seconds(data, root, Path(name), config)
    return [
        {
            "kind": kind,
            "stage": stage,
            "ms_an_image": round(1000 * seconds, 3),
            "images_a_core_s": round(1 / seconds, 1),
        }
        for stage, seconds in stages.items()
    ]


def _seconds(call: Callable[[], Any], images: int) -> float:
    """Processor seconds an image, the best of some calls that each do all images."""
    found = []
    for _ in range(_REPEATS):
        start = time.process_time()
        call()
        found.append(time.process_time() - start)
    return max(min(found), 1e-7) / images


def _sa1b(data: Data, root: Path, config: TokenizerConfig) -> dict[str, float]:
    source = open_mask_source("sa1b", root=str(root), index=str(root / "index"), masks_per_image=None)
    found = [one for one in source.read(0) if isinstance(one, MaskedImage)]
    pictures = [one.open() for one in found]
    regions = [[region.rle for region in one.scene.regions] for one in found]
    stages = {
        "tar, JSON and masks": _seconds(lambda: list(source.read(0)), data.images),
        "JPEG": _seconds(lambda: [one.open() for one in found], data.images),
        **_common(pictures, regions, config),
    }

    def write() -> None:
        writer = MaskTableWriter(config.vocabulary, {"name": "none", "sha256": "0" * 64})
        for one in found:
            writer.add(_table_rows(one, config.depth))
        writer.finish()

    return {**stages, "table rows and Parquet": _seconds(write, data.images)}


def _table_rows(one: MaskedImage, depth: int) -> list[MaskRow]:
    return [
        MaskRow(
            source="sa1b",
            image=one.scene.image,
            archive=one.archive,
            scene=one.scene.id,
            region=region.id,
            rle=region.rle,
            codes=tuple((37 * place + level) % 256 for level in range(depth)),
        )
        for place, region in enumerate(one.scene.regions)
    ]


def _common(
    pictures: Sequence[Image.Image], regions: Sequence[Sequence[RLE]], config: TokenizerConfig
) -> dict[str, float]:
    """Between decoding and the network, at both densities."""
    number, side = len(pictures), config.image_size
    prepared = [Prepared.of(picture, rles, config) for picture, rles in zip(pictures, regions, strict=True)]
    square = (side, side)
    return {
        "resize": _seconds(
            lambda: [np.array(picture.resize(square, Image.Resampling.BICUBIC)) for picture in pictures], number
        ),
        "masks to pieces": _seconds(lambda: [MaskPieces.of(rles) for rles in regions], number),
        # Ray's object store takes arrays without copying them twice, as this does not.
        "pickled for the encoder": _seconds(lambda: [pickle.dumps(one, protocol=5) for one in prepared], number),
    }


def _gres(data: Data, root: Path, config: TokenizerConfig) -> dict[str, float]:
    run = RunConfig(dataset="gres", root=str(root), out=str(root / "out"), split=("all",))
    converter = converter_of(run)
    plan = plan_of(run, converter)
    payloads = [plan.payload(unit) for unit in plan.units]
    scenes = [one for payload in payloads for one in converter.scenes(payload) if isinstance(one, Scene)]
    folder, suffix = Folder(plan.images_root), converter.info.image_suffix

    def load() -> list[Image.Image]:
        return [load_image(folder, one.image, one.height, one.width, suffix).picture for one in scenes]

    regions = [[region.rle for region in one.regions] for one in scenes]
    return {
        "records to Scenes": _seconds(lambda: [list(converter.scenes(payload)) for payload in payloads], data.images),
        "file and JPEG": _seconds(load, data.images),
        **_common(load(), regions, config),
    }


class _Answering:
    """A tokenizer that prepares as the real one does, and answers at once."""

    def __init__(self, config: TokenizerConfig) -> None:
        self._config = config

    @property
    def vocabulary(self) -> MaskVocabulary:
        return self._config.vocabulary

    def prepare(self, image: Image.Image, regions: Sequence[RLE]) -> Prepared:
        return Prepared.of(image, regions, self._config)

    def encode_prepared(self, prepared: Sequence[Prepared]) -> list[Any]:
        return [np.zeros((one.num_masks, self._config.depth), np.int64) for one in prepared]

    def measure_prepared(self, prepared: Sequence[Prepared]) -> tuple[list[Any], list[Any]]:
        return self.encode_prepared(prepared), [np.ones(one.num_masks) for one in prepared]


def _unit_seconds(data: Data, root: Path, folder: Path, config: TokenizerConfig) -> float:
    """Processor seconds an image of whole units, as an actor runs them, all their threads together."""
    identity = TokenizerIdentity(name="none", address="", sha256="0" * 64, config=config, trained=False)
    numbers = itertools.count()

    def run() -> None:
        out = str(folder / f"out-{next(numbers)}")
        settings = RunConfig(dataset=data.kind, root=str(root), out=out, split=("all",))
        if data.kind == "sa1b":
            settings = replace(settings, option={"masks_per_image": None})
        work = plan_work(settings)
        for split in work.split_runs(identity, "cpu"):
            split.output.begin(split.fingerprint, overwrite=False)
            units = work.units_of(split, identity)
            for unit in split.units:
                job = Job(unit.split, unit.index, unit.records, work.payload(unit))
                units.run_job(job, _Answering(config))

    return _seconds(run, data.images)
