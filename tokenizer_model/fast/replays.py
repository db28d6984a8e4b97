"""What is launched over and over, recorded once as a CUDA graph: then Python launches one thing instead of hundreds."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import torch

Found = TypeVar("Found")


class Replays:
    """Functions of fixed inputs at fixed places in memory.

    What a function returns lies at a fixed place, too, and is overwritten when it is replayed. One is replayed after
    the other, on one stream.

    Args:
        device: on another than a GPU functions are simply called.
    """

    def __init__(self, device: torch.device) -> None:
        self._is_cuda = device.type == "cuda"
        self._graphs: dict[Hashable, tuple[torch.cuda.CUDAGraph, Any]] = {}
        self._pool: Any = None

    def __call__(self, name: Hashable, function: Callable[[], Found]) -> Found:
        """What the function gives of the inputs as they are now.

        Args:
            name: of the function, and of all that its launches depend on.
            function: launches kernels and waits for nothing.
        """
        if not self._is_cuda:
            return function()
        if name not in self._graphs:
            function()  # compiles kernels and makes plans, which cannot be recorded
            graph = torch.cuda.CUDAGraph()
            # Other threads may stage inputs meanwhile.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                found = function()
            self._pool = self._pool or graph.pool()
            self._graphs[name] = graph, found
        graph, found = self._graphs[name]
        graph.replay()
        return found

    def clear(self) -> None:
        """Forgets all, and gives its memory back."""
        self._graphs.clear()
        self._pool = None
