"""Everything that is settled before the first shard: converter, plan, tokenizer, fingerprint of each split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from converters.registry import open_converter
from converters.source import Converter, Plan, Unit
from pipelines.config import RunConfig
from samtok_data import __version__
from samtok_data.fingerprints import Fingerprint
from samtok_data.outputs import FORMAT_VERSION, SplitOutput
from samtok_data.storage import Folder

if TYPE_CHECKING:
    from tokenizer_model import TokenizerIdentity

# Their arithmetic or their decoders stand behind every byte of a shard.
_SOFTWARE = ("torch", "sam2", "pillow", "pycocotools")


def converter_of(config: RunConfig) -> Converter:
    """The converter that the settings ask for.

    Raises:
        SetupError: an unknown dataset, partition or wording.
    """
    return open_converter(
        config.dataset,
        root=config.root,
        images_root=config.images_root,
        partition=config.partition,
        crowd=config.crowd,
        seed=config.seed,
        wording=config.wording,
    )


def plan_of(config: RunConfig, converter: Converter) -> Plan:
    """The dataset cut into units.

    Raises:
        SetupError: see ``Converter.plan``.
    """
    return converter.plan(splits=config.split, unit_size=config.samples_per_shard, limit=config.limit)


def software() -> dict[str, str]:
    """Versions of what stands behind every byte of a shard, on the machine that asks."""
    return {"samtok-data": __version__, **{name: version(name) for name in _SOFTWARE}}


@dataclass(frozen=True, slots=True)
class SplitRun:
    """One split of a run.

    Attributes:
        output: its folder.
        fingerprint: of everything that changes its bytes.
        units: all of them, in order.
    """

    output: SplitOutput
    fingerprint: Fingerprint
    units: Sequence[Unit]


def split_runs(
    config: RunConfig, converter: Converter, plan: Plan, tokenizer: TokenizerIdentity, device: str
) -> list[SplitRun]:
    """The splits of a plan with their output folders, in the plan's order. Nothing is written.

    Raises:
        SetupError: the output address is none.
    """
    out = Folder(config.out)
    by_split: dict[str, list[Unit]] = {}
    for unit in plan.units:
        by_split.setdefault(unit.split, []).append(unit)
    shared: dict[str, Any] = {
        "format": FORMAT_VERSION,
        "dataset": converter.name,
        "files": dict(plan.files),
        "converter": dict(converter.settings),
        "tokenizer": tokenizer.fingerprint,
        "precision": config.precision,
        "device": device,
        "images": config.images,
        "samples_per_shard": config.samples_per_shard,
        "limit": config.limit,
        "measure_iou": config.measure_iou,
        "software": software(),
    }
    return [
        SplitRun(SplitOutput(out, converter.name, split), Fingerprint({**shared, "split": split}), units)
        for split, units in by_split.items()
    ]
