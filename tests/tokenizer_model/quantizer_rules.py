"""The quantisers' definitions as plain loops in float64, which the tests hold the code against."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from tokenizer_model.quantizers import Codebook, ResidualQuantizer

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def numbers(seed: int, *shape: int) -> Floats:
    return np.random.Generator(np.random.Philox(seed)).standard_normal(shape)


def residual(codebook_size: int, depth: int, channels: int, *, shared: bool = False) -> ResidualQuantizer:
    """A quantiser with rows drawn by a rule; the padding row is 0, where every residual would like to go."""
    quantizer = ResidualQuantizer(codebook_size, depth, channels, shared=shared).requires_grad_(False)
    for index, (name, tensor) in enumerate(quantizer.state_dict().items()):
        tensor.copy_(torch.from_numpy(numbers(1000 * codebook_size + index, *tensor.shape)))
        if name.endswith("weight"):
            tensor[-1] = 0
    return quantizer


def codebooks(quantizer: ResidualQuantizer) -> list[Codebook]:
    return [cast("Codebook", codebook) for codebook in quantizer.codebooks]


def set_averages(quantizer: ResidualQuantizer, counts: list[float]) -> None:
    """As if the rows had been chosen for long: moving counts in turn from the list, moving sums to match."""
    for codebook in codebooks(quantizer):
        size = len(codebook.cluster_size_ema)
        codebook.cluster_size_ema.copy_(torch.tensor((counts * size)[:size]))
        codebook.embed_ema.copy_(codebook.rows_KD.detach() * codebook.cluster_size_ema[:, None])


def state_of(quantizer: torch.nn.Module) -> dict[str, Floats]:
    return {name: tensor.detach().double().numpy().copy() for name, tensor in quantizer.state_dict().items()}


def coded(state: dict[str, Floats], depth: int, z_ND: Floats) -> tuple[Ints, list[Floats]]:
    """Codes, (N, L), and of each level what it had to code."""
    codes, inputs, left_ND = [], [], z_ND.copy()
    for level in range(depth):
        name = f"codebooks.{level}.weight"
        rows_KD = state[name if name in state else "codebooks.0.weight"][:-1]
        inputs.append(left_ND.copy())
        codes.append([min(range(len(rows_KD)), key=lambda row: ((z - rows_KD[row]) ** 2).sum()) for z in left_ND])
        left_ND = np.array([z - rows_KD[code] for z, code in zip(left_ND, codes[-1], strict=True)])
        left_ND = left_ND.reshape(z_ND.shape)
    return np.array(codes, np.int64).reshape(depth, -1).T, inputs


@dataclass
class Step:
    """What ``update`` should have made: the state, and restarted rows of each codebook."""

    state: dict[str, Floats]
    restarted: list[int]


def updated(before: dict[str, Floats], depth: int, z_ND: Floats, decay: float, seed: int) -> Step:
    """One step of the moving averages, row by row."""
    after = {name: array.copy() for name, array in before.items()}
    num_books = len(before) // 3
    codes_NL, inputs = coded(before, depth, z_ND)
    batches = [(inputs[level], codes_NL[:, level]) for level in range(depth)]
    if num_books == 1:
        batches = [(np.concatenate(inputs), codes_NL.T.reshape(-1))]
    generator, restarted = torch.Generator().manual_seed(seed), []
    for book, (vectors, chosen) in enumerate(batches):
        sums, counts = after[f"codebooks.{book}.embed_ema"], after[f"codebooks.{book}.cluster_size_ema"]
        num_rows, channels = sums.shape
        copies = math.ceil(num_rows / len(vectors))
        order = torch.randperm(copies * len(vectors), generator=generator).tolist()
        noise = np.zeros_like(sums)
        if copies > 1:
            noise = torch.rand(sums.shape, generator=generator).double().numpy() * 0.01 / math.sqrt(channels)
        restarted.append(0)
        for row in range(num_rows):
            mine = [vector for vector, code in zip(vectors, chosen, strict=True) if code == row]
            counts[row] = decay * counts[row] + (1 - decay) * len(mine)
            sums[row] = decay * sums[row] + (1 - decay) * sum(mine, np.zeros(channels))
            if counts[row] < 1:
                counts[row], sums[row] = 1, vectors[order[row] % len(vectors)] + noise[row]
                restarted[-1] += 1
        total = counts.sum()
        for row in range(num_rows):
            smoothed = total * (counts[row] + 1e-5) / (total + num_rows * 1e-5)
            after[f"codebooks.{book}.weight"][row] = sums[row] / smoothed
    return Step(after, restarted)
