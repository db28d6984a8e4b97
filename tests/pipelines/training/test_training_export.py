"""A checkpoint as a tokenizer's file: its keys, its codes, which checkpoint it is, and what a full disk leaves."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.training.checkpoints import Checkpoints
from pipelines.training.export import export
from pipelines.training.run import train
from pipelines.training.settings import read_settings
from samtok_data import masks
from samtok_data.errors import SetupError
from samtok_data.storage import Folder
from tests.pipelines.training.runs import GRES, TINY, state_of, write_run
from tokenizer_model.checkpoints import NETWORK_PREFIX, VIDEO_KEYS
from tokenizer_model.config import SAMTOK_256X2
from tokenizer_model.loading import open_tokenizer, save_published
from tokenizer_model.tokenizer import MaskTokenizer


def read_pth(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)


def write_sam2(path: Path, model: MaskTokenizer) -> list[str]:
    """A checkpoint of SAM 2.1 for a model: its parts, and one made-up tensor for each part of the memory for videos.

    Returns:
        The keys of the parts for videos.
    """
    own = ("image_encoder.", "no_mem_embed", "sam_prompt_encoder.", "sam_mask_decoder.")
    state = {key: value for key, value in model.network.state_dict().items() if key.startswith(own)}
    video = {
        f"{key}made_up" if key.endswith(".") else key: torch.full((2,), float(number))
        for number, key in enumerate(VIDEO_KEYS)
    }
    torch.save({"model": {**state, **video}}, path)
    return sorted(video)


def test_both_kinds_of_file_hold_the_weights_of_the_checkpoint(undisturbed: Path, tmp_path: Path) -> None:
    expected = state_of(undisturbed)["model"]
    pth, safetensors = tmp_path / "a.pth", tmp_path / "a.safetensors"
    assert export(str(undisturbed), str(pth)) == f"{pth}: the tokenizer after step 12"
    assert export(str(undisturbed), str(safetensors), name="mine") == f"{safetensors}: the tokenizer after step 12"
    found = read_pth(pth)
    assert sorted(found) == sorted(expected)
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    opened = open_tokenizer(str(safetensors))
    assert (opened.identity.name, opened.identity.trained, opened.config) == ("mine", True, TINY)
    assert all(torch.equal(value, expected[key]) for key, value in opened.state_dict().items())
    # Codes are those of the model in the run.
    model = MaskTokenizer(TINY)
    model.load_state_dict(found, strict=True)
    picture = Image.open(GRES / "images" / "train2014" / "COCO_train2014_000000900001.jpg").convert("RGB")
    regions = []
    for side in (40, 90, 200):
        mask_HW = np.zeros((picture.height, picture.width), np.bool_)
        mask_HW[30 : 30 + side, 60 : 60 + 2 * side] = True
        regions.append(masks.encode(mask_HW))
    (codes,) = opened.encode([picture], [regions])
    (same,) = model.eval().encode([picture], [regions])
    assert codes.shape == (3, 2)
    assert np.array_equal(codes, same)
    with pytest.raises(SetupError, match=r"a\.pth: "):  # the published layout says nothing of the architecture
        open_tokenizer(str(pth))


def test_half_is_half_the_size_and_opens(undisturbed: Path, tmp_path: Path) -> None:
    export(str(undisturbed), str(tmp_path / "full.safetensors"))
    export(str(undisturbed), str(tmp_path / "half.safetensors"), half=True)
    full, half = ((tmp_path / f"{name}.safetensors").stat().st_size for name in ("full", "half"))
    assert 0.45 < half / full < 0.6
    expected = open_tokenizer(str(tmp_path / "full.safetensors")).state_dict()
    for key, value in open_tokenizer(str(tmp_path / "half.safetensors")).state_dict().items():
        assert value.dtype == expected[key].dtype
        torch.testing.assert_close(value, expected[key], rtol=1e-3, atol=1e-6)
    with pytest.raises(SetupError, match=r"^--half is for \.safetensors"):
        export(str(undisturbed), str(tmp_path / "half.pth"), half=True)
    assert not (tmp_path / "half.pth").exists()


def test_the_parts_for_videos_come_from_the_weights_that_the_run_began_with(tmp_path: Path) -> None:
    video = write_sam2(tmp_path / "sam2.pt", MaskTokenizer(TINY))
    train(read_settings(str(write_run(tmp_path, recipe={"sam2_weights": "./sam2.pt", "steps": 1}))))
    out = tmp_path / "out"
    export(str(out), str(tmp_path / "a.pth"))
    found, expected = read_pth(tmp_path / "a.pth"), state_of(out)["model"]
    assert sorted(found) == sorted([*expected, *(NETWORK_PREFIX + key for key in video)])
    given = torch.load(tmp_path / "sam2.pt", weights_only=True)["model"]
    assert all(torch.equal(found[NETWORK_PREFIX + key], given[key]) for key in video)
    # What does not learn is still SAM 2.1's.
    assert all(
        torch.equal(found[NETWORK_PREFIX + key], value)
        for key, value in given.items()
        if key.startswith(("image_encoder.", "sam_prompt_encoder."))
    )


@pytest.mark.skipif("SAMTOK_PARITY" not in os.environ, reason="SAMTOK_PARITY does not name the published key list")
def test_the_published_layout_has_all_published_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = json.loads((Path(os.environ["SAMTOK_PARITY"]) / "official_state_dict.json").read_text())
    published = {str(key): value for key, value in _shapes(listed).items()}
    assert len(published) == 992
    model = MaskTokenizer(SAMTOK_256X2)
    video = {key.removeprefix(NETWORK_PREFIX) for key in published} - set(model.network.state_dict())
    video = {key for key in video if key.startswith(tuple(VIDEO_KEYS))}
    empty = {key: torch.empty(published[NETWORK_PREFIX + key], device="meta") for key in video}
    written: dict[str, Any] = {}
    monkeypatch.setattr("tokenizer_model.loading.read_sam2_video", lambda _path: empty)
    monkeypatch.setattr("tokenizer_model.loading.local_file", Path)
    monkeypatch.setattr(torch, "save", lambda state, _file: written.update(state))
    save_published(model, tmp_path / "a.pth", sam2_weights="sam2.1_hiera_large.pt")
    assert {key: list(value.shape) for key, value in written.items()} == published


def _shapes(listed: Any) -> dict[str, list[int]]:
    """By key; the list has a shape, or an object with one, for each."""
    return {key: list(value["shape"] if isinstance(value, dict) else value) for key, value in listed.items()}


@pytest.fixture
def measured(undisturbed: Path, tmp_path: Path) -> Path:
    """A run whose best checkpoint is its oldest."""
    out = tmp_path / "measured"
    out.mkdir()
    (out / ".samtok").mkdir()
    (out / ".samtok" / "train.json").write_bytes((undisturbed / ".samtok" / "train.json").read_bytes())
    checkpoints, state = Checkpoints(Folder(out), keep=2), state_of(undisturbed)
    del state["format"]
    for step, r_iou in ((1, None), (2, 0.4), (3, 0.7), (4, 0.7), (5, 0.6), (6, 0.65)):
        checkpoints.save(step, {**state, "step": step}, r_iou)
    return out


def test_the_best_checkpoint_is_kept_however_old_it_is(measured: Path) -> None:
    kept = Checkpoints(Folder(measured), keep=2)
    assert [(one.step, one.r_iou) for one in kept.all()] == [(3, 0.7), (5, 0.6), (6, 0.65)]
    best = kept.best()
    assert best is not None
    assert best.step == 3  # step 4 was saved before the next validation, with the figure of step 3


@pytest.mark.parametrize(("step", "expected"), [("best", 3), ("last", 6), ("5", 5)])
def test_a_checkpoint_is_named_by_number_or_by_rank(measured: Path, step: str, expected: int) -> None:
    assert export(str(measured), f"{measured}/x.safetensors", step=step).endswith(f"after step {expected}")


@pytest.mark.parametrize("step", ["4", "-1", "first", ""])
def test_a_checkpoint_that_is_not_there_is_refused(measured: Path, step: str) -> None:
    with pytest.raises(SetupError, match=rf"^--step {step}: expected last, best or one of 3, 5, 6$"):
        export(str(measured), f"{measured}/x.safetensors", step=step)
    assert not (measured / "x.safetensors").exists()


def test_without_a_measurement_the_last_is_the_best(undisturbed: Path) -> None:
    best = Checkpoints(Folder(undisturbed), keep=1).best()
    assert best is not None
    assert best.step == 12


@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_an_export_that_is_interrupted_leaves_the_older_file(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / f"x.{ending}"
    path.write_bytes(b"older")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            export(str(undisturbed), str(path))
    assert path.read_bytes() == b"older"
    assert [found.name for found in tmp_path.rglob("*") if found.is_file()] == [path.name]
    export(str(undisturbed), str(path))
    assert path.stat().st_size > 1000


def test_what_is_no_run_is_refused(undisturbed: Path, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="no training run lies here"):
        export(str(tmp_path), str(tmp_path / "x.pth"))
    with pytest.raises(SetupError, match=r"expected a name that ends in \.safetensors or \.pth"):
        export(str(undisturbed), str(tmp_path / "x.bin"))
    (tmp_path / ".samtok").mkdir()
    (tmp_path / ".samtok" / "train.json").write_bytes((undisturbed / ".samtok" / "train.json").read_bytes())
    with pytest.raises(SetupError, match=re.escape(f"{tmp_path}: no checkpoint yet")):
        export(str(tmp_path), str(tmp_path / "x.pth"))
