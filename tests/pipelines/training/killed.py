"""A training run that kills itself with SIGKILL at a named moment; run in a process of its own."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import torch

from pipelines.training.checkpoints import Checkpoints
from pipelines.training.run import train
from pipelines.training.settings import read_settings
from samtok_data.storage import Folder
from tokenizer_model.training.optimiser import Optimiser

Function = Callable[..., Any]


def _die(*_arguments: Any, **_options: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _before(owner: Any, name: str, condition: Callable[..., bool]) -> None:
    """Dies where a function is called, before it does anything."""
    function: Function = getattr(owner, name)

    def wrapped(*arguments: Any, **options: Any) -> Any:
        if condition(*arguments):
            _die()
        return function(*arguments, **options)

    setattr(owner, name, wrapped)


def _after(owner: Any, name: str, condition: Callable[..., bool]) -> None:
    """Dies where a function has done its work, before anybody hears of it."""
    function: Function = getattr(owner, name)

    def wrapped(*arguments: Any, **options: Any) -> Any:
        result = function(*arguments, **options)
        if condition(*arguments):
            _die()
        return result

    setattr(owner, name, wrapped)


# The run saves after steps 4, 8 and 12 and keeps the last two. At 12 the checkpoint of step 4 goes.
MOMENTS: dict[str, Callable[[], None]] = {
    "in the first step": lambda: _after(torch.Tensor, "backward", lambda *_: True),
    "during a step": lambda: _after(Optimiser, "step", lambda optimiser, _: optimiser.step_number == 7),
    "between log and checkpoint": lambda: _before(Checkpoints, "save", lambda _, step, *__: step == 8),
    "while the state is written": lambda: _before(
        os, "replace", lambda _, target: str(target).endswith("step-00000008.pt")
    ),
    "before the state is committed": lambda: _before(
        os, "replace", lambda _, target: str(target).endswith("step-00000008.json")
    ),
    "while an old one is removed": lambda: _before(
        Folder, "remove", lambda _, name: str(name).endswith("step-00000004.pt")
    ),
    "right after a checkpoint": lambda: _after(Checkpoints, "save", lambda _, step, *__: step == 8),
}


def run_and_die(moment: str, config: str) -> None:
    """Trains until the moment comes."""
    torch.set_num_threads(1)
    MOMENTS[moment]()
    train(read_settings(config))
