"""What a device can do at best, measured on it: bytes copied a second, and operations of matrix products a second."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

_WARM_UP = 3
# Of ``timed``: one measurement lasts at least so long, and the best of so many counts.
_LEAST_SECONDS = 0.15
_REPEATS = 3


def timed(call: Callable[[], Any], device: torch.device, *, warm_up: int = _WARM_UP) -> float:
    """Seconds of one call: the best of three means. The device is waited for before and after each."""
    for _ in range(warm_up):
        call()
    _wait(device)
    start = time.perf_counter()
    call()
    _wait(device)
    number = max(1, int(_LEAST_SECONDS / max(time.perf_counter() - start, 1e-6)))
    return min(_mean(call, device, number) for _ in range(_REPEATS))


def _mean(call: Callable[[], Any], device: torch.device, number: int) -> float:
    start = time.perf_counter()
    for _ in range(number):
        call()
    _wait(device)
    return (time.perf_counter() - start) / number


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def limits(device: torch.device) -> dict[str, float]:
    """Bandwidths in GB/s and matrix rates in TFLOP/s of a device."""
    is_gpu = device.type == "cuda"
    megabytes, side = (1024, 8192) if is_gpu else (64, 1024)
    found = {"copy_gb_per_s": _copied(megabytes, device, device, traffic=2)}
    if is_gpu:
        host = torch.device("cpu")
        found["to_device_gb_per_s"] = _copied(megabytes, host, device)
        found["from_device_gb_per_s"] = _copied(megabytes, device, host)
    for kind in (torch.bfloat16, torch.float16, torch.float32) if is_gpu else (torch.float32,):
        name = str(kind).removeprefix("torch.")
        one, other = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
        seconds = timed(lambda one=one, other=other: one @ other, device)
        found[f"{name}_tflops"] = round(2 * side**3 / seconds / 1e12, 2)
    return found


def _copied(megabytes: int, source: torch.device, target: torch.device, traffic: int = 1) -> float:
    """GB/s of a copy; within a device each byte is read and written, and both count."""
    is_host = source != target
    whole = torch.empty(megabytes << 20, dtype=torch.uint8, device=source, pin_memory=is_host and source.type == "cpu")
    copy = torch.empty_like(whole, device=target, pin_memory=is_host and target.type == "cpu")
    seconds = timed(lambda: copy.copy_(whole, non_blocking=True), target if target.type == "cuda" else source)
    return round(traffic * (megabytes << 20) / seconds / 1e9, 1)


def cost(call: Callable[[], Any]) -> tuple[float, float]:
    """Floating point operations of matrix products and convolutions in a call, and bytes that its eager operations
    read and write; the bytes are what fusing can spare."""
    with FlopCounterMode(display=False) as operations:
        call()
    with _Traffic() as traffic:
        call()
    return float(operations.get_total_flops()), float(traffic.bytes)


class _Traffic(TorchDispatchMode):
    """Counts the bytes that operations read and write; views cost none."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if not func.is_view and "empty" not in func.name():
            tensors = [one for one in tree_leaves((args, kwargs, found)) if isinstance(one, Tensor)]
            self.bytes += sum(one.numel() * one.element_size() for one in tensors)
        return found
