"""Training from images that lie on the device."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipelines.training.run import train
from pipelines.training.settings import read_settings
from samtok_data.errors import SetupError
from tests.pipelines.training.runs import SOURCE, rows_of, state_of, write_run


def test_a_run_that_is_stopped_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    whole, halved = tmp_path / "whole", tmp_path / "halved"
    for folder in (whole, halved):
        folder.mkdir()
    assert train(read_settings(str(write_run(whole, resident_gib=1.0)))).is_complete
    config = str(write_run(halved, resident_gib=1.0))
    stops = 0
    while not (outcome := train(read_settings(config, max_minutes=1e-9))).is_complete:
        stops += 1
        assert outcome.step == stops  # at every logged step
    assert stops > 3
    assert rows_of(halved / "out") == rows_of(whole / "out")
    found, expected = (state_of(folder / "out")["model"] for folder in (halved, whole))
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_images_that_take_more_than_is_allowed_are_refused(tmp_path: Path) -> None:
    config = str(write_run(tmp_path, resident_gib=0.001))
    with pytest.raises(
        SetupError, match=r"^the images take 0\.0 GiB on the device, 0\.001 are allowed: raise resident_"
    ):
        train(read_settings(config))
    assert not list((tmp_path / "out" / "checkpoints").glob("*"))


def test_what_cannot_be_read_is_listed(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    root = Path(SOURCE["root"])
    for place, path in enumerate(sorted((root / SOURCE["images"]).iterdir())):
        if place != 2:  # one is missing
            (pictures / path.name).symlink_to(path)
    (tmp_path / "instances.json").symlink_to(root / SOURCE["json"])
    source = SOURCE | {"root": str(tmp_path), "images": "pictures", "json": "instances.json"}
    outcome = train(read_settings(str(write_run(tmp_path, sources=[source], resident_gib=1.0))))
    assert outcome.is_complete
    assert outcome.rejects == {"image-missing": 1}
