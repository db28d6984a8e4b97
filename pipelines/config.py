"""The settings of one run, by the names of the command line's options; a YAML file may hold the same names."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import yaml

from samtok_data.errors import SetupError
from tokenizer_model.config import Precision

DEFAULT_TOKENIZER = "samtok-256x2"
USUAL_SPLIT = "train"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """What ``samtok-data tokenize`` was asked to do.

    Attributes:
        dataset: name in the table of converters.
        root: address of the annotation files (and images, unless ``images_root`` is given).
        out: address of the output folder.
        partition: who cut the splits, where a dataset has several versions; None: the dataset's usual one.
        images_root: address of the images, where they lie elsewhere.
        split: splits to tokenise; ``all`` for every one in the file; None: the usual one, ``train``, or all of a
            dataset whose splits are no more than folders.
        tokenizer: ``samtok-256x2``, ``small`` or a checkpoint's address.
        precision: ``fp16``, ``bf16`` or ``fp32``; None: ``fp16`` on GPUs, which is fast, and ``fp32`` on CPUs.
        images: ``embed`` the image bytes in the shards, or ``reference`` them by name.
        crowd: ``keep`` or ``skip`` crowd targets.
        wording: address of a wording file; None: the bundled one.
        samples_per_shard: records after which a unit of dialogues is closed.
        images_per_file: images (or videos) of a table, of a mask source that is not read from tars.
        option: options of a mask source, as its reader documents them.
        limit: only the first so many images of each split.
        seed: of the wording, and of the masks and frames that a source draws.
        max_reject_rate: rejected fraction of all records, 0..1, above which the run ends with an error.
        measure_iou: decode every word again and store its IoU with the mask.
        actors: number of processes that hold the tokenizer; None: one for each GPU of the cluster, or for each CPU
            where it has none.
        feeders: processes that read and write for each of these on GPUs; None: the cores of a node divided by what it
            has room for, less one, at most 8.
        num_gpus_per_actor: GPUs that an actor holds, may be a fraction; None: 1 where the cluster has GPUs, else 0.
        address: of a running Ray cluster; None: Ray starts one on this machine.
        overwrite: delete an earlier run's output instead of resuming it.
        retry_images: of a mask source, make the units again in which images could not be used.
    """

    dataset: str
    root: str
    out: str
    partition: str | None = None
    images_root: str | None = None
    split: tuple[str, ...] | None = None
    tokenizer: str = DEFAULT_TOKENIZER
    precision: Precision | None = None
    images: Literal["embed", "reference"] = "embed"
    crowd: Literal["keep", "skip"] = "keep"
    wording: str | None = None
    samples_per_shard: int = 1000
    images_per_file: int = 1000
    option: Mapping[str, Any] = field(default_factory=dict)
    limit: int | None = None
    seed: int = 0
    max_reject_rate: float = 0.05
    measure_iou: bool = False
    actors: int | None = None
    feeders: int | None = None
    num_gpus_per_actor: float | None = None
    address: str | None = None
    overwrite: bool = False
    retry_images: bool = False

    def precision_on(self, device: str) -> Precision:
        """What ``cuda`` or ``cpu`` computes in."""
        return self.precision or ("fp16" if device == "cuda" else "fp32")

    def __post_init__(self) -> None:
        for name in ("samples_per_shard", "images_per_file", "limit", "actors", "feeders"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SetupError(f"{_option(name)} should be at least 1, got {value}")
        if not 0 <= self.max_reject_rate <= 1:
            raise SetupError(f"--max-reject-rate should be a fraction from 0 to 1, got {self.max_reject_rate}")
        if self.num_gpus_per_actor is not None and not 0 <= self.num_gpus_per_actor < math.inf:
            raise SetupError(f"--num-gpus-per-actor should be 0 or more, got {self.num_gpus_per_actor}")
        for name in ("root", "out"):
            if not getattr(self, name) or getattr(self, name).startswith("memory:"):
                raise SetupError(
                    f"{_option(name)} should be a folder that every process can reach, got {getattr(self, name)!r}"
                )
        if self.split is not None and not self.split:
            raise SetupError("--split should name at least one split, got none")


def usual_of(name: str) -> Any:
    """What a setting is where it is not given."""
    return next(one.default for one in fields(RunConfig) if one.name == name)


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def read_yaml(path: str, content: str) -> dict[Any, Any]:
    """The mapping that a YAML file given by ``--config`` holds.

    Args:
        path: of the file.
        content: what it should map, for the message.

    Raises:
        SetupError: no such file, or no YAML mapping.
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SetupError(f"--config {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SetupError(f"--config {path}: no valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise SetupError(f"--config {path}: expected a mapping of {content}")
    return values


def read_config(path: str, known: Collection[str]) -> dict[str, Any]:
    """Settings from a YAML file, by the names of the command line's options (``-`` or ``_`` in them).

    Args:
        path: of the file.
        known: names of the options.

    Raises:
        SetupError: no such file, no YAML mapping, or a name that is no option.
    """
    settings = read_yaml(path, "option names to values")
    named = {str(name).replace("-", "_"): value for name, value in settings.items()}
    for name in named:
        if name not in known:
            raise SetupError(f"--config {path}: {name!r} is no option; known are {', '.join(sorted(known))}")
    if isinstance(named.get("split"), str):
        named["split"] = [named["split"]]
    if isinstance(named.get("option"), dict):
        # JSON is YAML, so ``read_options`` reads it again; what is no JSON, such as a date, keeps its own spelling.
        named["option"] = [
            f"{name}={json.dumps(value, ensure_ascii=False, default=str)}" for name, value in named["option"].items()
        ]
    elif isinstance(named.get("option"), str):
        named["option"] = [named["option"]]
    return named


def read_options(given: Iterable[str]) -> dict[str, Any]:
    """Options of a mask source from the command line: ``masks_per_image=null``, ``parts=[base, large]``.

    Args:
        given: ``NAME=VALUE`` each, the value in YAML.

    Raises:
        SetupError: one is something else, or a name stands twice.
    """
    options: dict[str, Any] = {}
    for text in given:
        name, sign, value = text.partition("=")
        name = name.strip().replace("-", "_")
        if not sign or not name or name in options:
            raise SetupError(f"--option {text}: expected NAME=VALUE, each name once")
        try:
            options[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise SetupError(f"--option {text}: the value is no YAML") from error
    return options
