"""Our shards in the hands of their readers: webdataset and HF datasets."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from samtok_data import masks
from samtok_data.dialogues import json_text
from samtok_data.fingerprints import Fingerprint
from samtok_data.outputs import SplitOutput
from samtok_data.rejects import Reject
from samtok_data.samples import Sample, TokenizedMask, build_sample
from samtok_data.scenes import Dialogue, MaskRef, Region, Scene, Text, Turn
from samtok_data.shards import pack
from samtok_data.storage import Folder
from samtok_data.words import MaskVocabulary

MASK = np.zeros((4, 5), dtype=np.bool_)
MASK[1:3, 2:4] = True
RLE = masks.encode(MASK)


def picture(grey: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (5, 4), (grey, grey, grey)).save(buffer, "PNG")
    return buffer.getvalue()


def sample(number: int, num_masks: int) -> Sample:
    refs = [MaskRef(f"region-{index}") for index in range(num_masks)]
    items = [{"mask_2d": ref, "label": 'the "left" \\ one\n猫'} for ref in refs]
    answer: Text = json_text(items) if items else ("No target.",)
    dialogue = Dialogue(f"ref-{number}", "t", (Turn("human", ("<image>\nwhich?",)), Turn("gpt", answer)))
    scene = Scene("s", "a.png", 4, 5, tuple(Region(ref.region, RLE) for ref in refs), (dialogue,))
    tokenized = {ref: TokenizedMask((index, 91), RLE) for index, ref in enumerate(refs)}
    return build_sample(
        scene,
        dialogue,
        dataset="gres",
        split="val",
        tokenized=tokenized,
        vocabulary=MaskVocabulary(),
        images={"png": picture(number)},
    )


# HF datasets takes the type of "masks" from the first five samples of the first tar: one with a mask leads, as
# pipelines.dialogue_units.with_masks_first has it. The second tar is without masks, the third has no end of them.
SHARDS = [
    [sample(number, 1 if number == 0 else 0) for number in range(7)] + [sample(7, 3)],
    [sample(number, 0) for number in range(10, 16)],
    [sample(number, 2) for number in range(20, 23)],
]
ALL = [one for shard in SHARDS for one in shard]


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished split: three shards, a unit without a shard, and the bookkeeping in its dot folder."""
    out = tmp_path_factory.mktemp("out")
    output = SplitOutput(Folder(out), "gres", "val")
    fingerprint = Fingerprint({"seed": 1})
    output.begin(fingerprint, overwrite=False)
    rejects = [Reject("ref-9", "mask-empty", "no foreground", {"ref": 9})]
    common: dict[str, Any] = {"images": 1, "masks": 1, "tokenizer": {}, "run": fingerprint.digest}
    entries = [
        output.commit(index, content=pack(shard), samples=len(shard), rejects=rejects, **common)
        for index, shard in enumerate(SHARDS)
    ]
    entries.append(output.commit(3, content=None, samples=0, rejects=rejects, **common))
    output.finish(fingerprint, entries)
    return out / "gres" / "val"


def tars(split: Path) -> list[str]:
    found = sorted(str(path) for path in split.glob("*.tar"))
    assert len(found) == 3
    return found


# webdataset 1.0.2 leaves the tar to the garbage collector: its reader opens each one and closes none.
@pytest.mark.filterwarnings("ignore:unclosed file <_io.BufferedReader name=:ResourceWarning")
def test_webdataset_reads_every_field_of_every_sample(split: Path) -> None:
    from webdataset.compat import WebDataset

    rows: list[dict[str, Any]] = list(WebDataset(tars(split), shardshuffle=False))
    assert [row["__key__"] for row in rows] == [one.key for one in ALL]
    for row, one in zip(rows, ALL, strict=True):
        assert {name for name in row if not name.startswith("__")} == {"json", "png"}
        assert json.loads(row["json"]) == one.record
        assert row["png"] == one.images["png"]


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """HF datasets, with its caches in a folder of the test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hf")))
        patch.setenv("HF_HUB_OFFLINE", "1")
        import datasets

        datasets.disable_progress_bars()
        yield datasets
        datasets.enable_progress_bars()


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streaming"])
@pytest.mark.parametrize("by", ["files", "folder"])
def test_hf_datasets_reads_every_field_of_every_sample(
    datasets: Any, split: Path, tmp_path: Path, by: str, streaming: bool
) -> None:
    source: dict[str, Any] = (
        {"path": "webdataset", "data_files": {"train": tars(split)}} if by == "files" else {"path": str(split)}
    )
    rows = datasets.load_dataset(**source, streaming=streaming, cache_dir=str(tmp_path))
    assert len(rows) == 1  # one split: the rejects and entries in the dot folder are not taken for data
    (loaded,) = rows.values()
    found = list(loaded)
    assert [row["__key__"] for row in found] == [one.key for one in ALL]
    for row, one in zip(found, ALL, strict=True):
        assert set(row) == {"__key__", "__url__", "json", "png"}
        assert row["json"] == one.record
        np.testing.assert_array_equal(row["png"], np.asarray(Image.open(io.BytesIO(one.images["png"]))))
