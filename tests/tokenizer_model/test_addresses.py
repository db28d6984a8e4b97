"""From addresses to files: what is fetched, what is kept, and what a user reads where nothing can be had."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import fsspec
import huggingface_hub.errors
import pytest
from weight_files import written

from samtok_data.errors import SetupError
from tokenizer_model import (
    SAMTOK_256X2,
    SMALL,
    MaskTokenizer,
    addresses,
    checkpoints,
    identify_tokenizer,
    open_tokenizer,
)


def test_a_stored_file_is_copied_once_to_the_cache(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/models/mine.safetensors", saved.read_bytes())
    address = "memory://models/mine.safetensors"
    identity = identify_tokenizer(address)
    assert (identity.name, identity.address) == ("mine", address)
    assert identity.sha256 == hashlib.sha256(saved.read_bytes()).hexdigest()
    (copy,) = [path for path in (tmp_path / "cache" / "samtok-data").rglob("*") if path.is_file()]
    assert copy.name == "mine.safetensors"

    with monkeypatch.context() as patch:
        patch.setattr(type(memory), "get_file", lambda *_: pytest.fail("fetched again"))
        assert identify_tokenizer(address) == identity
    memory.rm("/models", recursive=True)


def test_a_download_that_breaks_off_leaves_no_file(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(_self: object, _remote: str, local: str, **_more: object) -> None:
        Path(local).write_bytes(b"half")
        raise ConnectionResetError("connection reset by peer")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/models/mine.safetensors", saved.read_bytes())
    monkeypatch.setattr(type(memory), "get_file", breaks)
    with pytest.raises(SetupError, match=r"mine\.safetensors: cannot be fetched: connection reset by peer"):
        open_tokenizer("memory://models/mine.safetensors")
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []
    memory.rm("/models", recursive=True)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("memory://nowhere/x.pth", "memory://nowhere/x.pth: no such file"),
        ("nosuch://bucket/x.pth", "nosuch://bucket/x.pth: cannot be fetched: Protocol not known: nosuch"),
        ("hf://owner/repository", "hf://owner/repository: expected hf://owner/repository/path"),
        ("file:///nowhere/x.pth", "file:///nowhere/x.pth: no such file"),
    ],
)
def test_an_address_without_a_file_is_named(
    address: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(SetupError, match=message):
        identify_tokenizer(address)


class Hub:
    """Stands in for the hub's client: what is asked of it, and the error that the network gives."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.error = error
        monkeypatch.setattr(addresses, "hf_hub_download", self.download)
        monkeypatch.setattr(addresses, "get_hf_file_metadata", self.metadata)

    def download(self, *arguments: Any, revision: str | None = None, local_files_only: bool = False) -> str:
        self.asked.append((*arguments, revision, local_files_only))
        raise huggingface_hub.errors.LocalEntryNotFoundError("not in the cache")

    def metadata(self, url: str, timeout: float) -> None:
        self.asked.append((url, timeout))
        raise self.error


def test_a_hub_out_of_reach_names_both_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    http_error = huggingface_hub.errors.HfHubHTTPError.__bases__[0]
    hub = Hub(monkeypatch, http_error("[Errno -2] Name or service not known"))
    with pytest.raises(SetupError) as raised:
        open_tokenizer("samtok-256x2")
    assert str(raised.value) == (
        "the weights of samtok-256x2 (hf://zhouyik/Qwen3-VL-8B-SAMTok/mask_tokenizer_256x2.pth) cannot be fetched: "
        "[Errno -2] Name or service not known. Give --tokenizer PATH of a downloaded mask_tokenizer_256x2.pth, or "
        "--tokenizer small for a trial"
    )
    (cached, (url, timeout)) = hub.asked  # one try, no retries
    assert cached == ("zhouyik/Qwen3-VL-8B-SAMTok", "mask_tokenizer_256x2.pth", None, True)
    assert url.endswith("/zhouyik/Qwen3-VL-8B-SAMTok/resolve/main/mask_tokenizer_256x2.pth")
    assert timeout <= 10


def test_another_hub_file_that_is_out_of_reach_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(monkeypatch, huggingface_hub.errors.OfflineModeIsEnabled("offline mode is enabled.\nmore words"))
    with pytest.raises(SetupError, match=r"hf://me/mine@v2/a/b\.pth: cannot be fetched: offline mode is enabled$"):
        open_tokenizer("hf://me/mine@v2/a/b.pth")
    assert hub.asked[0] == ("me/mine", "a/b.pth", "v2", True)


def test_the_published_tokenizer_is_known_by_its_name(
    small: MaskTokenizer, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(written(small, saved.with_name("blob"), lambda state: None))
    monkeypatch.setattr(checkpoints, "SAMTOK_256X2", SMALL)
    monkeypatch.setattr(addresses, "hf_hub_download", lambda *_, **__: str(path))
    identity = identify_tokenizer("samtok-256x2")
    assert identity.name == "samtok-256x2"
    assert identity.address == "hf://zhouyik/Qwen3-VL-8B-SAMTok/mask_tokenizer_256x2.pth"
    assert SAMTOK_256X2.backbone == "large"
