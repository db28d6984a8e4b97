"""Weights for tests: a fixed seed and a rule, the same on every machine.

numpy's Philox generator, keyed by the crc32 of the tensor's name, gives standard normal numbers. A tensor of two or
more dimensions is divided by the square root of its fan-in; a vector whose name ends in ``weight`` is 1 plus a tenth
of them, any other a fiftieth. The exceptions below make masks of one photo fall on different codes.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

# What the rule gives is multiplied by this where the pattern fits the whole name.
_GAINS = {
    # Sharper attention: one that is spread evenly over the image sees the same average for every mask.
    re.compile(r".*\.sam_mask_encoder\.transformer\..*\.[qk]_proj\.weight"): 3.0,
    # The mask speaks louder than the image under it.
    re.compile(r".*\.sam_prompt_encoder\.mask_downscaling\.6\.weight"): 4.0,
}
# The standard deviation is this, whatever the fan-in.
_DEVIATIONS = {
    re.compile(r".*\.positional_encoding_gaussian_matrix"): 1.0,  # as SAM draws it
    re.compile(r"quantizer\.codebooks\..*\.weight"): 0.3,  # below the spread of z, or a row's length would decide
}


def seeded_state(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """The tensors of a tokenizer by the rule above.

    Args:
        shapes: of every key of its state dict.

    Returns:
        float32 tensors. The codebooks' training state is that of no vector seen.
    """
    state = {name: torch.from_numpy(_tensor(name, shape)) for name, shape in shapes.items()}
    for name in shapes:
        if name.endswith(".cluster_size_ema"):
            state[name] = torch.zeros(shapes[name])
        elif name.endswith(".embed_ema"):
            state[name] = state[name.removesuffix("embed_ema") + "weight"][:-1].clone()
    return state


def _tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    generator = np.random.Generator(np.random.Philox(zlib.crc32(name.encode())))
    normal = generator.standard_normal(shape, dtype=np.float32)
    if len(shape) < 2:
        return 1 + np.float32(0.1) * normal if name.endswith("weight") else np.float32(0.02) * normal
    return normal * np.float32(_deviation(name, shape))


def _deviation(name: str, shape: tuple[int, ...]) -> float:
    for pattern, deviation in _DEVIATIONS.items():
        if pattern.fullmatch(name):
            return deviation
    gain = math.prod(gain for pattern, gain in _GAINS.items() if pattern.fullmatch(name))
    return gain / math.sqrt(math.prod(shape[1:]))
