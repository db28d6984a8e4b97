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

import torch
import triton

_MOST_THREADS = 16
# Inside ``only_compiling``: what was compiled.
_compiled: ContextVar[list[Any] | None] = ContextVar("compiled", default=None)


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **options: Any) -> None:
    """Launches a kernel; inside ``only_compiling`` compiles it for such arguments.

    Args:
        kernel: made by ``triton.jit``.
        grid: number of programs along each axis.
        arguments: of the kernel, in its order.
        options: further arguments and Triton's own options, by name.
    """
    compiled = _compiled.get()
    if compiled is None:
        kernel[grid](*arguments, **options)
    else:
        compiled.append(kernel.warmup(*arguments, grid=grid, **options))


@contextlib.contextmanager
def only_compiling() -> Iterator[None]:
    """Inside, ``launch`` compiles and does not launch; at the end all is ready to be launched. What kernels would have
    written holds anything."""
    kernels: list[Any] = []
    token = _compiled.set(kernels)
    threads = min(_MOST_THREADS, len(os.sched_getaffinity(0)))
    try:
        with ThreadPoolExecutor(threads, "compile", *_on_this_gpu()) as pool:
            with _compiled_aside(pool):
                yield
            list(pool.map(_made_ready, {id(kernel): kernel for kernel in kernels}.values()))
    finally:
        _compiled.reset(token)


@contextlib.contextmanager
def _compiled_aside(pool: ThreadPoolExecutor) -> Iterator[None]:
    """Inside, Triton compiles on the pool's threads; at the end all is compiled."""
    mode = getattr(triton, "AsyncCompileMode", None)
    if mode is None:  # before 3.5; kernels are compiled one after the other
        yield
        return
    try:
        with mode(pool):
            yield
    finally:
        # Where a kernel cannot be compiled, Triton 3.6 and 3.7 leave this thread in the mode, and whatever it compiles
        # later goes to a pool that is closed. The end of a mode without kernels ends any.
        mode(pool).__exit__(None, None, None)


def _on_this_gpu() -> tuple[Any, ...]:
    """What a thread calls first, and with what: each has a current GPU of its own."""
    return (torch.cuda.set_device, (torch.cuda.current_device(),)) if torch.cuda.is_available() else ()


def _made_ready(kernel: Any) -> None:
    """What ``warmup`` gave, or where Triton compiles aside what it promised."""
    compiled = kernel.result() if hasattr(kernel, "result") else kernel
    # Builds the launcher and brings the kernel to the GPU, unless it is there. ``run`` would complain of too little
    # memory only the first time that it is asked for.
    compiled[(1, 1, 1)]
