"""COCO128's photographs and polygons through the whole pipeline, and its shards through the readers that users have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.config import RunConfig
from pipelines.overlays import decode_samples
from pipelines.run import tokenize
from pipelines.verify import find_outputs, verify
from samtok_data.shards import read_shard
from tests.pipelines.coco128 import write_coco128
from tokenizer_model import open_tokenizer


def run(source: Path, tmp_path: Path, limit: int | None) -> Path:
    """Tokenises so many of the 128 images; everything of them must arrive."""
    images, polygons = write_coco128(source / "masks" / "coco128_seg", tmp_path / "in")
    assert (images, polygons) == (128, 929)  # of 941 polygons, 12 have no image
    config = RunConfig(
        dataset="gres",
        root=str(tmp_path / "in"),
        out=str(tmp_path / "out"),
        tokenizer="small",
        samples_per_shard=100,
        num_gpus_per_actor=0,
        actors=2,
        limit=limit,
    )
    totals = tokenize(config).splits["train"]
    assert totals.images == (limit or 128)
    assert totals.num_rejects == 0
    if limit is None:
        assert (totals.samples, totals.masks) == (929 + 128, 929)
    (verdict,) = verify(find_outputs(str(tmp_path / "out")))
    assert verdict.problems == []
    return tmp_path / "out" / "gres" / "train"


def assert_every_word_decodes(folder: Path) -> None:
    from samtok_data.storage import Folder

    tokenizer = open_tokenizer("small")
    num_masks = 0
    for name in Folder(folder).names(".tar"):
        samples = [sample for sample in read_shard(Folder(folder), name) if sample.record["masks"]]
        for decoded, sample in zip(decode_samples(samples, tokenizer, None), samples, strict=True):
            assert len(decoded.ious) == len(sample.record["masks"])
            assert all(0 <= iou <= 1 for iou in decoded.ious)
            num_masks += len(decoded.ious)
    assert num_masks > 0


def test_some_photographs_arrive_whole_and_decode(cluster: None, samples: Path, tmp_path: Path) -> None:
    assert_every_word_decodes(run(samples, tmp_path, limit=8))


@pytest.mark.slow
def test_all_photographs_arrive_whole_and_decode(cluster: None, samples: Path, tmp_path: Path) -> None:
    assert_every_word_decodes(run(samples, tmp_path, limit=None))


# --- what trainers see: three shards of the bundled sample -----------------------------------------------------------


@pytest.fixture(scope="module")
def shards(cluster: None, bundled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shards")
    config = RunConfig(
        dataset="gres",
        root=str(bundled),
        out=str(out),
        tokenizer="small",
        samples_per_shard=24,
        num_gpus_per_actor=0,
        actors=2,
    )
    assert tokenize(config).splits["train"].shards == 3
    return out / "gres" / "train"


def expected(folder: Path) -> dict[str, tuple[dict[str, Any], bytes]]:
    from samtok_data.storage import Folder

    found = {}
    for name in Folder(folder).names(".tar"):
        for sample in read_shard(Folder(folder), name):
            found[sample.key] = (sample.record, sample.images["jpg"])
    assert len(found) == 67
    return found


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset leaves its tars to the collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_reads_every_field(shards: Path) -> None:
    from webdataset.compat import WebDataset

    urls = sorted(str(path) for path in shards.glob("*.tar"))
    read = {item["__key__"]: (json.loads(item["json"]), item["jpg"]) for item in WebDataset(urls, shardshuffle=False)}
    assert read == expected(shards)


@pytest.mark.parametrize("streaming", [False, True])
def test_hf_datasets_reads_every_field(shards: Path, tmp_path: Path, streaming: bool) -> None:
    import datasets

    loaded = datasets.load_dataset(str(shards), split="train", streaming=streaming, cache_dir=str(tmp_path))
    rows = list(loaded.cast_column("jpg", datasets.Image(decode=False)))
    read = {row["__key__"]: (row["json"], row["jpg"]["bytes"]) for row in rows}
    assert read == expected(shards)
