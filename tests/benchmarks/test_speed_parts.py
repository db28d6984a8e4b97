"""The parts of ``python -m benchmarks.speed`` that figures rest on: made data, the published way, sums, the monitor."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as coco

from benchmarks import large_weights
from benchmarks.speed_parts import drift, published
from benchmarks.speed_parts.data import Data, make, of_kind, read
from benchmarks.speed_parts.device_stages import with_masks
from benchmarks.speed_parts.limits import cost
from benchmarks.speed_parts.monitor import COMMAND, Monitor
from benchmarks.speed_parts.shapes import areas, outline, runs
from benchmarks.speed_parts.summing import TRAINING_MASKS, projection
from converters.masks.registry import open_mask_source
from tokenizer_model import Hiera, MaskTokenizer, Prepared, TokenizerConfig, save_tokenizer

TINY = TokenizerConfig(
    backbone=Hiera(embed_dim=16, num_heads=1, stages=(1, 1, 1, 1), global_blocks=(), windows=(2, 2, 2, 2)),
    image_size=64,
    hidden_size=16,
    codebook_size=8,
    depth=2,
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Parallel test processes get in each other's way, and sums over several threads round differently."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def fitted() -> tuple[MaskTokenizer, torch.Tensor]:
    """A tokenizer as ``large_weights`` makes them, and what its codebooks were fitted to."""
    return large_weights.build(TINY, device="cpu", images=1)


@pytest.fixture(scope="module")
def tiny(fitted: tuple[MaskTokenizer, torch.Tensor]) -> MaskTokenizer:
    """The tokenizer alone."""
    return fitted[0]


@pytest.fixture(scope="module")
def tars(tmp_path_factory: pytest.TempPathFactory) -> tuple[Data, Path]:
    """Five images in three tars, of which two are written."""
    data = of_kind("sa1b", 5, distinct=2, height=90, width=120, masks=4, images_per_tar=2, tars_written=2)
    root = tmp_path_factory.mktemp("made") / "sa1b"
    make(data, root, processes=1)
    return data, root


def test_made_tars_are_read_as_sa1b(tars: tuple[Data, Path]) -> None:
    data, root = tars
    assert read(root) == data
    source = open_mask_source("sa1b", root=str(root), index=str(root), masks_per_image=None)
    assert source.num_units == 3
    for unit in range(2):  # the third is a link with the ids of the first
        found = list(source.read(unit))
        assert [one.scene.id for one in found] == [f"sa_{2 * unit}", f"sa_{2 * unit + 1}"]  # type: ignore[union-attr]
        assert {len(one.scene.regions) for one in found} == {data.masks}  # type: ignore[union-attr]
    assert (root / "sa_000002.tar").stat().st_ino == (root / "sa_000000.tar").stat().st_ino


def test_a_folder_with_something_in_it_is_left_alone(tars: tuple[Data, Path]) -> None:
    with pytest.raises(FileExistsError):
        make(*tars)


def test_made_dialogues_name_as_many_masks_as_the_published_way_computes(tmp_path: Path) -> None:
    data = of_kind("gres", 3, distinct=2)
    make(data, tmp_path / "gres", processes=1)
    named = list(published.named_masks(data, tmp_path / "gres"))
    assert len(named) == 3 * data.mask_passes
    assert {one.image for one in named} == {0, 1, 2}
    assert len({one.rle for one in named}) == 2 * data.masks
    assert named[0].open().size == (640, 480)


def test_the_published_way_gives_the_codes_of_the_plain_path(tars: tuple[Data, Path], tiny: MaskTokenizer) -> None:
    named = list(published.named_masks(*tars))[:8]
    way = published.PublishedWay(tiny, None)
    one_by_one = np.concatenate([way.encode([one]) for one in named])
    expected = np.concatenate([tiny.encode([one.open()], [[one.rle]])[0] for one in named])
    assert np.array_equal(one_by_one, expected)
    assert np.array_equal(way.encode(named), expected)
    assert len(np.unique(expected, axis=0)) > 2


def test_fitted_codebooks_are_used(fitted: tuple[MaskTokenizer, torch.Tensor]) -> None:
    figures: Any = large_weights.spread(*fitted)
    assert min(figures["codes_used"]) >= 6
    assert figures["unexplained_share"] < 0.5


@pytest.mark.parametrize("share", [0.001, 0.01, 0.15])
def test_outlines_have_the_area_that_is_asked_for(share: float) -> None:
    generator = np.random.default_rng(0)
    polygons: Any = [outline(generator, share * 600 * 900, 600, 900).ravel().tolist() for _ in range(20)]
    encoded: Any = [coco.merge(coco.frPyObjects([polygon], 600, 900)) for polygon in polygons]
    found = [coco.area(one) / (600 * 900) for one in encoded]
    assert np.median(found) == pytest.approx(share, rel=0.15)


def test_masks_are_of_all_sizes_between_the_bounds() -> None:
    generator = np.random.default_rng(0)
    wanted = areas(generator, 400, 10**6, 0.001, 0.2)
    assert 1000 <= wanted.min() < 1500
    assert 100_000 < wanted.max() <= 200_000
    assert coco.area(runs(generator, 1e-9, 50, 60)) > 0


def written(
    path: Path, part: str, images_per_second: float, masks_per_image: float, between: float | None = None
) -> Path:
    run = {
        "images_per_second": images_per_second,
        "span_images_per_second": between,
        "masks_per_image": masks_per_image,
    }
    path.write_text(json.dumps({"part": part, "machine": {"gpus": ["one"]}, "run": run}))
    return path


def test_a_projection_takes_what_was_measured_and_else_draws_a_line(tmp_path: Path) -> None:
    slow = written(tmp_path / "slow.json", "sa1b", 50, 100)
    fast = written(tmp_path / "fast.json", "sa1b", 100, 100.0)
    few = written(tmp_path / "few.json", "sa1b", 200, 20)
    at_20, at_100 = projection([slow, fast, few])
    assert at_100["gpu_hours"] == pytest.approx(TRAINING_MASKS / 100 / 100 / 3600, abs=0.01)
    assert (at_20["gpu_hours"], at_20["measured_in"]) == (round(TRAINING_MASKS / 20 / 200 / 3600, 2), "few.json")
    one = written(tmp_path / "one.json", "sa1b", 1000 / 6, 60)  # 6 ms at 60 masks and 10 at 100: 2 ms at 20
    assert projection([fast, one])[0]["masks_per_gpu_second"] == pytest.approx(10_000)
    started = written(tmp_path / "started.json", "sa1b", 50, 100, between=120)
    assert projection([few, started])[1]["masks_per_gpu_second"] == 12_000
    with pytest.raises(ValueError, match="20 masks an image: neither measured"):
        projection([fast])
    with pytest.raises(ValueError, match="expected figures of the part sa1b, got gres"):
        projection([written(tmp_path / "gres.json", "gres", 1, 4)])


def test_the_monitor_sees_what_descendants_use() -> None:
    program = "import time\nend = time.time() + 1.6\nwhile time.time() < end: pass"
    start = time.time()
    with (
        subprocess.Popen(["sh", "-c", f"{sys.executable} -c '{program}'; true"]) as process,
        Monitor(process.pid) as seen,
    ):
        process.wait()
    figures = seen.between(start, time.time())
    used = sum(figures["cores_by_process"].values())
    assert used == pytest.approx(figures["cpu_cores_used"], abs=0.02)
    assert 0.05 < used < 1.5
    assert figures["peak_memory_mib"] >= 1
    assert COMMAND in {line["process"] for line in seen.timeline(start)}


def test_work_of_a_call_is_counted() -> None:
    one, other = torch.ones(8, 16), torch.ones(16, 4)
    flop, size = cost(lambda: (one @ other).view(-1).relu())
    assert flop == 2 * 8 * 16 * 4
    assert size == 4 * (8 * 16 + 16 * 4 + 8 * 4) + 4 * (8 * 4 + 8 * 4)


def test_one_path_does_not_drift_from_itself(tars: tuple[Data, Path], tiny: MaskTokenizer, tmp_path: Path) -> None:
    address = str(tmp_path / "tiny.safetensors")
    save_tokenizer(tiny, address, name="tiny", trained=False)
    figures = drift.measure(address, drift.made_images(*tars, None), ("fp32",), "cpu")
    assert (figures["images"], figures["masks"]) == (2, 8)
    (same,) = (row for row in figures["paths"] if row["path"] == "run's fp32")
    assert (same["equal_percent"], same["z_error_over_length"]) == (100.0, 0.0)


def test_masks_that_differ_are_listed_by_the_margin_of_the_first_level_that_does() -> None:
    exact = drift.Embedded(np.eye(3, 2, dtype=np.float32) + 1, np.array([[0, 1], [2, 3], [4, 5]]), ["a", "b", "c"])
    other = drift.Embedded(np.ones((3, 2), np.float32), np.array([[0, 1], [2, 9], [8, 9]]), ["a", "b", "c"])
    row, listed = drift._compared("x", exact, other, np.array([[9.0, 9.0], [9.0, 0.1], [0.5, 0.0]]))
    assert (row["differing"], row["first_at_level"]) == (2, [1, 1])
    assert listed == [["c", 0, 0.5, [4, 5], [8, 9]], ["b", 1, 0.1, [2, 3], [2, 9]]]
    assert row["largest_margin_that_differs"] == 0.5


def test_an_image_with_fewer_masks_keeps_the_first(tars: tuple[Data, Path]) -> None:
    (one,) = drift.made_images(*tars, 1)
    rles = [region.rle for region in one.scene.regions]
    whole = Prepared.of(one.open(), rles, TINY)
    fewer = with_masks(whole, 2)
    assert fewer.num_masks == 2
    assert np.array_equal(fewer.prompts, whole.prompts[:2])
