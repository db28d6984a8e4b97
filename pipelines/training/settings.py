"""The file that describes a training run: ``samtok-data train-tokenizer --config FILE``.

    mix: mix.yaml                # the sources with their weights (converters.masks.registry)
    validation: validation.yaml  # sources of the validation set; may be left away
    out: runs/first
    recipe:                      # every number of the training; what is left away is the published recipe
      architecture: samtok-256x2
      sam2_weights: sam2.1_hiera_large.pt
      steps: 20000
    images_per_pass: 16          # the rest says how it runs, not what comes out

Paths are relative to the file's folder.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipelines.config import read_yaml
from samtok_data.errors import SetupError
from tokenizer_model.training.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """A training run.

    Attributes:
        mix: file of the sources and their weights.
        out: folder or address of the run.
        validation: file of the sources of the validation set; None: r-IoU is not measured.
        recipe: what comes out depends on this, on the sources and on nothing else.
        images_per_pass: images of a worker that go through the network at once; gradients add up over a step.
        compiled: torch.compile the network; the first steps take a minute or two.
        workers: processes, each with a GPU where there are any; through Ray Train if more than one.
        device: ``cpu``, ``cuda`` or None for a GPU where there is one.
        address: of a Ray cluster to join; None: this machine.
        loaders: processes that read images for each worker; 0: the worker reads itself.
        kept_images: pictures that each loader keeps decoded, for sources that have no more.
        resident_gib: keep all images and masks on each GPU if they take no more than this there; 0: read them for each
            step. For sources of some thousand images it is several times faster.
        log_every: steps between two lines of the log.
        validate_every: steps between two measurements of r-IoU.
        validation_images: of each source of the validation set.
        sheet_every: steps between two sheets of reconstructions, at a validation.
        save_every: steps between two checkpoints.
        keep: last checkpoints that are kept; the best is kept besides.
        max_minutes: stop with a checkpoint after so long; the same command goes on from there. None: no limit.
        overwrite: remove an earlier run in ``out`` first.
    """

    mix: str
    out: str
    validation: str | None = None
    recipe: Recipe = field(default_factory=Recipe)
    images_per_pass: int = 8
    compiled: bool = False
    workers: int = 1
    device: str | None = None
    address: str | None = None
    loaders: int = 4
    kept_images: int = 0
    resident_gib: float = 0.0
    log_every: int = 10
    validate_every: int = 1000
    validation_images: int = 50
    sheet_every: int = 5000
    save_every: int = 1000
    keep: int = 3
    max_minutes: float | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        least = {"loaders": 0, "kept_images": 0}
        for name in _COUNTS:
            value = getattr(self, name)
            is_count = isinstance(value, int) and not isinstance(value, bool) and value >= least.get(name, 1)
            _check(is_count, name, f"at least {least.get(name, 1)}", value)
        is_size = _is_number(self.resident_gib) and self.resident_gib >= 0
        _check(is_size, "resident_gib", "0 or more", self.resident_gib)
        if self.max_minutes is not None:
            _check(_is_number(self.max_minutes) and self.max_minutes > 0, "max_minutes", "above 0", self.max_minutes)
        _check(self.device in (None, "cpu", "cuda"), "device", "cpu or cuda", self.device)
        for name in ("compiled", "overwrite"):
            _check(isinstance(getattr(self, name), bool), name, "true or false", getattr(self, name))
        for name in ("validation", "address"):
            _check(isinstance(getattr(self, name), str | None), name, "a text", getattr(self, name))
        if self.recipe.images_per_step % self.workers:
            raise SetupError(
                f"training configuration: {self.recipe.images_per_step} images a step cannot be divided among "
                f"{self.workers} workers; change recipe.batch, recipe.masks_per_image or workers"
            )
        is_shared = bool(self.out) and not self.out.startswith("memory:")
        _check(is_shared, "out", "a folder that every process can reach", self.out)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check(holds: bool, name: str, wanted: str, got: Any) -> None:
    if not holds:
        raise SetupError(f"training configuration: {name} should be {wanted}, got {got!r}")


_COUNTS = (
    "images_per_pass", "workers", "loaders", "kept_images", "log_every", "validate_every", "validation_images",
    "sheet_every", "save_every", "keep",
)  # fmt: skip
_PATHS = ("mix", "validation", "out")
_RECIPE_PATHS = ("sam2_weights", "initial")


def read_settings(path: str, **overriding: Any) -> TrainSettings:
    """Reads a configuration file.

    Args:
        path: of the YAML file.
        overriding: settings that count instead of the file's; None counts as not given.

    Raises:
        SetupError: no such file, no YAML, an unknown or missing setting, a value out of range.
    """
    values = read_yaml(path, "settings")
    known = {entry.name for entry in dataclasses.fields(TrainSettings)}
    for name in values:
        if name not in known:
            raise SetupError(f"--config {path}: {name!r} is no setting; known are {', '.join(sorted(known))}")
    settings = {name: _beside(path, value) if name in _PATHS else value for name, value in values.items()}
    settings["recipe"] = _recipe(path, settings.get("recipe") or {})
    settings.update({name: value for name, value in overriding.items() if value is not None})
    for name in ("mix", "out"):
        if not isinstance(settings.get(name), str):
            raise SetupError(f"--config {path}: {name} is missing")
    return TrainSettings(**settings)


def _recipe(path: str, values: Any) -> Recipe:
    if not isinstance(values, Mapping):
        raise SetupError(f"--config {path}: recipe should be a mapping of settings, got {values!r}")
    return Recipe.from_json({
        name: _beside(path, value) if name in _RECIPE_PATHS and _is_file_name(value) else value
        for name, value in values.items()
    })


def _is_file_name(value: Any) -> bool:
    """Whether it is a path and not a tokenizer's name such as ``small``."""
    return isinstance(value, str) and ("/" in value or "." in value)


def _beside(path: str, value: Any) -> Any:
    """A relative path as seen from the configuration file."""
    if not isinstance(value, str) or "://" in value:
        return value
    return os.path.join(os.path.dirname(os.path.abspath(path)), os.path.expanduser(value))
