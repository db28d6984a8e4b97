"""Opening tokenizers: what is read, what is refused and in which words."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from pictures import disc, drawn_image
from safetensors.torch import load_file, save_file
from weight_files import State, same_weights, written

from samtok_data.errors import SetupError
from tokenizer_model import (
    SMALL,
    MaskTokenizer,
    TokenizerConfig,
    TokenizerIdentity,
    addresses,
    checkpoints,
    identify_tokenizer,
    loading,
    open_tokenizer,
    save_tokenizer,
)


@pytest.fixture
def published_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of the published layout are read with the small configuration, so that they stay small."""
    monkeypatch.setattr(checkpoints, "SAMTOK_256X2", SMALL)


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


class SlowHash:
    """Stands in for a hash whose chunks take 10 ms each."""

    def __init__(self) -> None:
        self.num_chunks = 0

    def update(self, _chunk: bytes) -> None:
        self.num_chunks += 1
        time.sleep(0.01)

    def hexdigest(self) -> str:
        return "complete"


def test_an_error_does_not_wait_for_the_hash_of_the_whole_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = SlowHash()
    monkeypatch.setattr(addresses, "hashlib", SimpleNamespace(sha256=lambda: slow))
    path = tmp_path / "large.pth"
    path.touch()
    os.truncate(path, 200 << 20)
    with pytest.raises(SetupError, match=CUT):
        open_tokenizer(str(path))
    assert slow.num_chunks < 100  # of 200


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
