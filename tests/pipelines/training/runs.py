"""Small training runs on the bundled photographs, and what is compared of them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import yaml

from pipelines.training.checkpoints import Checkpoints
from pipelines.training.metrics import parse_rows
from samtok_data.storage import Folder
from tokenizer_model.config import Hiera, TokenizerConfig

PROJECT = Path(__file__).parents[3]
GRES = PROJECT / "samples" / "gres"

TINY = TokenizerConfig(
    backbone=Hiera(embed_dim=16, num_heads=1, stages=(1, 1, 2, 1), global_blocks=(3,), windows=(4, 4, 4, 2)),
    image_size=64,
    hidden_size=32,
    codebook_size=16,
    depth=2,
)
STEPS = 12
SAVE_EVERY = 4

# Two photographs with four masks each in a step.
RECIPE: dict[str, Any] = {
    "architecture": TINY.json,
    "steps": STEPS,
    "batch": 8,
    "masks_per_image": 4,
    "precision": "fp32",
    "losses": {"points": 112},
    "optimisation": {"learning_rate": 2e-3},
}
SETTINGS: dict[str, Any] = {
    "mix": "mix.yaml",
    "out": "out",
    "device": "cpu",
    "loaders": 0,
    "images_per_pass": 4,
    "log_every": 1,
    "save_every": SAVE_EVERY,
    "keep": 2,
}
# The bundled sample's own annotations are a COCO instances file.
SOURCE: dict[str, Any] = {
    "kind": "coco-instances",
    "root": str(GRES),
    "name": "gres",
    "json": "grefcoco/instances.json",
    "images": "images/train2014",
}


def write_run(
    folder: Path, *, sources: list[dict[str, Any]] | None = None, recipe: dict[str, Any] | None = None, **settings: Any
) -> Path:
    """The configuration file of a run in a folder, with its mix of sources beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mix.yaml").write_text(yaml.safe_dump({"sources": [SOURCE] if sources is None else sources}))
    path = folder / "train.yaml"
    path.write_text(yaml.safe_dump({**SETTINGS, **settings, "recipe": {**RECIPE, **(recipe or {})}}))
    return path


def rows_of(out: Path) -> dict[int, dict[str, float]]:
    """The log without its rates, which no two runs share."""
    rows = parse_rows((out / "metrics.csv").read_bytes())
    return {
        step: {name: value for name, value in row.items() if not name.endswith("_per_second")}
        for step, row in rows.items()
    }


def state_of(out: Path) -> dict[str, Any]:
    """The last checkpoint."""
    checkpoints = Checkpoints(Folder(out), keep=1)
    return checkpoints.load(checkpoints.all()[-1].step)


def files_of(out: Path) -> dict[str, str]:
    """sha256 of every file of a run, indexes and TensorBoard's events left out."""
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.relative_to(out).parts[0] not in ("index", "tensorboard")
    }
