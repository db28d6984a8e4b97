"""Opening tokenizers: what is read, what is refused and in which words."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import huggingface_hub.errors
import numpy as np
import pytest
import torch
from pictures import disc, drawn_image
from safetensors.torch import load_file, save_file

from samtok_data.errors import SetupError
from tokenizer_model import (
    SAMTOK_256X2,
    SMALL,
    MaskTokenizer,
    TokenizerConfig,
    TokenizerIdentity,
    addresses,
    checkpoints,
    identify_tokenizer,
    load_sam2_weights,
    loading,
    open_tokenizer,
    save_tokenizer,
)

State = dict[str, torch.Tensor]
TINY_SAM2 = TokenizerConfig(backbone="tiny", image_size=256, hidden_size=256, codebook_size=4, depth=1)


@pytest.fixture
def published_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of the published layout are read with the small configuration, so that they stay small."""
    monkeypatch.setattr(checkpoints, "SAMTOK_256X2", SMALL)


@pytest.fixture
def saved(small: MaskTokenizer, tmp_path: Path) -> Path:
    path = tmp_path / "mine.safetensors"
    save_tokenizer(small, path, name="mine", trained=True)
    return path


def written(small: MaskTokenizer, path: Path, change: Callable[[State], Any]) -> str:
    """A .pth file of the small tokenizer's weights after a change."""
    state = {key: tensor.clone() for key, tensor in small.state_dict().items()}
    change(state)
    torch.save(state, path)
    return str(path)


def same_weights(one: MaskTokenizer, other: MaskTokenizer) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(tensor, theirs[key]) for key, tensor in one.state_dict().items())


# --- the embedded tokenizer


def test_the_embedded_tokenizer_says_what_it_is(small: MaskTokenizer) -> None:
    identity = identify_tokenizer("small")
    assert small.identity == identity
    assert (identity.name, identity.address, identity.config, identity.trained) == ("small", "", SMALL, True)
    assert identity.warning is None
    assert (identity.codebook_size, identity.depth) == (256, 2)
    assert small.vocabulary == identity.vocabulary
    assert identity.vocabulary.format([1, 2]) == "<|mt_start|><|mt_0001|><|mt_0258|><|mt_end|>"
    assert json.loads(json.dumps(identity.json)) == identity.json
    assert TokenizerConfig.from_json(identity.json["config"]) == SMALL
    assert pickle.loads(pickle.dumps(identity)) == identity


def test_the_embedded_tokenizer_is_small(small: MaskTokenizer) -> None:
    assert sum(parameter.numel() for parameter in small.parameters()) <= 8_000_000
    assert SMALL.image_size <= 512
    assert Path(loading.__file__).with_name("small.safetensors").stat().st_size <= 16_000_000


def test_an_installation_without_the_embedded_file_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenizer_model.addresses._EMBEDDED_FILE", "gone.safetensors")
    with pytest.raises(SetupError, match=r"--tokenizer small: .*gone.safetensors is missing; install samtok-data"):
        open_tokenizer("small")


def test_opening_leaves_the_callers_random_numbers_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    open_tokenizer("small")
    assert torch.equal(torch.rand(3), expected)


# --- files of the published layout


@pytest.mark.usefixtures("published_is_small")
def test_a_file_of_the_published_layout_is_read_and_its_video_parts_are_left(
    small: MaskTokenizer, tmp_path: Path
) -> None:
    def add_video(state: State) -> None:
        for key in checkpoints.VIDEO_KEYS:
            state[f"model.sam2_model.{key}{'weight' if key.endswith('.') else ''}"] = torch.zeros(3)

    path = tmp_path / "mask_tokenizer.pth"
    tokenizer = open_tokenizer(written(small, path, add_video))
    assert same_weights(tokenizer, small)
    assert tokenizer.identity == TokenizerIdentity(
        name="mask_tokenizer",
        address=str(path),
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        config=SMALL,
        trained=True,
    )
    assert identify_tokenizer(str(path)) == tokenizer.identity


def drop(*keys: str) -> Callable[[State], None]:
    def change(state: State) -> None:
        for key in [key for key in state if key.startswith(keys)]:
            del state[key]

    return change


def put(key: str, *shape: int) -> Callable[[State], None]:
    def change(state: State) -> None:
        state[key] = torch.zeros(shape)

    return change


NO_MEM = "model.sam2_model.no_mem_embed"
ROWS = "quantizer.codebooks.{}.weight"


@pytest.mark.usefixtures("published_is_small")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop(NO_MEM), rf"1 key missing: {NO_MEM}\. Give SAMTok's mask_tokenizer_256x2\.pth or "),
        (drop("model.sam2_model.sam_mask_encoder."), r"83 keys missing: (model\S+, ){7}model\S+ and 75 more\. Give"),
        (put("model.head", 2), r"1 key unexpected: model.head\. Give"),
        (put("quantizer.scale", 2), r"1 key unexpected: quantizer.scale\. Give"),
        (
            put(NO_MEM, 1, 1, 256),
            rf"1 key of another shape: {NO_MEM} \(expected \(1, 1, 128\), got \(1, 1, 256\)\)\. Give",
        ),
        (put(ROWS.format(0), 513, 128), r"expected 256 codes \(257 rows\), got 512 codes \(513 rows\)\. Give"),
        (put(ROWS.format(2), 257, 128), "expected 2 codebooks, got 3$"),
        (drop("quantizer.codebooks.1."), "expected 2 codebooks, got 1$"),
        (drop("quantizer."), "6 keys missing: quantizer.codebooks.0.cluster_size_ema, "),
    ],
    ids=[
        "one missing",
        "many missing",
        "unexpected",
        "extra",
        "shape",
        "512 codes",
        "depth 3",
        "depth 1",
        "no quantizer",
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(
    small: MaskTokenizer, tmp_path: Path, change: Callable[[State], None], message: str
) -> None:
    path = written(small, tmp_path / "broken.pth", change)
    with pytest.raises(SetupError, match=message) as raised:
        open_tokenizer(path)
    assert str(raised.value).startswith(f"{path}: ")


# --- files that are no checkpoints


class Malicious:
    """Runs a command where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("ran",)


CUT = "this is no PyTorch checkpoint, or it was cut short"


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: torch.save({"a": Malicious()}, path), "refused, the file holds more than tensors and could run"),
        (lambda path: path.write_bytes(pickle.dumps(Malicious())), CUT),
        (lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1"), CUT),
        (lambda path: path.write_bytes(b""), CUT),
        (lambda path: torch.save([1, 2], path), "expected a state dict, got list"),
        (lambda path: torch.save({"a": 1}, path), "expected a state dict, got int under the key 'a'"),
        (
            lambda path: torch.save({"model": {"no_mem_embed": torch.zeros(1)}}, path),
            "this is SAM 2.1's own checkpoint: it has no mask encoder and no quantizer, so it cannot tokenize",
        ),
    ],
    ids=["malicious", "raw pickle", "git lfs", "empty", "list", "number", "sam2"],
)
def test_a_file_that_is_no_tokenizer_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "file.pth"
    write(path)
    for read in (identify_tokenizer, open_tokenizer):
        with pytest.raises(SetupError, match=message):
            read(str(path))
    assert list(tmp_path.iterdir()) == [path]  # nothing ran


def test_a_truncated_file_is_refused(small: MaskTokenizer, saved: Path, tmp_path: Path) -> None:
    path = Path(written(small, tmp_path / "cut.pth", lambda state: None))
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(SetupError, match=f"{path}: {CUT}"):
        open_tokenizer(str(path))
    saved.write_bytes(saved.read_bytes()[:-1000])
    with pytest.raises(SetupError, match=r"mine\.safetensors: this is no safetensors file, or it was cut short"):
        open_tokenizer(str(saved))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"samtok-256: no such file. A tokenizer is samtok-256x2, small, or the addr"):
        identify_tokenizer("samtok-256")
    with pytest.raises(SetupError, match="no such file"):
        identify_tokenizer(str(tmp_path))


# --- our own files


def test_a_saved_tokenizer_comes_back(small: MaskTokenizer, saved: Path) -> None:
    tokenizer = open_tokenizer(str(saved))
    assert same_weights(tokenizer, small)
    assert (tokenizer.identity.name, tokenizer.identity.trained, tokenizer.identity.warning) == ("mine", True, None)
    assert tokenizer.config == SMALL
    image, rle = drawn_image(64, 64), disc(64, 64, 0.5, 0.5, 9)
    np.testing.assert_array_equal(tokenizer.encode([image], [[rle]])[0], small.encode([image], [[rle]])[0])


def test_the_same_weights_are_saved_as_the_same_bytes(small: MaskTokenizer, saved: Path, tmp_path: Path) -> None:
    save_tokenizer(open_tokenizer(str(saved)), tmp_path / "again.safetensors", name="mine", trained=True)
    assert (tmp_path / "again.safetensors").read_bytes() == saved.read_bytes()


def test_an_untrained_tokenizer_warns_after_saving_too(small: MaskTokenizer, tmp_path: Path) -> None:
    save_tokenizer(small, tmp_path / "raw.safetensors", name="raw", trained=False)
    identity = identify_tokenizer(str(tmp_path / "raw.safetensors"))
    assert not identity.trained
    assert identity.warning == (
        "The weights of tokenizer 'raw' are not trained: its mask words name no masks. "
        "Use it to try a pipeline, never to make training data."
    )


def test_a_full_disk_leaves_no_file(small: MaskTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_tokenizer(small, tmp_path / "mine.safetensors", name="mine", trained=True)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_only_safetensors_are_saved(small: MaskTokenizer, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected a path that ends in \.safetensors, got .*mine\.pth"):
        save_tokenizer(small, tmp_path / "mine.pth", name="mine", trained=True)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("{", "the metadata under 'samtok_config' is broken"),
        ("[]", "the metadata under 'samtok_config' is broken"),
        ("{}", "the metadata under 'samtok_config' is broken: 'config'"),
        (
            json.dumps({"name": "x", "trained": True, "config": SMALL.json | {"depth": 0}}),
            "is broken: depth must be at least 1, got 0",
        ),
        (
            json.dumps({"name": "x", "trained": True, "config": SMALL.json | {"depth": 3}}),
            "expected 3 codebooks, got 2",
        ),
    ],
    ids=["no JSON", "list", "empty", "depth 0", "depth 3"],
)
def test_broken_metadata_is_refused(saved: Path, header: str, message: str) -> None:
    save_file(load_file(saved), saved, metadata={"samtok_config": header})
    with pytest.raises(SetupError, match=message):
        identify_tokenizer(str(saved))


# --- addresses


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


# --- SAM 2.1's own weights


@pytest.fixture
def tiny() -> MaskTokenizer:
    return MaskTokenizer(TINY_SAM2)


def sam2_state(model: MaskTokenizer) -> State:
    """What SAM 2.1's file would hold for the model's backbone, video parts included."""
    state = {
        key: torch.full_like(tensor, 0.5)
        for key, tensor in model.network.state_dict().items()
        if not key.startswith("sam_mask_encoder.")
    }
    return state | {"memory_encoder.fuser.weight": torch.zeros(2), "maskmem_tpos_enc": torch.zeros(7)}


def test_sam2_weights_fill_what_sam2_has(tiny: MaskTokenizer, tmp_path: Path) -> None:
    before = {key: tensor.clone() for key, tensor in tiny.state_dict().items()}
    torch.save({"model": sam2_state(tiny)}, tmp_path / "sam2.1_hiera_tiny.pt")
    load_sam2_weights(tiny, tmp_path / "sam2.1_hiera_tiny.pt")
    for key, tensor in tiny.state_dict().items():
        if key.startswith(("quantizer.", "model.sam2_model.sam_mask_encoder.")):
            assert torch.equal(tensor, before[key]), key
        else:
            assert bool((tensor == 0.5).all()), key


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda state: state, "expected a checkpoint of SAM 2.1, a state dict under the key 'model'"),
        (lambda state: {"model": state | {"head": torch.zeros(1)}}, "1 key unexpected: head"),
        (
            lambda state: {"model": {key: state[key] for key in state if key != "no_mem_embed"}},
            "1 key missing: no_mem_embed",
        ),
        (
            lambda state: {"model": state | {"no_mem_embed": torch.zeros(1, 1, 2)}},
            r"no_mem_embed \(expected \(1, 1, 256\), got \(1, 1, 2\)\)",
        ),
    ],
    ids=["layout", "unexpected", "missing", "shape"],
)
def test_sam2_weights_that_do_not_fit_change_nothing(
    tiny: MaskTokenizer, tmp_path: Path, content: Callable[[State], Any], message: str
) -> None:
    before = tiny.network.no_mem_embed.clone()
    torch.save(content(sam2_state(tiny)), tmp_path / "sam2.pt")
    with pytest.raises(SetupError, match=message):
        load_sam2_weights(tiny, tmp_path / "sam2.pt")
    assert torch.equal(tiny.network.no_mem_embed, before)


# --- device, precision, imports


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"device": "gpu"}, "device: expected cpu, cuda or cuda:N, got 'gpu'"),
        ({"device": "cuda:99"}, r"device cuda:99: this machine has \d+ CUDA devices"),
        ({"precision": "bf16"}, "precision bf16 needs a CUDA device, got cpu: take fp32"),
    ],
    ids=["name", "number", "precision"],
)
def test_a_device_that_is_not_there_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SetupError, match=message):
        open_tokenizer("small", **settings)


@pytest.mark.parametrize("step", ["to", "use_fast_path"])
def test_a_device_with_too_little_memory_is_refused(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def fails(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(MaskTokenizer, step, fails)
    with pytest.raises(SetupError, match="The GPU's memory does not hold one image with one mask"):
        open_tokenizer("small")


def test_importing_loads_neither_torchvision_nor_ray_nor_the_packages_above() -> None:
    code = (
        "import sys, tokenizer_model; loaded = {name.split('.')[0] for name in sys.modules}; "
        "print(sorted({'torchvision', 'ray', 'converters', 'pipelines'} & loaded))"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "[]", "")


def test_the_names_are_the_ones_that_open(small: MaskTokenizer) -> None:
    assert loading.NAMES == ("samtok-256x2", "small")
