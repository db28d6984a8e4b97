"""A training run from its settings to its end: in this process, or on many workers through Ray Train."""

from __future__ import annotations

import torch

from pipelines.mixes import open_sources
from pipelines.training.beginning import begin
from pipelines.training.settings import TrainSettings
from pipelines.training.validation import require_images
from pipelines.training.worker import Outcome, Worker
from samtok_data.errors import SetupError
from samtok_data.storage import Folder


def train(settings: TrainSettings) -> Outcome:
    """Trains, or goes on with a run that was interrupted.

    Raises:
        SetupError: it cannot start, or an end was put to it; the message says what to do.
    """
    device = settings.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available() and settings.address is None:
        raise SetupError("device cuda: this machine has no CUDA device; take cpu")
    # Every file that is read is looked at before the run's folder is touched. Indexes of annotation files are made
    # on the way, once, so that workers find them.
    out = Folder(settings.out)
    sources = open_sources(settings.mix, out)
    validation = [] if settings.validation is None else open_sources(settings.validation, out)
    require_images(source for source, _ in (*sources, *validation))
    begin(settings, sources)
    if settings.workers == 1 and settings.address is None:
        return Worker(settings, torch.device(device)).run()
    from pipelines.training.ray_workers import train_on_ray

    return train_on_ray(settings, device)
