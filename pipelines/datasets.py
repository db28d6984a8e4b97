"""Every dataset that ``--dataset`` takes: those of dialogues, and sources of masks."""

from __future__ import annotations

from converters.dialogues.registry import DATASETS
from converters.masks.registry import MASK_SOURCES
from pipelines.config import RunConfig
from pipelines.dialogue_work import DialogueWork
from pipelines.mask_work import MaskWork
from pipelines.work import Work
from samtok_data.errors import SetupError


def plan_work(config: RunConfig) -> Work:
    """Reads what a dataset's units are made from.

    Raises:
        SetupError: no such dataset, or its files or options cannot be used.
    """
    if config.dataset in DATASETS:
        return DialogueWork(config)
    if config.dataset in MASK_SOURCES:
        return MaskWork(config)
    known = ", ".join((*DATASETS, *MASK_SOURCES))
    raise SetupError(f"--dataset {config.dataset}: unknown; known are {known}")
