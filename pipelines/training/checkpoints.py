"""Checkpoints of a training run: each whole or not there, the last few and the best kept.

OUT/checkpoints/step-00001000.pt     the state: tensors, numbers and texts only, read without running code
OUT/checkpoints/step-00001000.json   written last: it commits the checkpoint; its step, r-IoU and size
"""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from samtok_data.errors import SetupError
from samtok_data.storage import TEMPORARY, Folder

FORMAT = 1
FOLDER = "checkpoints"


@dataclass(frozen=True, slots=True)
class Kept:
    """A checkpoint that is there.

    Attributes:
        step: optimiser steps that were made.
        r_iou: of the last validation at or before that step; None: not measured.
        num_bytes: of its state.
    """

    step: int
    r_iou: float | None
    num_bytes: int


class Checkpoints:
    """The checkpoints of a run.

    Args:
        out: folder of the run.
        keep: how many of the last are kept; the best is kept besides.
    """

    def __init__(self, out: Folder, *, keep: int) -> None:
        self._folder = out / FOLDER
        self._keep = keep

    def all(self) -> list[Kept]:
        """Every complete checkpoint, by step."""
        sizes = self._folder.sizes()
        entries = (_entry(self._folder.read(name)) for name in sizes if name.endswith(".json"))
        whole = (kept for kept in entries if kept is not None and sizes.get(_name(kept.step, "pt")) == kept.num_bytes)
        return sorted(whole, key=lambda kept: kept.step)

    def best(self) -> Kept | None:
        """The one with the highest r-IoU; the last where none was measured.

        The earliest of equals: between two validations a checkpoint has the figure of the one before.
        """
        found = self.all()
        measured = [(kept.r_iou, -kept.step, kept) for kept in found if kept.r_iou is not None]
        return max(measured)[-1] if measured else max(found, key=lambda kept: kept.step, default=None)

    def save(self, step: int, state: Mapping[str, Any], r_iou: float | None) -> None:
        """Writes a checkpoint, then removes those that need not be kept.

        Args:
            step: steps that were made.
            state: of tensors, numbers, texts, lists and mappings.
            r_iou: the last that was measured.

        Raises:
            OSError: it could not be written; the older ones are untouched.
        """
        buffer = io.BytesIO()
        torch.save({"format": FORMAT, **state}, buffer)
        data = buffer.getvalue()
        self._folder.write(_name(step, "pt"), data)
        entry = {"step": step, "r_iou": r_iou, "bytes": len(data)}
        self._folder.write(_name(step, "json"), json.dumps(entry, sort_keys=True).encode())
        self.tidy()

    def load(self, step: int) -> dict[str, Any]:
        """The state of a checkpoint.

        Raises:
            SetupError: there is none of that step, it is damaged, or of another format.
        """
        path = f"{self._folder}/{_name(step, 'pt')}"
        try:
            state = torch.load(io.BytesIO(self._folder.read(_name(step, "pt"))), map_location="cpu", weights_only=True)
        except FileNotFoundError as error:
            raise SetupError(f"{path}: no such checkpoint; there are {[kept.step for kept in self.all()]}") from error
        except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
            raise SetupError(f"{path}: the checkpoint is damaged; remove it to resume from the one before") from error
        if not isinstance(state, dict) or state.get("format") != FORMAT:
            raise SetupError(f"{path}: no checkpoint of this program's format {FORMAT}; start anew with --overwrite")
        return state

    def tidy(self) -> None:
        """Removes checkpoints that need not be kept, and what a killed run left of others.

        Raises:
            OSError: something could not be removed; the checkpoints that are kept are whole.
        """
        found, best = self.all(), self.best()
        for kept in found[: -self._keep]:
            if kept != best:
                self._folder.remove(_name(kept.step, "json"))  # first: without it the state does not count
                self._folder.remove(_name(kept.step, "pt"))
        self._folder.remove(TEMPORARY)
        # States without the entry that commits them.
        names = set(self._folder.names())
        for name in sorted(names):
            if name.endswith(".pt") and name.removesuffix("pt") + "json" not in names:
                self._folder.remove(name)


def _entry(data: bytes) -> Kept | None:
    """A checkpoint's entry; None where it is damaged, so that the checkpoint does not count."""
    try:
        entry = json.loads(data)
        return Kept(int(entry["step"]), entry["r_iou"], int(entry["bytes"]))
    except (ValueError, KeyError, TypeError):
        return None


def _name(step: int, suffix: str) -> str:
    return f"step-{step:08d}.{suffix}"
