"""How a run begins: a fresh model, or the checkpoint that it goes on from; refused if that is another run's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import torch

from converters.masks.source import MaskSource
from pipelines.training.checkpoints import FOLDER, Checkpoints
from pipelines.training.settings import TrainSettings
from samtok_data import __version__
from samtok_data.errors import SetupError
from samtok_data.fingerprints import Fingerprint
from samtok_data.outputs import HIDDEN
from samtok_data.storage import TEMPORARY, Folder
from tokenizer_model.addresses import local_file, sha256
from tokenizer_model.loading import EMBEDDED, open_tokenizer
from tokenizer_model.loading import load_sam2_weights as load_sam2
from tokenizer_model.tokenizer import MaskTokenizer
from tokenizer_model.training.fresh import prepare_fresh
from tokenizer_model.training.recipe import Recipe

_RUN = f"{HIDDEN}/train.json"


def fresh_model(recipe: Recipe, device: torch.device) -> MaskTokenizer:
    """The model that training starts with: random by the recipe's seed, then whatever weights the recipe names.

    Raises:
        SetupError: the weights cannot be read or are of another architecture.
    """
    state = None
    if recipe.initial is not None:
        earlier = open_tokenizer(recipe.initial)
        if earlier.config != recipe.config:
            raise SetupError(
                f"recipe.initial {recipe.initial}: its architecture is {earlier.config.json}, "
                f"the recipe's is {recipe.config.json}; make them equal"
            )
        state = earlier.state_dict()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = MaskTokenizer(recipe.config, precision=recipe.precision if device.type == "cuda" else "fp32")
    if state is not None:
        model.load_state_dict(state)
    elif recipe.sam2_weights is not None:
        load_sam2(model, recipe.sam2_weights)
    else:
        prepare_fresh(model)
    return model.to(device)


def begin(settings: TrainSettings, sources: Sequence[tuple[MaskSource, float]]) -> None:
    """Claims the run's folder, or checks that what lies there is the same run. Done once, before any worker starts.

    Args:
        settings: of the run.
        sources: of its mix, opened.

    Raises:
        SetupError: another run lies there, the folder cannot be written, or the weights to begin with cannot be used.
            Nothing was written or deleted.
    """
    out = Folder(settings.out)
    fingerprint = _fingerprint(settings.recipe, sources)
    if settings.overwrite or not out.exists(_RUN):
        fresh_model(settings.recipe, torch.device("cpu"))  # before anything is deleted
    try:
        if settings.overwrite:
            for name in (HIDDEN, FOLDER, "sheets", "tensorboard", "metrics.csv", "curves.png", "rejects.jsonl"):
                out.remove(name)
        if out.exists(_RUN):
            earlier = _earlier(out)
            fingerprint.require_same(earlier, str(out))
            out.remove(TEMPORARY)  # what a killed run left half written
            Checkpoints(out, keep=settings.keep).tidy()
        elif Checkpoints(out, keep=1).all():
            raise SetupError(
                f"{out} holds checkpoints, but not which run made them ({_RUN} is gone); choose another out"
            )
        else:
            content = {"fingerprint": fingerprint.parts, "recipe": settings.recipe.json}
            out.write(_RUN, json.dumps(content, indent=1, sort_keys=True).encode())
    except OSError as error:
        raise SetupError(f"out {out} cannot be used: {error}") from error


def run_recipe(out: Folder) -> dict[str, Any]:
    """The recipe of the run that lies in a folder, as JSON values; addresses as they were given then.

    Raises:
        SetupError: there is no training run.
    """
    try:
        return json.loads(out.read(_RUN))["recipe"]
    except (OSError, ValueError, KeyError) as error:
        raise SetupError(f"{out}: no training run lies here (no {_RUN})") from error


def _earlier(out: Folder) -> Fingerprint:
    try:
        parts = json.loads(out.read(_RUN))["fingerprint"]
        if not isinstance(parts, dict):
            raise TypeError("expected an object")
    except (ValueError, KeyError, TypeError) as error:
        raise SetupError(f"{out}/{_RUN} is damaged: choose another out, or --overwrite to delete the run") from error
    return Fingerprint(parts)


def _fingerprint(recipe: Recipe, sources: Sequence[tuple[MaskSource, float]]) -> Fingerprint:
    """What decides the numbers of a run. Where files lie does not."""
    values = recipe.json
    for name in ("sam2_weights", "initial"):
        if values[name] is not None and values[name] != EMBEDDED:
            values[name] = sha256(local_file(values[name]))
    return Fingerprint({
        "recipe": values,
        "sources": {source.name: {"weight": weight, **source.settings} for source, weight in sources},
        "versions": {"samtok-data": __version__, "torch": torch.__version__, "sam2": version("sam2")},
    })
