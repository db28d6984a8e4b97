"""Kernels are launched, or only compiled, together; with a kernel that writes down what is asked of it."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("triton", reason="triton is not installed")

from tokenizer_model.fast.launches import launch, only_compiling


class Kernel:
    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return lambda *arguments, **options: self.asked.append(("launched", grid, arguments, options))

    def warmup(self, *arguments: Any, grid: tuple[int, ...], **options: Any) -> Kernel:
        self.asked.append(("compiled", grid, arguments, options))
        return self

    @property
    def run(self) -> str:
        self.asked.append(("made ready",))
        return "launcher"


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

    def result(self) -> Kernel:
        return self.kernel


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


def test_without_a_mode_of_its_own_triton_compiles_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("triton.AsyncCompileMode", raising=False)
    kernel = Kernel()
    with only_compiling():
        launch(kernel, (1,))
    assert [what for what, *_ in kernel.asked] == ["compiled", "made ready"]
