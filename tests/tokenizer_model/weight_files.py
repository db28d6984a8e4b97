"""Files of the small tokenizer's weights, whole and spoiled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tokenizer_model import MaskTokenizer

State = dict[str, torch.Tensor]


def written(small: MaskTokenizer, path: Path, change: Callable[[State], Any]) -> str:
    """A .pth file of the small tokenizer's weights after a change."""
    state = {key: tensor.clone() for key, tensor in small.state_dict().items()}
    change(state)
    torch.save(state, path)
    return str(path)


def same_weights(one: MaskTokenizer, other: MaskTokenizer) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(tensor, theirs[key]) for key, tensor in one.state_dict().items())
