"""Rows of all workers of a training run, as one batch."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def gather_rows(rows_ND: Tensor) -> Tensor:
    """The rows of all workers in the order of their ranks, the same on each; without a process group, the rows.

    With several workers the numbers of rows are exchanged first, for which the device is waited for.

    Args:
        rows_ND: (N, D), of one type on all workers; N may differ and be 0. Not changed.

    Returns:
        (sum of all N, D), without gradient.
    """
    rows_ND = rows_ND.detach()
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return rows_ND
    own = torch.tensor([len(rows_ND)], device=rows_ND.device)
    all_own = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(all_own, own)
    numbers: list[int] = torch.cat(all_own).tolist()
    # Collectives want tensors of one shape: each is filled up to the longest, and cut again.
    padded_MD = rows_ND.new_zeros(max(numbers), rows_ND.shape[1])
    padded_MD[: len(rows_ND)] = rows_ND
    parts = [torch.empty_like(padded_MD) for _ in numbers]
    if padded_MD.numel():
        dist.all_gather(parts, padded_MD)
    return torch.cat([part_MD[:number] for part_MD, number in zip(parts, numbers, strict=True)])
