"""In which order a run begins: what can be refused first, and Ray beside torch where both will be needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines import run
from pipelines.config import RunConfig
from samtok_data.errors import SetupError
from samtok_data.outputs import HIDDEN
from tests.converters.grefs import annotation, image, ref, write_gres


def test_a_missing_tokenizer_is_named_before_torch_is_loaded_and_ray_started(tmp_path: Path) -> None:
    write_gres(tmp_path / "in", images=[image(1)], annotations=[annotation(1, 1)], refs=[ref(1, 1, [1], ["a"])])
    script = (
        "import sys\nfrom click.testing import CliRunner\nfrom pipelines.cli import main\n"
        "options = ['--dataset', 'gres', '--root', 'in', '--out', 'out', '--tokenizer', 'nowhere.pth']\n"
        "result = CliRunner().invoke(main, ['tokenize', *options])\n"
        "import ray\n"
        "print(result.exit_code, 'torch' in sys.modules, ray.is_initialized(), result.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("1 False False ")
    assert "nowhere.pth: no such file" in done.stdout


BEGUN = "begun before"


@pytest.mark.parametrize(
    ("options", "starts_first"),
    [
        ({}, True),
        ({"num_gpus_per_actor": 0.5}, True),
        ({BEGUN: True}, False),
        ({BEGUN: True, "overwrite": True}, True),
        ({"actors": 2}, False),
        ({"address": "somewhere:6379"}, False),
    ],
    ids=str,
)
def test_ray_starts_beside_the_tokenizer_where_an_output_is_new(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, options: dict[str, Any], starts_first: bool
) -> None:
    if options.pop(BEGUN, False):
        (tmp_path / "out" / "gres" / HIDDEN).mkdir(parents=True)
    config = RunConfig(dataset="gres", root="in", out=str(tmp_path / "out"), tokenizer="small", **options)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    started: list[float] = []
    monkeypatch.setattr(run, "start_cluster", lambda _config, share=0.0: started.append(share))
    monkeypatch.setattr(run, "gpu_share", lambda *_, **__: 0.5)
    monkeypatch.setattr(run, "_identified", lambda spec: spec)
    work: Any = SimpleNamespace(name="gres")
    assert run._opened(config, work) == ("small", 0.5)
    assert bool(started) is starts_first


def test_what_only_gpus_have_is_refused_before_anything_is_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = RunConfig(
        dataset="gres", root="in", out=str(tmp_path), tokenizer="small", num_gpus_per_actor=0, precision="fp16"
    )
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for name in ("start_cluster", "_identified"):
        monkeypatch.setattr(run, name, lambda *_: pytest.fail("it was started"))
    with pytest.raises(SetupError, match="--precision fp16 needs a GPU"):
        run._opened(config, SimpleNamespace(name="gres"))  # pyright: ignore[reportArgumentType]
