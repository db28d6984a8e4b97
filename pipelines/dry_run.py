"""``samtok-data tokenize --dry-run``: what a run would do, from the annotations alone."""

from __future__ import annotations

from pipelines.config import RunConfig
from pipelines.datasets import plan_work
from pipelines.work import Preview


def preview(config: RunConfig) -> Preview:
    """Plans a run and writes nothing but the index of a mask source.

    Raises:
        SetupError: the annotation files, the image folder or the wording cannot be used. The tokenizer, the cluster and
            the output folder are not looked at.
    """
    return plan_work(config).preview()
