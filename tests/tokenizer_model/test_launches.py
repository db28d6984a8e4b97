"""Kernels are launched, or only compiled, together; with a kernel that writes down what is asked of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("triton", reason="triton is not installed")

from triton.compiler import compiler
from triton.runtime import _async_compile as async_compile
from triton.runtime.errors import OutOfResources

from tokenizer_model.fast.launches import launch, only_compiling


class Compiled:
    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel

    def __getitem__(self, _grid: tuple[int, ...]) -> None:
        self.kernel.asked.append(("made ready",))


class Kernel:
    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return lambda *arguments, **options: self.asked.append(("launched", grid, arguments, options))

    def warmup(self, *arguments: Any, grid: tuple[int, ...], **options: Any) -> Compiled:
        self.asked.append(("compiled", grid, arguments, options))
        return Compiled(self)


def test_a_kernel_is_only_compiled_inside_the_block_and_launched_outside() -> None:
    kernel = Kernel()
    launch(kernel, (2, 3), 4, 5, num_warps=8)
    with only_compiling():
        launch(kernel, (1,), 4, num_warps=2)
    launch(kernel, (7,))
    assert kernel.asked == [
        ("launched", (2, 3), (4, 5), {"num_warps": 8}),
        ("compiled", (1,), (4,), {"num_warps": 2}),
        ("made ready",),
        ("launched", (7,), (), {}),
    ]


class Promise:
    """As Triton's own: of it only ``result`` is sure to be there."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel

    def result(self) -> Compiled:
        return Compiled(self.kernel)


def test_what_triton_promises_is_made_ready_once(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel()
    promise = Promise(kernel)
    monkeypatch.setattr(kernel, "warmup", lambda *_, **__: promise)
    with only_compiling():
        launch(kernel, (1,))
        launch(kernel, (2,))
    assert kernel.asked == [("made ready",)]


def test_after_an_error_kernels_are_launched_again() -> None:
    kernel = Kernel()
    with pytest.raises(KeyError), only_compiling():
        raise KeyError
    launch(kernel, (1,))
    assert [what for what, *_ in kernel.asked] == ["launched"]


class BrokenKernel:
    """Is compiled as Triton's own are, aside where a mode is active, else at once; and cannot be."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def warmup(self, *_arguments: Any, grid: tuple[int, ...]) -> Any:
        mode = async_compile.active_mode.get()
        return self._compile() if mode is None else mode.submit("broken", self._compile, lambda _: None)

    def _compile(self) -> None:
        raise self.error


@pytest.mark.parametrize("error", [RuntimeError("no such type"), KeyboardInterrupt("no such type")])
def test_after_an_error_of_the_compiler_triton_compiles_as_usual(error: BaseException) -> None:
    kernel = BrokenKernel(error)
    for _ in range(2):  # a mode that were still active would refuse the second one
        with pytest.raises(type(error), match="no such type"), only_compiling():
            launch(kernel, (1,))
        assert async_compile.active_mode.get() is None


def test_without_a_mode_of_its_own_triton_compiles_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("triton.AsyncCompileMode", raising=False)
    kernel = Kernel()
    with only_compiling():
        launch(kernel, (1,))
    assert [what for what, *_ in kernel.asked] == ["compiled", "made ready"]


def test_a_kernel_that_does_not_fit_is_refused_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """With Triton's own class, which remembers that it was asked."""
    gpu = SimpleNamespace(get_current_device=lambda: 0, launcher_cls=lambda *_: None)
    monkeypatch.setattr(compiler, "driver", SimpleNamespace(active=gpu))
    monkeypatch.setattr(compiler, "max_shared_mem", lambda _device: 100_000)
    compiled: Any = object.__new__(compiler.CompiledKernel)
    compiled.module, compiled._run, compiled.src = None, None, None
    compiled.metadata = SimpleNamespace(shared=230_000)
    kernel = Kernel()
    monkeypatch.setattr(kernel, "warmup", lambda *_, **__: compiled)
    for _ in range(2):
        with pytest.raises(OutOfResources, match="shared memory"), only_compiling():
            launch(kernel, (1,))
