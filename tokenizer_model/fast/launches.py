"""Launching Triton's kernels; or only compiling them, many at the same time.

The fast path needs some dozens of kernels, of half a second of compiling each. Where a function that launches them is
called once inside ``only_compiling``, they are compiled together, and nothing is launched.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

import triton

_MOST_THREADS = 16
_only_compiles: ContextVar[bool] = ContextVar("only_compiles", default=False)


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **options: Any) -> None:
    """Launches a kernel; inside ``only_compiling`` compiles it for such arguments.

    Args:
        kernel: made by ``triton.jit``.
        grid: number of programs along each axis.
        arguments: of the kernel, in its order.
        options: further arguments and Triton's own options, by name.
    """
    if _only_compiles.get():
        kernel.warmup(*arguments, grid=grid, **options)
    else:
        kernel[grid](*arguments, **options)


@contextlib.contextmanager
def only_compiling() -> Iterator[None]:
    """Inside, ``launch`` compiles and does not launch; at the end all is compiled. What kernels would have written
    holds anything."""
    token = _only_compiles.set(True)
    try:
        # Before 3.5 Triton has no such mode, and compiles one kernel after the other.
        mode = getattr(triton, "AsyncCompileMode", None)
        if mode is None:
            yield
            return
        threads = min(_MOST_THREADS, len(os.sched_getaffinity(0)))
        with ThreadPoolExecutor(threads, thread_name_prefix="compile") as pool, mode(pool):
            yield
    finally:
        _only_compiles.reset(token)
