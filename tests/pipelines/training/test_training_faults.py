"""What goes wrong before and during a run: each with its sentence, and nothing of an earlier run is lost."""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from pipelines.cli import main
from pipelines.training.run import train
from pipelines.training.settings import read_settings
from samtok_data import masks
from samtok_data.errors import SetupError
from samtok_data.storage import Folder
from tests.pipelines.training.runs import SOURCE, TINY, files_of, rows_of, state_of, write_run
from tokenizer_model.training.optimiser import Optimiser
from tokenizer_model.training.step import TrainingPass

FOUR_STEPS = {"steps": 4}


def run(folder: Path, **changes: Any) -> None:
    train(read_settings(str(write_run(folder, **changes))))


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """The folder of a run of four steps."""
    run(tmp_path, recipe=FOUR_STEPS)
    return tmp_path


@pytest.mark.parametrize(("spoilt_parameters", "term"), [(slice(None), "bce"), (slice(1), "gradient")])
def test_a_loss_that_is_not_finite_ends_the_run_before_it_changes_anything(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoilt_parameters: slice, term: str
) -> None:
    step = Optimiser.step

    def spoilt(self: Optimiser, examples: Any) -> Any:
        if self.step_number == 5:
            for parameter in self.parameters[spoilt_parameters]:
                parameter.data.fill_(float("nan"))
        return step(self, examples)

    with monkeypatch.context() as patch:
        patch.setattr(Optimiser, "step", spoilt)
        with pytest.raises(SetupError) as caught:
            run(tmp_path)
    name = r"COCO_train2014_\d{12}\.jpg"
    assert re.match(
        rf"step 6: the {term} is not a finite number; it may be {name} or {name}\. Nothing was changed by it; "
        r"lower recipe\.optimisation\.learning_rate, or look at these images, and start again",
        str(caught.value),
    )
    assert state_of(tmp_path / "out")["step"] == 4
    assert max(rows_of(tmp_path / "out")) == 5
    run(tmp_path)
    assert rows_of(tmp_path / "out") == rows_of(undisturbed)


@pytest.mark.parametrize("place", ["a step", "a validation"])
def test_a_full_gpu_names_the_two_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    def full(*_arguments: Any, **_options: Any) -> Any:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    if place == "a step":
        monkeypatch.setattr(TrainingPass, "forward", full)
    else:
        monkeypatch.setattr("pipelines.training.validation.measure", full)
    with pytest.raises(
        SetupError, match=r"the GPU's memory is full; lower images_per_pass \(now 4; .*\) or "
    ) as caught:
        run(tmp_path, validation="mix.yaml", validate_every=1, recipe=FOUR_STEPS)
    assert "recipe.masks_per_image (now 4; that is another run)" in str(caught.value)


def write_tar(folder: Path, spoil: Callable[[int, str], bytes | None]) -> None:
    """Six pairs of SA-1B in a tar; ``spoil`` may give other bytes for a member, by number and ending."""
    folder.mkdir()
    with tarfile.open(folder / "sa_000000.tar", "w") as tar:
        for number in range(6):
            mask_HW = np.zeros((48, 64), np.bool_)
            mask_HW[4 : 20 + number, 6 : 30 + number] = True
            rle = masks.encode(mask_HW)
            text = {
                "image": {"image_id": number, "file_name": f"sa_{number}.jpg", "height": 48, "width": 64},
                "annotations": [{"id": number, "segmentation": {"size": [48, 64], "counts": rle.counts}}],
            }
            picture = io.BytesIO()
            Image.new("RGB", (64, 48), (40 * number, 90, 30)).save(picture, "JPEG")
            for ending, data in (("jpg", picture.getvalue()), ("json", json.dumps(text).encode())):
                other = spoil(number, ending)
                entry = tarfile.TarInfo(f"sa_{number}.{ending}")
                entry.size = len(data if other is None else other)
                tar.addfile(entry, io.BytesIO(data if other is None else other))


TAR_SOURCE = {"kind": "sa1b", "root": "tars", "name": "sa"}


def test_broken_members_of_a_tar_are_listed_and_the_run_goes_on(tmp_path: Path) -> None:
    broken = {(1, "json"): b"{", (4, "jpg"): b"no picture"}
    write_tar(tmp_path / "tars", lambda number, ending: broken.get((number, ending)))
    config = write_run(tmp_path, sources=[TAR_SOURCE], recipe=FOUR_STEPS)
    done = CliRunner().invoke(main, ["train-tokenizer", "--config", str(config), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["rejects"] == {"annotation-unreadable": 1, "image-unreadable": 1}
    lines = [json.loads(line) for line in (tmp_path / "out" / "rejects.jsonl").read_text().splitlines()]
    found = {line["reason"]: line["key"] for line in lines}
    assert list(found.values()) == sorted(found.values())
    assert "sa_1" in found["annotation-unreadable"]
    assert "4" in found["image-unreadable"]
    # A resumed run lists them once.
    checkpoints = tmp_path / "out" / "checkpoints"
    assert train(read_settings(str(config))).rejects == {"annotation-unreadable": 1, "image-unreadable": 1}
    assert [path.name for path in checkpoints.glob("*.pt")] == ["step-00000004.pt"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        pytest.param({"architecture": {**TINY.json, "depth": 3}}, "recipe.architecture.depth was 2, is 3", id="depth"),
        pytest.param({"steps": 13}, "recipe.steps was 4, is 13", id="steps"),
        pytest.param({"seed": 1}, "recipe.seed was 0, is 1", id="seed"),
        pytest.param({"train": ["mask_decoder"]}, "recipe.train was", id="parts"),
    ],
)
def test_another_recipe_is_refused_by_name(begun: Path, change: dict[str, Any], sentence: str) -> None:
    before = files_of(begun / "out")
    with pytest.raises(SetupError, match=re.escape(f"{begun}/out holds a run with other settings: {sentence}")):
        run(begun, recipe={**FOUR_STEPS, **change})
    assert files_of(begun / "out") == before


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        pytest.param({**SOURCE, "weight": 3}, "sources.gres.weight was 1.0, is 3.0", id="weight"),
        pytest.param({**SOURCE, "min_area": 9}, "sources.gres.min_area was 1, is 9", id="option"),
        pytest.param({**SOURCE, "name": "other"}, "sources.gres.crowd was", id="name"),
    ],
)
def test_other_sources_are_refused_by_name(begun: Path, source: dict[str, Any], sentence: str) -> None:
    before = files_of(begun / "out")
    with pytest.raises(SetupError, match=re.escape(f"holds a run with other settings: {sentence}")):
        run(begun, sources=[source], recipe=FOUR_STEPS)
    assert files_of(begun / "out") == before


# Settings that say how a run goes, not what comes out, may change when it goes on.
def test_how_a_run_goes_may_change(undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("pipelines.training.worker.Worker._must_stop", lambda self: self._optimiser.step_number == 6)
        run(tmp_path)
    run(tmp_path, save_every=3, keep=9, kept_images=20, validation="mix.yaml", validation_images=1)
    expected = rows_of(undisturbed)
    assert {step: row["loss"] for step, row in rows_of(tmp_path / "out").items()} == {
        step: row["loss"] for step, row in expected.items()
    }


FAULTS = [
    pytest.param({"mix": "gone.yaml"}, "gone.yaml: cannot be read", id="mix"),
    pytest.param({"validation": "gone.yaml"}, "gone.yaml: cannot be read", id="validation"),
    pytest.param({"sources": [{**SOURCE, "root": "nowhere"}]}, "nowhere: no such folder", id="root"),
    pytest.param({"sources": [{**SOURCE, "json": "gone.json"}]}, "gone.json", id="annotations"),
    pytest.param({"sources": [{**SOURCE, "images": "gone"}]}, "no folder gone", id="images"),
    pytest.param(
        {"sources": [{**SOURCE, "min_area": 10**9}]},
        "source gres: none of its 9 units has an image with a usable mask",
        id="no mask",
    ),
    pytest.param({"recipe": {"sam2_weights": "gone.pt"}}, "gone.pt", id="sam2_weights"),
    pytest.param({"recipe": {"initial": "gone.safetensors"}}, "gone.safetensors", id="initial"),
    pytest.param({"recipe": {"initial": "small"}}, "recipe.initial small: its architecture is", id="architecture"),
    pytest.param({"recipe": {"initial": "./cut.safetensors"}}, "cut.safetensors", id="cut weights"),
    pytest.param({"device": "cuda"}, "device cuda: this machine has no CUDA device; take cpu", id="device"),
]


@pytest.mark.parametrize(("change", "sentence"), FAULTS)
@pytest.mark.parametrize("overwrite", [False, True], ids=["new", "overwrite"])
def test_a_run_that_cannot_start_deletes_and_begins_nothing(
    tmp_path: Path, change: dict[str, Any], sentence: str, overwrite: bool
) -> None:
    if change.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    out = Folder(tmp_path / "out")
    (tmp_path / "cut.safetensors").write_bytes(b"\x00" * 30)
    if overwrite:
        out.write(".samtok/train.json", b"{}")
        out.write("checkpoints/step-00000004.pt", b"precious")
        out.remove(".tmp")
    before = files_of(tmp_path / "out")
    with pytest.raises(SetupError, match=re.escape(sentence)):
        run(tmp_path, overwrite=overwrite, **change)
    assert files_of(tmp_path / "out") == before


def test_overwrite_begins_anew_and_leaves_what_is_not_its_own(begun: Path, undisturbed: Path) -> None:
    (begun / "out" / "notes.txt").write_text("mine")
    config = str(write_run(begun))
    refused = CliRunner().invoke(main, ["train-tokenizer", "--config", config])
    assert refused.exit_code == 1
    assert "recipe.steps was 4, is 12" in refused.output
    assert "or --overwrite to delete it" in refused.output
    done = CliRunner().invoke(main, ["train-tokenizer", "--config", config, "--overwrite"])
    assert done.exit_code == 0, done.output
    assert rows_of(begun / "out") == rows_of(undisturbed)
    assert (begun / "out" / "notes.txt").read_text() == "mine"
    assert len(list((begun / "out" / "tensorboard").iterdir())) == 1


def test_an_out_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    config = write_run(tmp_path, out="file")
    done = CliRunner().invoke(main, ["train-tokenizer", "--config", str(config)])
    assert done.exit_code == 1
    assert re.search(r"^Error: .*file.*(Not a directory|File exists)", done.output, re.MULTILINE), done.output
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_a_disk_that_is_full_at_a_checkpoint_leaves_the_one_before(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Folder.write

    def full(self: Folder, name: str, data: bytes) -> None:
        if name == "step-00000008.pt":
            raise OSError(28, "No space left on device")
        write(self, name, data)

    config = str(write_run(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(Folder, "write", full)
        done = CliRunner().invoke(main, ["train-tokenizer", "--config", config])
    assert done.exit_code == 1
    assert "No space left on device. What was finished stays; mend it and run again" in done.output
    assert state_of(tmp_path / "out")["step"] == 4
    assert CliRunner().invoke(main, ["train-tokenizer", "--config", config]).exit_code == 0
    assert rows_of(tmp_path / "out") == rows_of(undisturbed)


@pytest.mark.parametrize(
    "damage", [lambda data: b"\x00" * len(data), lambda data: data[: len(data) // 2] + b"\x00" * (len(data) // 2)]
)
def test_a_damaged_checkpoint_is_refused_and_named(begun: Path, damage: Callable[[bytes], bytes]) -> None:
    path = begun / "out" / "checkpoints" / "step-00000004.pt"
    data = path.read_bytes()
    path.write_bytes(damage(data) + data[len(damage(data)) :])
    before = files_of(begun / "out")
    with pytest.raises(SetupError, match=re.escape(f"{path}: the checkpoint is damaged; remove it to resume from")):
        run(begun, recipe=FOUR_STEPS)
    assert files_of(begun / "out") == before


def test_a_checkpoint_that_was_cut_does_not_count(undisturbed: Path, tmp_path: Path) -> None:
    run(tmp_path, keep=3)
    path = tmp_path / "out" / "checkpoints" / "step-00000012.pt"
    path.write_bytes(path.read_bytes()[:-7])
    run(tmp_path, keep=3)
    assert state_of(tmp_path / "out")["step"] == 12
    assert rows_of(tmp_path / "out") == rows_of(undisturbed)


@pytest.mark.parametrize("text", ["{", "[]", '{"recipe": {}}', '{"fingerprint": 3}'])
def test_a_damaged_record_of_the_run_is_refused(begun: Path, text: str) -> None:
    (begun / "out" / ".samtok" / "train.json").write_text(text)
    with pytest.raises(SetupError, match=r"train\.json is damaged: choose another out, or --overwrite to delete the "):
        run(begun, recipe=FOUR_STEPS)


def test_checkpoints_of_an_unknown_run_are_refused(begun: Path) -> None:
    (begun / "out" / ".samtok" / "train.json").unlink()
    with pytest.raises(SetupError, match="holds checkpoints, but not which run made them"):
        run(begun, recipe=FOUR_STEPS)
