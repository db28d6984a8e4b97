"""A checkpoint of a training run as a tokenizer's file."""

from __future__ import annotations

import posixpath

from pipelines.training.beginning import run_recipe
from pipelines.training.checkpoints import Checkpoints
from samtok_data.errors import SetupError
from samtok_data.storage import Folder
from tokenizer_model.loading import save_published, save_tokenizer
from tokenizer_model.tokenizer import MaskTokenizer
from tokenizer_model.training.recipe import Recipe


def export(run: str, out: str, *, step: str = "last", name: str | None = None, half: bool = False) -> str:
    """Writes a tokenizer, whole or not at all.

    Args:
        run: folder or address of the training run.
        out: file to write: ``.safetensors``, or ``.pth`` for the published layout.
        step: of the checkpoint: a number, ``last`` or ``best`` (by r-IoU on the validation set).
        name: of the tokenizer; None: the name of the run's folder.
        half: 16-bit numbers; ``.safetensors`` only.

    Returns:
        A sentence: what was written.

    Raises:
        SetupError: no such run or checkpoint, or another ending.
        OSError: it could not be written; an older file is as it was.
    """
    if not out.endswith((".safetensors", ".pth")):
        raise SetupError(f"--out {out}: expected a name that ends in .safetensors or .pth")
    if half and out.endswith(".pth"):
        raise SetupError("--half is for .safetensors: the published layout has 32-bit numbers")
    folder = Folder(run)
    recipe = Recipe.from_json(run_recipe(folder))
    checkpoints = Checkpoints(folder, keep=1)
    chosen = _chosen(checkpoints, step, run)
    model = MaskTokenizer(recipe.config)
    model.load_state_dict(checkpoints.load(chosen)["model"])
    if out.endswith(".pth"):
        save_published(model, out, sam2_weights=recipe.sam2_weights)
    else:
        save_tokenizer(model, out, name=name or posixpath.basename(run.rstrip("/")), trained=True, half=half)
    return f"{out}: the tokenizer after step {chosen:,}"


def _chosen(checkpoints: Checkpoints, step: str, run: str) -> int:
    found = checkpoints.all()
    best = checkpoints.best()
    if best is None:
        raise SetupError(f"{run}: no checkpoint yet")
    if step == "best":
        return best.step
    if step == "last":
        return found[-1].step
    if not step.isdigit() or int(step) not in {kept.step for kept in found}:
        raise SetupError(f"--step {step}: expected last, best or one of {', '.join(str(kept.step) for kept in found)}")
    return int(step)
